"""A KITTI raw drive: color camera 2 and Velodyne LiDAR at 10 Hz, with boxes in space and where the car was.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.kitti import on_the_road, rig_from_kitti
from perception.data.base import Boxes, Recording, RecordingInfo, Truth, TruthBoxes3d
from perception.data.msrs import CLASSES
from perception.data.oxts import read_trajectory
from perception.data.stamps import read_stamps
from perception.data.tracklets import Tracklet, read_tracklets
from perception.errors import DataError
from perception.files.listing import SampleFolder, list_ids
from perception.frame import Frame, Sample
from perception.geometry.transforms import RigidTransform
from perception.sensors.lidar.decode import load_lidar
from perception.sensors.rgb.decode import load_rgb

KIND_TO_CLASS = {
    "Pedestrian": 0,
    "Person (sitting)": 0,
    "Cyclist": 1,
    "Car": 2,
    "Van": 2,
}
"""KITTI object types as person, bicycle, car; others are neither rewarded nor punished, as whatever class."""

MIN_DEPTH_M = 0.5
_PICTURES = (".jpg", ".png")
_CLOUDS = (".npz", ".bin")
_TRAIN_SHARE = 0.8


class KITTI(Recording):
    """Frames of `ROOT/{image_02,velodyne}`, rectified camera 2 being the reference.

    The base is on the road below the Velodyne (`calibration.kitti.velodyne_in_base`), and its poses are those
    of `oxts`, where the drive has them.  Boxes in space are in the Velodyne's frame; how they move is told by
    the frames before and after, and known only with poses.

    Args:
        root: the folder with the calibration texts and `tracklet_labels.xml`.
        split: `all`, or by time: the first four fifths are `train`, the rest `val`.
    """

    sequential = True

    def __init__(self, root: Path, split: str = "all") -> None:
        info = RecordingInfo(
            "kitti",
            "KITTI raw drive",
            {"rgb": "rgb", "lidar": "lidar"},
            det_classes=CLASSES,
            rate_hz=10.0,
            licence="CC BY-NC-SA 3.0",
        )
        ids = list_ids(root / "image_02", _PICTURES)
        wrong = [name for name in ids if not (name.isascii() and name.isdigit())]
        if wrong:
            raise DataError(f"'{wrong[0]}' is no frame number", where=str(root / "image_02"))
        cut = round(_TRAIN_SHARE * len(ids))
        ids = {"all": ids, "train": ids[:cut], "val": ids[cut:]}[split]
        super().__init__(root, info, ids)
        self.rig = on_the_road(rig_from_kitti(root))
        self.trajectory = read_trajectory(root)
        self._rgb = SampleFolder(root / "image_02", _PICTURES)
        self._clouds = SampleFolder(root / "velodyne", _CLOUDS)
        if ids and not set(ids) & self._clouds.files.keys():
            warnings.warn(f"{root}: no frame has a cloud in velodyne/", stacklevel=3)
        self._stamps = {
            "rgb": read_stamps(root / "timestamps_image_02.txt"),
            "lidar": read_stamps(root / "timestamps_velodyne_points.txt"),
        }
        self._tracklets = read_tracklets(root / "tracklet_labels.xml")

    def _stamp(self, sensor: str, number: int) -> int:
        stamps = self._stamps[sensor]
        stamp = stamps[number] if number < len(stamps) else None
        if stamp is None:
            raise DataError(f"no {sensor} stamp for frame {number}", where=str(self.root))
        return stamp

    def stamp_ns(self, index: int) -> int:
        stamps, number = self._stamps["rgb"], int(self.ids[index])
        stamp = stamps[number] if number < len(stamps) else None
        return super().stamp_ns(index) if stamp is None else stamp

    def frame(self, index: int) -> Frame:
        name = self.ids[index]
        number = int(name)
        image = load_rgb(self._rgb.file(name)).data
        rgb = Sample("rgb", image, self._stamp("rgb", number), "camera", "rgb8")
        samples = {"rgb": self.rig.attach(rgb)}
        cloud = self._clouds.find(name)
        if cloud is not None:
            points = load_lidar(cloud).data
            lidar = Sample("lidar", points, self._stamp("lidar", number), "velodyne", "xyzi")
            samples["lidar"] = self.rig.attach(lidar)
        return Frame(samples)

    def truth(self, index: int) -> Truth:
        number = int(self.ids[index])
        sensor = self.rig.sensors["lidar"]
        camera, extrinsics = sensor.camera, sensor.extrinsics
        assert camera is not None and extrinsics is not None
        found: list[tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], int, bool]] = []
        for tracklet in self._tracklets:
            corners = tracklet.corners(number)
            if corners is None:
                continue
            optical = extrinsics.apply(corners)
            if (optical[:, 2] < MIN_DEPTH_M).any():
                continue
            uv, _ = camera.project(optical)
            low = uv.min(axis=0).clip(0, [camera.width, camera.height])
            high = uv.max(axis=0).clip(0, [camera.width, camera.height])
            if (high - low).min() >= 2:
                kind = KIND_TO_CLASS.get(tracklet.kind)
                box = np.concatenate([low, high])
                kinds = sorted(set(KIND_TO_CLASS.values())) if kind is None else [kind]
                found += [(box, k, kind is None) for k in kinds]
        boxes = Boxes.of(*zip(*found, strict=True)) if found else Boxes.empty()
        return Truth(boxes=boxes, boxes3d=self._boxes3d(number))

    def _boxes3d(self, number: int) -> TruthBoxes3d:
        """In the Velodyne's frame; what is of none of the classes is to be ignored as each of them."""
        rows: list[tuple[Any, ...]] = []
        for track, tracklet in enumerate(self._tracklets):
            place, center = tracklet.place(number), tracklet.center(number)
            if place is None:
                continue
            height, width, length = tracklet.size
            seen, yaw = tracklet.occlusion[place], tracklet.poses[place, 3]
            velocity = self._velocity(tracklet, number)
            own = center, (length, width, height), yaw, velocity, seen, track
            kind = KIND_TO_CLASS.get(tracklet.kind)
            kinds = sorted(set(KIND_TO_CLASS.values())) if kind is None else [kind]
            rows += [(*own, k, kind is None) for k in kinds]
        columns: Iterable[Any] = zip(*rows, strict=True) if rows else [[]] * 8
        center, size, yaw, velocity, seen, tracks, ids, ignore = columns
        return TruthBoxes3d.of(
            center, size, yaw, ids, ignore, velocity, occlusion=seen, track=tracks, frame="lidar"
        )

    def _velocity(self, tracklet: Tracklet, number: int) -> NDArray[np.float64]:
        """(2,) m/s over the ground in the Velodyne's axes, NaN where nothing tells it.

        From the frame before to the one after; at an end of the track, from or to the frame itself.
        """
        pose = self._velodyne_in_world(number)
        found = [self._in_world(tracklet, n) for n in (number - 1, number, number + 1)]
        known = [one for one in found if one is not None]
        if pose is None or len(known) < 2 or known[-1][1] <= known[0][1]:
            return np.full(2, np.nan)
        (first, start), (last, end) = known[0], known[-1]
        moved = pose.rotation.T @ (last - first) / ((end - start) * 1e-9)
        return np.asarray(moved[:2], np.float64)

    def _in_world(self, tracklet: Tracklet, number: int) -> tuple[NDArray[np.float64], int] | None:
        """Where an object was in the fixed frame (3,), and when."""
        center, pose = tracklet.center(number), self._velodyne_in_world(number)
        if center is None or pose is None:
            return None
        return pose.apply(center[None])[0], self._stamp("lidar", number)

    def _velodyne_in_world(self, number: int) -> RigidTransform | None:
        """From the Velodyne's frame at a frame's cloud to the fixed one."""
        stamps = self._stamps["lidar"]
        stamp = stamps[number] if 0 <= number < len(stamps) else None
        placed = self.rig.in_base("lidar")
        if self.trajectory is None or stamp is None or placed is None:
            return None
        found = self.trajectory.at(stamp)
        return None if found is None else found @ placed

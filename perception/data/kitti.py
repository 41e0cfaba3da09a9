"""A KITTI raw drive: color camera 2 and Velodyne LiDAR at 10 Hz, with 3D tracklets.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from calibration.kitti import rig_from_kitti
from perception.data.base import Boxes, Recording, RecordingInfo, Truth
from perception.data.msrs import CLASSES
from perception.data.tracklets import read_tracklets
from perception.errors import DataError
from perception.files.listing import SampleFolder, list_ids
from perception.files.text import read_text
from perception.frame import Frame, Sample
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


def read_stamps(path: Path) -> list[int | None]:
    """Nanosecond stamps of a KITTI `timestamps` file: one UTC date and time per line, the frame's number.

    An empty line stands for a frame that the sensor lacks.

    Raises:
        DataError: the file is missing or has another form.
    """
    stamps: list[int | None] = []
    for number, line in enumerate(read_text(path).rstrip().split("\n"), 1):
        if not line.strip():
            stamps.append(None)
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
            stamps.append(int(moment.timestamp()) * 10**9 + int(fraction[:9].ljust(9, "0")))
        except (ValueError, OverflowError) as error:
            raise DataError("not a time stamp", where=f"{path}:{number}") from error
    return stamps


class KITTI(Recording):
    """Frames of `ROOT/{image_02,velodyne}`, rectified camera 2 being the reference.

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
        self.rig = rig_from_kitti(root)
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
        return Truth(boxes=Boxes.of(*zip(*found, strict=True)) if found else Boxes.empty())

"""Scenes of boxes on the ground, seen by a LiDAR and cameras all around; made up, and small."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth, TruthBoxes3d
from perception.data.folder import FolderWriter
from perception.data.layout import FolderInfo
from perception.frame import Frame, Sample
from perception.geometry.boxes import corners_of
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import PreprocessContract

GROUND = {"x": (-12.8, 12.8), "y": (-12.8, 12.8), "cell_m": 0.4, "heights": (0.2, 1.0)}
SIZE = (64, 96)
CLASSES = (ClassInfo(0, "car", (200, 60, 60)), ClassInfo(1, "person", (60, 200, 60)))
SIZES = np.array([(4.0, 1.8, 1.5), (0.6, 0.6, 1.7)])
CAMERAS = {"front": 0.0, "left": np.pi / 2, "right": -np.pi / 2, "rear": np.pi}
_OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])


def about_z(angle: float) -> np.ndarray:
    """A rotation matrix."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def camera() -> CameraModel:
    """About 100 degrees of view."""
    return CameraModel(SIZE[1], SIZE[0], 40.0, 40.0, SIZE[1] / 2 - 0.5, SIZE[0] / 2 - 0.5)


def poses() -> dict[str, RigidTransform]:
    """By sensor, its place on the vehicle."""
    found = {
        f"cam_{name}": RigidTransform(about_z(yaw) @ _OPTICAL, about_z(yaw) @ [0.5, 0.0, 1.5])
        for name, yaw in CAMERAS.items()
    }
    return {**found, "lidar": RigidTransform(about_z(0.1), [0.2, 0.1, 1.8])}


def contract(*names: str, **options: Any) -> PreprocessContract:
    """Inputs of these names, all of them where none is given; cameras share an encoder."""
    own = {"birdseye": GROUND}
    rows: dict[str, Any] = {}
    for name in names or tuple(poses()):
        if name.startswith("cam"):
            view = {"height": SIZE[0], "width": SIZE[1], **own}
            rows[name] = {"kind": "rgb", "encoder": "camera", "view": view}
        elif name == "depth":
            rows[name] = {"kind": "depth", "view": {"height": 64, "width": 96, **own}}
        else:
            few = {"max_pillars": 400, "max_points": 6}
            rows[name] = {
                "kind": "lidar",
                "view": {"type": "birdseye", **own},
                "preprocess": {**few, **options},
            }
    return PreprocessContract.model_validate(rows)


def boxes_of(rng: np.random.Generator, count: int = 4) -> TruthBoxes3d:
    """Boxes that do not touch."""
    center: list[Any] = []
    while len(center) < count:
        place = rng.uniform(-11, 11, 2)
        apart = all(np.hypot(*(place - other)) > 5 for other in [*center, (0.0, 0.0)])
        center += [place] if apart else []
    ids = rng.integers(0, 2, count)
    size = SIZES[ids]
    yaw = rng.uniform(-np.pi, np.pi, count)
    speed = rng.uniform(0, 5, count)[:, None] * np.column_stack([np.cos(yaw), np.sin(yaw)])
    full = np.column_stack([np.array(center), size[:, 2] / 2])
    return TruthBoxes3d.of(full, size, yaw, ids, velocity=speed)


def frame_of(boxes: TruthBoxes3d, rng: np.random.Generator) -> Frame:
    """What the sensors see of boxes: points on their sides, and their outlines filled."""
    places = poses()
    local = rng.uniform(-0.5, 0.5, (len(boxes), 60, 3))
    local[..., 0] = np.sign(local[..., 0]) * 0.5  # the ends, so that the heading shows
    c, s = np.cos(boxes.yaw)[:, None], np.sin(boxes.yaw)[:, None]
    own = local * boxes.size[:, None]
    x, y = c * own[..., 0] - s * own[..., 1], s * own[..., 0] + c * own[..., 1]
    points = (np.stack([x, y, own[..., 2]], -1) + boxes.center[:, None]).reshape(-1, 3)
    lift = (np.arange(len(boxes) * 60) % 60 < 30) * 0.8 + 0.1
    floor = np.column_stack([rng.uniform(-12, 12, (300, 2)), np.zeros(300)])
    base = np.vstack([points, floor])
    bright = np.concatenate([lift, np.full(300, 0.5)])
    cloud = np.column_stack([places["lidar"].inverse().apply(base), bright]).astype(np.float32)
    samples = {"lidar": Sample("lidar", cloud, stamp_ns=0, pose=places["lidar"])}
    model = camera()
    order = np.argsort(-np.hypot(*boxes.center[:, :2].T))
    corners = corners_of(boxes.center, boxes.size, boxes.yaw)
    for name in (n for n in places if n.startswith("cam")):
        picture = np.full((*SIZE, 3), 90, np.uint8)
        picture[SIZE[0] // 2 :] = 60
        for k in order:
            seen = places[name].inverse().apply(corners[k])
            if (seen[:, 2] > 0.3).all():
                pixels = seen[:, :2] / seen[:, 2:] * 40 + [model.cx, model.cy]
                hull = cv2.convexHull(pixels.round().astype(np.int32))
                cv2.fillConvexPoly(picture, hull, CLASSES[int(boxes.class_ids[k])].color)
        samples[name] = Sample(
            "rgb", picture, stamp_ns=0, camera=model, pose=places[name], sensor=name
        )
    return Frame(samples, 0)


class Scenes(Recording):
    """So many scenes, of which the same seed gives the same."""

    def __init__(self, count: int, seed: int = 0, objects: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.boxes = [boxes_of(rng, objects) for _ in range(count)]
        self.frames = [frame_of(boxes, rng) for boxes in self.boxes]
        sensors = {name: s.kind for name, s in self.frames[0].items()}
        info = RecordingInfo("folder", "scenes", sensors, (), CLASSES, labels_of="cam_front")
        super().__init__(Path("memory"), info, [str(i) for i in range(count)])

    def frame(self, index: int) -> Frame:
        return self.frames[int(self.ids[index])]

    def truth(self, index: int) -> Truth:
        return Truth(boxes3d=self.boxes[int(self.ids[index])])


def write_scenes(scenes: Scenes, root: Path, kinds: Mapping[str, str] | None = None) -> Path:
    """A folder of scenes, as sensors of these names and kinds: its cameras look ahead, left, right and back
    by turns."""
    given = dict(kinds or scenes.info.sensors)
    names: dict[str, str] = {}
    cameras = [n for n in poses() if n.startswith("cam")]
    for name, kind in given.items():
        used = sum(given[other] != "lidar" for other in names)
        names[name] = "lidar" if kind == "lidar" else cameras[used % len(cameras)]
    placed = {
        name: SensorCalibration(
            None if own == "lidar" else camera(), kind=given[name], pose=Pose(poses()[own])
        )
        for name, own in names.items()
    }
    first = next(name for name, kind in given.items() if kind != "lidar")
    rig = Rig(placed, base="base_link", reference=first)
    info = FolderInfo.model_validate(
        {
            "schema": 2,
            "name": "scenes",
            "sensors": {name: {"kind": kind} for name, kind in given.items()},
            "height": SIZE[0],
            "width": SIZE[1],
            "det_classes": [{"id": c.id, "name": c.name, "color": c.color} for c in CLASSES],
            "labels_of": first,
            "boxes3d_frame": "base",
        }
    )
    with FolderWriter(root, info, rig) as writer:
        for index in range(len(scenes)):
            frame = scenes.frame(index)
            samples = {name: frame[own].data for name, own in names.items()}
            stamp = index * 10**8
            writer.add(f"{index:06d}", samples, stamp_ns=stamp, boxes3d=scenes.boxes[index])
    return root

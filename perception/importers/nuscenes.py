"""nuScenes: the key frames of six cameras and a LiDAR, with boxes in space.

Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020; the schema of its tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes, TruthBoxes3d
from perception.errors import CalibrationError, ConfigError, DataError, names_hint
from perception.files.containers import stays_inside
from perception.files.limits import MAX_ANNOTATION_BYTES
from perception.files.text import read_json
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.importers.source import Item, Marks, Source, named
from perception.importers.tables import Record

DETECTED = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""The ten classes of its detection benchmark, by category; others are left out."""

_KINDS = {"camera": "rgb", "lidar": "lidar"}
_NEAREST_M = 0.5
_LONGEST_S = 1.5
_VISIBLE = {
    "4": 0,
    "3": 1,
    "2": 2,
    "1": 3,
}  # tokens of 80, 60, 40 and 0 % and more that is to be seen
_BASE = "base_link"


def nuscenes(
    root: Path, version: str = "", labels_of: str = "cam_front", categories: str = "detected"
) -> Source:
    """The samples (key frames, 2 Hz) of the tables in `v1.0-*`.

    Boxes in space are in the LiDAR's frame, with what the tables know of them: `velocity_of`, the LiDAR's
    points on them, how much of them is to be seen, and which object it is.  Where the car was is kept.
    Boxes in the picture are the bounds of their corners in the picture of `labels_of`: wider than what is
    seen.  Boxes without a LiDAR or radar point are to be ignored.  What the car moves between the moments of
    cameras and LiDAR (up to 50 ms) is minded for boxes, and not in `rig.yaml`, which has one place for each
    sensor.  Radars are not read.

    Args:
        root: the folder with `samples` and the tables' folder.
        version: of the tables, such as `v1.0-mini`; needed where there are several.
        labels_of: the camera that boxes are shown in, in lower case.
        categories: `detected` for the ten of the benchmark, or `all`.

    Raises:
        ConfigError: unknown categories.
        DataError, CalibrationError: a table or file is missing or wrong; it is named.
    """
    if categories not in ("detected", "all"):
        hint = names_hint(categories, ("detected", "all"))
        raise ConfigError(f"there are no categories '{categories[:40]}'", hint=hint)
    tables = _Tables(root, version)
    names = tables.categories(categories == "all")
    frames = [_Frame(tables, sample) for sample in tables.of("sample").values()]
    sensors = {n: k for frame in frames for n, k in frame.kinds.items()}
    if labels_of not in sensors:
        cameras = [n for n, k in sensors.items() if k != "lidar"]
        hint = names_hint(labels_of, cameras)
        raise DataError(f"there is no camera '{labels_of[:40]}'", where=str(root), hint=hint)
    rigs: dict[Any, Rig] = {}
    items = [frame.item(labels_of, names, rigs) for frame in frames]
    return Source(
        "nuScenes",
        sensors,
        items,
        (),
        named(list(dict.fromkeys(names.values()))),
        labels_of,
        {"lidar_columns": 5},
        2.0,
        "CC BY-NC-SA 4.0",
    )


class _Tables:
    """The JSON tables, each by token."""

    def __init__(self, root: Path, version: str) -> None:
        found = sorted(p.name for p in root.glob("v1.0-*") if p.is_dir())
        if version:
            found = [name for name in found if name == version]
        if len(found) != 1:
            what = (
                f"{', '.join(found)} are there" if found else f"no {version or 'v1.0-*'} is there"
            )
            raise DataError(what, where=str(root), hint="nuscenes,version=v1.0-mini:DIR")
        self.root, self.folder = root, root / found[0]
        self._read: dict[str, dict[str, Record]] = {}
        self.by_sample: dict[str, list[Record]] = {}
        for record in self.of("sample_data").values():
            if record.fields.get("is_key_frame") is True:
                self.by_sample.setdefault(record.text("sample_token"), []).append(record)
        self.instances = {token: i for i, token in enumerate(self.of("instance"))}
        self.boxes_of: dict[str, list[Record]] = {}
        for record in self.of("sample_annotation").values():
            self.boxes_of.setdefault(record.text("sample_token"), []).append(record)

    @property
    def labeled(self) -> bool:
        """Whether there are boxes at all: the test set has none."""
        return bool(self.boxes_of)

    def of(self, name: str) -> dict[str, Record]:
        """A table."""
        if name not in self._read:
            path = self.folder / f"{name}.json"
            rows = read_json(path, limit=MAX_ANNOTATION_BYTES)
            if not isinstance(rows, list):
                raise DataError("is no list", where=str(path))
            # Nine of ten rows of the largest table are of sweeps between the key frames
            every = (
                (i, row)
                for i, row in enumerate(rows)
                if not (isinstance(row, dict) and row.get("is_key_frame") is False)
            )
            records = [Record(row, f"{path}[{i}]") for i, row in every]
            self._read[name] = {record.text("token"): record for record in records}
        return self._read[name]

    def of_token(self, name: str, record: Record) -> Record:
        """The row of a table that another's names."""
        token = record.text(f"{name}_token")
        found = self.of(name).get(token)
        if found is None:
            raise DataError(f"there is no {name} '{token[:40]}'", where=record.where)
        return found

    def seconds(self, annotation: Record) -> float:
        """When an annotated sample was taken, by the clock of its scene."""
        return self.of_token("sample", annotation).whole("timestamp") * 1e-6

    def categories(self, every: bool) -> dict[str, str]:
        """Classes by category."""
        known = [record.text("name") for record in self.of("category").values()]
        return {name: name for name in known} if every else dict(DETECTED)


def transform_of(record: Record) -> RigidTransform:
    """`translation` in metres and `rotation`, a quaternion w, x, y, z.

    Raises:
        DataError: they are no numbers, or the quaternion is no rotation.
    """
    w, x, y, z = record.numbers("rotation", 4)
    try:
        return RigidTransform.from_quaternion_xyzw((x, y, z, w), record.numbers("translation", 3))
    except CalibrationError as error:
        raise DataError(error.message, where=record.where) from error


@dataclass(frozen=True)
class _Sensor:
    """What one sensor gave: its file, where it sat on the car, and the car in the world."""

    path: Path
    to_car: RigidTransform
    to_world: RigidTransform
    camera: CameraModel | None


class _Frame:
    """One sample with the files of its sensors."""

    def __init__(self, tables: _Tables, sample: Record) -> None:
        self.tables, self.sample = tables, sample
        self.kinds: dict[str, str] = {}
        self.sensors: dict[str, _Sensor] = {}
        for record in tables.by_sample.get(sample.text("token"), []):
            placed = tables.of_token("calibrated_sensor", record)
            sensor = tables.of_token("sensor", placed)
            name = sensor.text("channel").lower()
            kind = _KINDS.get(sensor.text("modality"))
            if kind is not None:
                self.kinds[name] = kind
                self.sensors[name] = self._sensor(record, placed, kind)

    def _sensor(self, record: Record, placed: Record, kind: str) -> _Sensor:
        name = record.text("filename")
        if not stays_inside(name):
            raise DataError(f"filename '{name[:120]}' leads outside", where=record.where)
        moved = transform_of(self.tables.of_token("ego_pose", record))
        camera = None
        if kind == "rgb":
            rows = placed.fields.get("camera_intrinsic")
            if not isinstance(rows, list) or len(rows) != 3:
                raise DataError("'camera_intrinsic' is no 3x3 matrix", where=placed.where)
            k = [
                placed.numbers_of(r if isinstance(r, list) else [], "camera_intrinsic", 3)
                for r in rows
            ]
            size = record.whole("width"), record.whole("height")
            try:
                camera = CameraModel(*size, k[0][0], k[1][1], k[0][2], k[1][2])
            except CalibrationError as error:
                raise DataError(str(error), where=placed.where) from error
        return _Sensor(self.tables.root / name, transform_of(placed), moved, camera)

    def rig(self, labels_of: str) -> Rig:
        """Places on the car, and intrinsics."""
        own = {
            name: SensorCalibration(
                sensor.camera, None, name, kind=self.kinds[name], pose=Pose(sensor.to_car)
            )
            for name, sensor in self.sensors.items()
        }
        return Rig(own, _BASE, labels_of if labels_of in own else "", source="nuScenes")

    def item(self, labels_of: str, names: dict[str, str], rigs: dict[Any, Rig]) -> Item:
        """As an importer gives it; frames of equal calibration share a rig."""
        scene = self.tables.of_token("scene", self.sample)
        rig = None
        if labels_of in self.sensors:
            rig = self.rig(labels_of)
            rig = rigs.setdefault(repr(rig.to_dict()), rig)
        token = self.sample.text("token")
        return Item(
            f"{scene.text('name')}/{self.sample.whole('timestamp')}",
            {name: sensor.path for name, sensor in self.sensors.items()},
            partial(self.marks, labels_of, names),
            aliases=(token,),
            sequence=scene.text("name"),
            stamp_ns=self.sample.whole("timestamp") * 1000,
            rig=rig,
            pose=self.pose(labels_of),
        )

    @property
    def lidar(self) -> str:
        """The first LiDAR, in whose frame boxes are; empty where there is none."""
        return next((n for n in self.sensors if self.kinds[n] == "lidar"), "")

    def pose(self, labels_of: str) -> RigidTransform | None:
        """The car in the world, at the moment of the LiDAR."""
        sensor = self.sensors.get(self.lidar or labels_of)
        return None if sensor is None else sensor.to_world

    def marks(self, labels_of: str, names: dict[str, str]) -> Marks:
        """Boxes in space and in the picture of a camera."""
        if not self.tables.labeled:
            return Marks(withheld=True)
        places = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
        camera = self.sensors.get(labels_of)
        flat: list[tuple[float, float, float, float]] = []
        kinds: list[int] = []
        unmeasured: list[bool] = []
        solid: list[tuple[Record, int]] = []
        for record in self.tables.boxes_of.get(self.sample.text("token"), []):
            instance = self.tables.of_token("instance", record)
            name = names.get(self.tables.of_token("category", instance).text("name"))
            if name is None:
                continue
            solid.append((record, places[name]))
            pose, size = transform_of(record), record.numbers("size", 3)
            if camera is not None:
                box = bounds_in(camera, corners_of(pose, size))
                if box is not None:
                    flat.append(box)
                    kinds.append(places[name])
                    unmeasured.append(is_unmeasured(record))
        boxes = None if camera is None else Boxes.of(flat, kinds, unmeasured)
        return Marks(None, boxes, self.solid(solid) if self.lidar else None)

    def solid(self, rows: list[tuple[Record, int]]) -> TruthBoxes3d:
        """Boxes in the LiDAR's frame, of annotations and their classes."""
        records = [record for record, _ in rows]
        poses = [transform_of(record) for record in records]
        ahead = np.array([pose.rotation[:, 0] for pose in poses]).reshape(-1, 3)
        sizes = np.array([record.numbers("size", 3) for record in records]).reshape(-1, 3)
        for record, size in zip(records, sizes, strict=True):
            if not (size > 0).all():
                raise DataError("'size' is not positive", where=record.where)
        world = TruthBoxes3d.of(
            [pose.translation for pose in poses],
            sizes[:, [1, 0, 2]],
            np.arctan2(ahead[:, 1], ahead[:, 0]),
            [kind for _, kind in rows],
            [is_unmeasured(record) for record in records],
            [velocity_of(self.tables, record) for record in records],
            [record.whole("num_lidar_pts") for record in records],
            [_VISIBLE.get(str(record.fields.get("visibility_token")), -1) for record in records],
            [self.tables.instances[record.text("instance_token")] for record in records],
        )
        sensor = self.sensors[self.lidar]
        return world.moved((sensor.to_world @ sensor.to_car).inverse(), self.lidar)


def is_unmeasured(annotation: Record) -> bool:
    """Whether no LiDAR and no radar has a point on it."""
    return not annotation.whole("num_lidar_pts") + annotation.whole("num_radar_pts")


def velocity_of(tables: _Tables, annotation: Record) -> list[float]:
    """How fast a box moves over the ground along the world's x and y, m/s, NaN where nothing tells it.

    From the annotation of the object before to the one after, or, where there is only one of them, from or to
    it; as in the development kit not over more than 1.5 s for each.
    """
    known = tables.of("sample_annotation")
    beside = [known.get(str(annotation.fields.get(name) or "")) for name in ("prev", "next")]
    ends = beside[0] or annotation, beside[1] or annotation
    seconds = tables.seconds(ends[1]) - tables.seconds(ends[0])
    if not 0 < seconds <= _LONGEST_S * sum(one is not None for one in beside):
        return [math.nan, math.nan]
    first, last = (end.numbers("translation", 3) for end in ends)
    return [(b - a) / seconds for a, b in zip(first[:2], last[:2], strict=True)]


def corners_of(pose: RigidTransform, size: list[float]) -> NDArray[np.float64]:
    """The (8, 3) corners in the world of a box of width, length and height."""
    width, length, height = size
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.asarray(pose.apply(signs * [length / 2, width / 2, height / 2]), np.float64)


def bounds_in(
    sensor: _Sensor, corners: NDArray[np.float64]
) -> tuple[float, float, float, float] | None:
    """Bounds of corners in a camera's picture; None where a corner is behind it, or all are outside."""
    optical = (sensor.to_world @ sensor.to_car).inverse().apply(corners)
    if sensor.camera is None or (optical[:, 2] < _NEAREST_M).any():
        return None
    uv, _ = sensor.camera.project(optical)
    size = [sensor.camera.width, sensor.camera.height]
    low, high = (uv.min(axis=0) + 0.5).clip(0, size), (uv.max(axis=0) + 0.5).clip(0, size)
    if (high - low).min() < 1:
        return None
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])

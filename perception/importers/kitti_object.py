"""KITTI's 3D object benchmark: color camera 2, Velodyne, boxes in the picture and in space.

Geiger et al., "Are we ready for Autonomous Driving?  The KITTI Vision Benchmark Suite", CVPR 2012; the
object development kit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.kitti import (
    VELODYNE_HEIGHT_M,
    on_the_road,
    rig_from_kitti_calib,
    shift_of_camera_2,
    velodyne_in_base,
)
from perception.data.base import Boxes, TruthBoxes3d
from perception.errors import ConfigError, DataError, names_hint
from perception.files.listing import SampleFolder, list_files
from perception.files.text import read_bytes, read_text
from perception.geometry.rig import Rig
from perception.importers.placing import size_of_file
from perception.importers.source import Item, Marks, Source, named
from perception.sensors.registry import kind_of

NAMES = (
    "Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc",
)  # fmt: skip
IGNORED = "DontCare"

_HIGHEST_M = 20.0
_TRUNCATIONS = (0.15, 0.3, 0.5)
_COLUMNS = (15, 16)  # the last is the score of a detection
_PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class _Wanted:
    """What is taken, see `kitti_object`, with the names of the classes."""

    lidar: bool
    names: tuple[str, ...]
    height_m: float


def kitti_object(
    root: Path, lidar: bool = True, types: str = "kitti", height_m: float = VELODYNE_HEIGHT_M
) -> Source:
    """The frames of `training` (or of a folder with `image_2` itself), and of `testing` without labels.

    Frames of different calibration become recordings of their own, unless `lidar` is false.  Boxes in space
    are in the LiDAR's frame, or without it in that of the base on the road below it.

    Args:
        root: the folder.
        lidar: take the clouds, too.
        types: `kitti` for the types of KITTI alone, `any` for whatever the labels of a folder of one's own
            say, in the order in which they come.
        height_m: of the LiDAR above the road.

    Raises:
        ConfigError: there are no such types, or no such height.
        DataError, CalibrationError: a file is missing or wrong; it is named.
    """
    if types not in ("kitti", "any"):
        hint = names_hint(types, ("kitti", "any"))
        raise ConfigError(f"there are no types '{str(types)[:40]}'", hint=hint)
    if not 0 <= height_m <= _HIGHEST_M:
        raise ConfigError(f"height_m of {height_m} is none of a vehicle", hint="metres")
    parts = [(s, root / f) for s, f in (("train", "training"), ("test", "testing"))]
    parts = [(s, folder) for s, folder in parts if (folder / "image_2").is_dir()]
    if not parts and (root / "image_2").is_dir():
        parts = [("", root)]
    if not parts:
        raise DataError("no folder training/image_2", where=str(root))
    names = NAMES if types == "kitti" else _own_names([folder for _, folder in parts])
    wanted = _Wanted(lidar, names, height_m)
    items: list[Item] = []
    rigs: dict[tuple[bytes, tuple[int, int]], Rig] = {}
    for split, folder in parts:
        items += _items(folder, split if len(parts) > 1 else "", wanted, rigs)
    sensors = {"rgb": "rgb"} | ({"lidar": "lidar"} if lidar else {})
    own = types == "kitti"
    return Source(
        "KITTI object" if own else root.resolve().name,
        sensors,
        items,
        (),
        named(names),
        rate_hz=1.0,
        licence="CC BY-NC-SA 3.0" if own else "unknown",
    )


def _own_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The types that labels say, but the one that says nothing."""
    found: dict[str, None] = {}
    for folder in folders:
        labels = SampleFolder(folder / "label_2", (".txt",))
        for name in labels.files:
            found |= dict.fromkeys(row.kind for row in read_rows(labels.file(name), None))
    found.pop(IGNORED, None)
    return tuple(found)


def _items(
    root: Path, split: str, wanted: _Wanted, rigs: dict[tuple[bytes, tuple[int, int]], Rig]
) -> list[Item]:
    pictures = list_files(root / "image_2", _PICTURES)
    clouds = SampleFolder(root / "velodyne", kind_of("lidar").suffixes)
    labels = SampleFolder(root / "label_2", (".txt",))
    lidar = wanted.lidar
    if lidar and not clouds.files:
        raise DataError(
            "holds no cloud", where=str(clouds.folder), hint="kitti_object,lidar=false:DIR"
        )
    found = []
    for name, path in pictures.items():
        samples = {"rgb": path}
        rig = None
        calib = root / "calib" / f"{name}.txt"
        if lidar or calib.is_file():
            size = size_of_file(path, kind_of("rgb"))
            key = read_bytes(calib), size
            if key not in rigs:
                rigs[key] = on_the_road(rig_from_kitti_calib(calib, size), wanted.height_m)
            rig = rigs[key]
        if lidar:
            samples["lidar"] = clouds.file(name)
        marks = partial(_marks, labels.find(name), calib, rig, split == "test", wanted)
        found.append(
            Item(f"{split}/{name}" if split else name, samples, marks, split=split, rig=rig)
        )
    return found


@dataclass(frozen=True)
class Row:
    """One object of a label text, in the rectified coordinates of camera 0.

    Attributes:
        kind: its type.
        box: left, top, right, bottom in pixels.
        size: height, width, length in metres.
        bottom: x, y, z of the middle of its bottom face, metres; y is down.
        turn: about the y axis, radians.
        truncation: share of it that is outside of the picture.
        occlusion: 0 all to be seen, 1 partly, 2 largely hidden, 3 not known; as are others.
    """

    kind: str
    box: tuple[float, float, float, float]
    size: tuple[float, float, float]
    bottom: tuple[float, float, float]
    turn: float
    truncation: float = 0.0
    occlusion: int = 3

    @property
    def hidden(self) -> int:
        """`TruthBoxes3d.occlusion`: the first of the benchmark's levels (easy, moderate, hard) whose limits
        of occlusion and truncation it is within, 3 for none; -1 where the occlusion is not known."""
        if self.occlusion not in (0, 1, 2):
            return -1
        return max(self.occlusion, sum(self.truncation > limit for limit in _TRUNCATIONS))


def read_rows(path: Path, names: Sequence[str] | None = NAMES) -> list[Row]:
    """The objects of a label text.

    Args:
        path: the file.
        names: the types that there are beside `DontCare`, None for any.

    Raises:
        DataError: the file is missing, or a row is wrong; it is named.
    """
    rows = []
    for number, line in enumerate(read_text(path).lstrip("\ufeff").split("\n"), 1):
        words, where = line.split(), f"{path}:{number}"
        if not words:
            continue
        if len(words) not in _COLUMNS:
            raise DataError(f"not an object: {len(words)} columns, expected 15", where=where)
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise DataError("not an object: not numbers", where=where) from error
        if not all(map(math.isfinite, values)):
            raise DataError("not an object: not finite", where=where)
        if names is not None and words[0] not in (*names, IGNORED):
            hint = names_hint(words[0], (*names, IGNORED))
            raise DataError(f"unknown type '{words[0][:40]}'", where=where, hint=hint)
        left, top, right, bottom = values[3:7]
        if right < left or bottom < top:
            raise DataError("not an object: right and bottom come before left and top", where=where)
        box = left, top, right, bottom
        rows.append(
            Row(
                words[0],
                box,
                (values[7], values[8], values[9]),
                (values[10], values[11], values[12]),
                values[13],
                values[0],
                round(max(-1.0, min(values[1], 9.0))),
            )
        )
    return rows


def _marks(
    path: Path | None, calib: Path, rig: Rig | None, withheld: bool, wanted: _Wanted
) -> Marks:
    if path is None:
        return Marks(withheld=withheld)
    names = wanted.names
    rows = read_rows(path, names)
    known = [row for row in rows if row.kind != IGNORED]
    regions = [row.box for row in rows if row.kind == IGNORED]  # of any class
    boxes = Boxes.of(
        [row.box for row in known] + [box for box in regions for _ in names],
        [names.index(row.kind) for row in known] + [*range(len(names))] * len(regions),
        [False] * len(known) + [True] * len(regions) * len(names),
    )
    solid = None
    if rig is not None and "lidar" in rig.sensors:
        shift = shift_of_camera_2(calib)
        sized = [row for row in known if min(row.size) > 0]
        solid = in_lidar(sized, names, rig, shift)
        solid = solid if wanted.lidar else solid.moved(velodyne_in_base(wanted.height_m))
    return Marks(None, boxes, solid)


def in_lidar(
    rows: Sequence[Row], names: Sequence[str], rig: Rig, shift: NDArray[np.float64]
) -> TruthBoxes3d:
    """Boxes in the LiDAR's frame.

    Args:
        rows: the objects.
        names: of the classes.
        rig: of the frame.
        shift: see `shift_of_camera_2`.
    """
    extrinsics = rig.sensors["lidar"].extrinsics
    assert extrinsics is not None
    back = extrinsics.inverse()
    sizes = np.array([row.size for row in rows]).reshape(-1, 3)
    bottom = np.array([row.bottom for row in rows]).reshape(-1, 3)
    turn = np.array([row.turn for row in rows])
    center = bottom - np.column_stack([0 * turn, sizes[:, 0] / 2, 0 * turn]) + shift
    ahead = np.column_stack([np.cos(turn), 0 * turn, -np.sin(turn)]) @ back.rotation.T
    return TruthBoxes3d.of(
        back.apply(center),
        sizes[:, [2, 1, 0]],
        np.arctan2(ahead[:, 1], ahead[:, 0]),
        [names.index(row.kind) for row in rows],
        occlusion=[row.hidden for row in rows],
        frame="lidar",
    )

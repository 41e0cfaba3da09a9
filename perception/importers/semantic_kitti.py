"""SemanticKITTI: the scans of KITTI's odometry drives with a class for each point.

Behley et al., "SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR Sequences", ICCV 2019; the
19 classes of its single scan benchmark.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.kitti import rig_from_kitti_calib
from perception.adapters.headerless import parse_bin
from perception.errors import AnySenseError, DataError
from perception.files.listing import SampleFolder, list_files
from perception.files.text import read_bytes, read_text
from perception.geometry.rig import Rig
from perception.importers.placing import size_of_file
from perception.importers.source import UNLABELED, Item, Marks, Source, named, to_places
from perception.sensors.registry import kind_of

NAMES = (
    "car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist",
    "road", "parking", "sidewalk", "other-ground", "building", "fence", "vegetation", "trunk",
    "terrain", "pole", "traffic-sign",
)  # fmt: skip

# fmt: off
PLACES = {
    10: 0, 11: 1, 13: 4, 15: 2, 16: 4, 18: 3, 20: 4, 30: 5, 31: 6, 32: 7, 40: 8, 44: 9, 48: 10, 49: 11,
    50: 12, 51: 13, 60: 8, 70: 14, 71: 15, 72: 16, 80: 17, 81: 18, 252: 0, 253: 6, 254: 5, 255: 7,
    256: 4, 257: 4, 258: 3, 259: 4,
}
"""Places of the classes by label; what moves has labels of its own."""
UNKNOWN = (0, 1, 52, 99)
"""Unlabeled, outlier, other structure, other object."""
# fmt: on

SIZE = (376, 1241)
"""Of the odometry drives' pictures, where there are none to tell."""

_VALIDATED = "08"
_LABELED = 11  # drives from this number on are the test set
_COLUMNS = 4


def semantic_kitti(root: Path, pictures: bool = True) -> Source:
    """The scans of `sequences/NN`, with the pictures of camera 2 where they are there.

    Labels are of points; a recording's are of pixels.  Each point's class is put where the point lies in
    camera 2, the nearest where several do, and all other pixels are not labeled: a sparse mask.

    Args:
        root: the folder with `sequences`.
        pictures: take `image_2`, where it is there.

    Raises:
        DataError, CalibrationError: a file is missing or wrong; it is named.
    """
    top = next((p for p in (root / "sequences", root / "dataset/sequences") if p.is_dir()), None)
    if top is None:
        raise DataError("no folder sequences", where=str(root))
    drives = sorted(p for p in top.iterdir() if (p / "velodyne").is_dir())
    if not drives:
        raise DataError("no sequence with a folder velodyne", where=str(top))
    colored = pictures and any((drive / "image_2").is_dir() for drive in drives)
    rigs: dict[tuple[bytes, tuple[int, int]], Rig] = {}
    items = [item for drive in drives for item in _items(drive, colored, rigs)]
    sensors = {"rgb": "rgb", "lidar": "lidar"} if colored else {"lidar": "lidar"}
    return Source(
        "SemanticKITTI",
        sensors,
        items,
        named(NAMES),
        rate_hz=10.0,
        licence="CC BY-NC-SA 4.0",
        sized=None if colored else SIZE,
    )


def _items(
    drive: Path, colored: bool, rigs: dict[tuple[bytes, tuple[int, int]], Rig]
) -> list[Item]:
    stamps = _stamps(drive / "times.txt")
    images = SampleFolder(drive / "image_2", kind_of("rgb").suffixes)
    labels = SampleFolder(drive / "labels", (".label",))
    number = int(drive.name) if drive.name.isascii() and drive.name.isdigit() else 0
    split = "val" if drive.name == _VALIDATED else "train" if number < _LABELED else "test"
    calib, size = drive / "calib.txt", SIZE
    found: list[Item] = []
    for name, path in list_files(drive / "velodyne", (".bin",)).items():
        if not (name.isascii() and name.isdigit()):
            raise DataError(f"'{name[:80]}' is no scan number", where=str(drive / "velodyne"))
        samples = {"lidar": path}
        if colored and (image := images.find(name)) is not None:
            if not found:  # all of a drive have one size
                size = size_of_file(image, kind_of("rgb"))
            samples["rgb"] = image
        key = read_bytes(calib), size
        if key not in rigs:
            rig = rig_from_kitti_calib(calib, size)
            rigs[key] = rig if colored else Rig({"lidar": rig.sensors["lidar"]})
        marks = partial(_marks, path, labels.find(name), rigs[key], split == "test")
        index = int(name)
        stamp = None
        if stamps is not None:
            if index >= len(stamps):
                raise DataError(f"has no time of scan {index}", where=str(drive / "times.txt"))
            stamp = stamps[index]
        found.append(
            Item(
                f"{drive.name}/{name}",
                samples,
                marks,
                split=split,
                sequence=drive.name,
                stamp_ns=stamp,
                rig=rigs[key],
            )
        )
    return found


def _stamps(path: Path) -> list[int] | None:
    """Nanoseconds since the drive's start by scan; None where there is no such file."""
    if not path.is_file():
        return None
    found = []
    for number, line in enumerate(read_text(path).rstrip().split("\n"), 1):
        try:
            seconds = float(line)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < 1e9:
            raise DataError("is no time in seconds", where=f"{path}:{number}")
        found.append(round(seconds * 1e9))
    return found


def _marks(cloud: Path, path: Path | None, rig: Rig, withheld: bool) -> Marks:
    if path is None:
        return Marks(withheld=withheld)
    try:
        points = parse_bin(read_bytes(cloud), _COLUMNS)
    except AnySenseError as error:
        raise type(error)(error.message, where=str(cloud), hint=error.hint) from error
    content = read_bytes(path)
    if len(content) != 4 * len(points):
        raise DataError(
            f"{len(content)} bytes are not the labels of {len(points)} points", where=str(path)
        )
    ids = np.frombuffer(content, "<u4") & 0xFFFF  # the upper half numbers objects
    wrong = np.setdiff1d(ids, [*PLACES, *UNKNOWN])
    if wrong.size:
        raise DataError(f"holds label {int(wrong[0])}, which is none", where=str(path))
    return Marks(in_picture(points, to_places(ids, PLACES), rig))


def in_picture(
    points: NDArray[np.float32], places: NDArray[np.int32], rig: Rig
) -> NDArray[np.int32]:
    """Labels of points (N,) as a picture of the rig's LiDAR's camera, `UNLABELED` where no point is."""
    own = rig.sensors["lidar"]
    camera, extrinsics = own.camera, own.extrinsics
    assert camera is not None and extrinsics is not None
    labels = np.full((camera.height, camera.width), UNLABELED, np.int32)
    optical = extrinsics.apply(points[:, :3].astype(np.float64))
    uv, valid = camera.project(optical)
    pixels = np.round(np.where(valid[:, None], uv, -1)).astype(np.int64)
    inside = valid & (pixels >= 0).all(axis=1)
    inside &= (pixels[:, 0] < camera.width) & (pixels[:, 1] < camera.height)
    farthest_first = np.flatnonzero(inside)[np.argsort(-optical[inside, 2], kind="stable")]
    columns, rows = pixels[farthest_first].T
    labels[rows, columns] = places[farthest_first]
    return labels

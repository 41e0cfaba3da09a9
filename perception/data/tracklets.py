"""KITTI tracklets: 3D boxes of a drive, and their outlines in the camera image.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013; the raw-data development kit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from perception.errors import DataError
from perception.files.xml import read_xml


@dataclass(frozen=True)
class Tracklet:
    """One object of a drive.

    Attributes:
        kind: KITTI's object type, such as `Car`.
        size: height, width, length in metres.
        first_frame: index of the first frame with a pose.
        poses: (P, 4) x, y, z of the middle of its bottom face in the LiDAR frame in metres, and yaw
            in radians around z.
        occlusion: (P,) 0 for all to be seen in the picture, 1 partly, 3 hardly any; -1 for not known.
    """

    kind: str
    size: tuple[float, float, float]
    first_frame: int
    poses: NDArray[np.float64]
    occlusion: NDArray[np.int64]

    def place(self, frame: int) -> int | None:
        """The place of its pose at a frame index, None if it is not there then."""
        index = frame - self.first_frame
        return index if 0 <= index < len(self.poses) else None

    def center(self, frame: int) -> NDArray[np.float64] | None:
        """Its middle (3,) in the LiDAR frame at a frame index, None if it is not there then."""
        index = self.place(frame)
        return None if index is None else self.poses[index, :3] + [0, 0, self.size[0] / 2]

    def corners(self, frame: int) -> NDArray[np.float64] | None:
        """The (8, 3) corners in the LiDAR frame at frame index `frame`, None if not seen then."""
        index = self.place(frame)
        if index is None:
            return None
        height, width, length = self.size
        x, y, z, yaw = self.poses[index]
        signs = np.array([(sx, sy) for sx in (-0.5, 0.5) for sy in (-0.5, 0.5)])
        flat = signs * [length, width]
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        footprint = flat @ turn.T + [x, y]
        return np.concatenate(
            [np.column_stack([footprint, np.full(4, level)]) for level in (z, z + height)]
        )


def read_tracklets(path: Path) -> list[Tracklet]:
    """All tracklets of a `tracklet_labels.xml`.

    Raises:
        DataError: the file is missing or no tracklet file.
    """
    root = read_xml(path).find("tracklets")
    if root is None:
        raise DataError("not a tracklet file: no element 'tracklets'", where=str(path))
    tracklets = []
    for index, item in enumerate(root.findall("item")):
        try:
            tracklets.append(_tracklet(item))
        except ValueError as error:
            raise DataError(f"tracklet {index}: {error}", where=str(path)) from error
    return tracklets


def _number(item: Element, name: str) -> float:
    text = item.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is no number" if text else f"no {name}")
    return value


def _tracklet(item: Element) -> Tracklet:
    element = item.find("poses")
    rows = [] if element is None else element.findall("item")
    table = [[_number(row, name) for name in ("tx", "ty", "tz", "rz")] for row in rows]
    poses = np.array(table, np.float64).reshape(-1, 4)
    size = (_number(item, "h"), _number(item, "w"), _number(item, "l"))
    first = _number(item, "first_frame")
    if min(size) <= 0:
        raise ValueError(f"size {' x '.join(f'{v:g}' for v in size)} is not positive")
    if first < 0 or first != int(first):
        raise ValueError(f"first_frame {first:g} is no frame")
    if len(poses) and np.abs(poses[:, 3]).max() > 4 * math.pi:
        raise ValueError(f"rz of {np.abs(poses[:, 3]).max():g} is no angle in radians")
    kind = (item.findtext("objectType") or "").strip()
    seen = np.array([_occlusion(row) for row in rows], np.int64)
    return Tracklet(kind, size, int(first), poses, seen)


def _occlusion(row: Element) -> int:
    """How little of it is to be seen: `occlusion` (0, 1 partly, 2 fully) and `truncation` (0, 1 cut off by
    the picture's edge, 2 and 99 beside and behind it), which need not be there."""
    hidden, cut = (_state(row, name) for name in ("occlusion", "truncation"))
    found = {0: 0, 1: 1, 2: 3}.get(hidden, -1)
    return max(found, {1: 1, 2: 3, 99: 3}.get(cut, -1))


def _state(row: Element, name: str) -> int:
    if row.find(name) is None:
        return -1
    return round(_number(row, name))

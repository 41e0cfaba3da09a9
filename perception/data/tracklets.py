"""KITTI tracklets: 3D boxes of a drive, and their outlines in the camera image.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013; the raw-data development kit.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import DataError


@dataclass(frozen=True)
class Tracklet:
    """One object of a drive.

    Attributes:
        kind: KITTI's object type, such as `Car`.
        size: height, width, length in metres.
        first_frame: index of the first frame with a pose.
        poses: (P, 4) x, y, z of the middle of its bottom face in the LiDAR frame in metres, and yaw
            in radians around z.
    """

    kind: str
    size: tuple[float, float, float]
    first_frame: int
    poses: NDArray[np.float64]

    def corners(self, frame: int) -> NDArray[np.float64] | None:
        """The (8, 3) corners in the LiDAR frame at frame index `frame`, None if not seen then."""
        index = frame - self.first_frame
        if not 0 <= index < len(self.poses):
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
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    try:
        root = ElementTree.parse(path).getroot().find("tracklets")
        items = [] if root is None else root.findall("item")
        return [_tracklet(item) for item in items]
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise DataError(f"not a tracklet file: {error}", where=str(path)) from error


def _number(item: ElementTree.Element, name: str) -> float:
    return float(item.findtext(name))  # type: ignore[arg-type]


def _tracklet(item: ElementTree.Element) -> Tracklet:
    poses = item.find("poses")
    rows = [] if poses is None else poses.findall("item")
    table = [[_number(row, name) for name in ("tx", "ty", "tz", "rz")] for row in rows]
    return Tracklet(
        item.findtext("objectType") or "",
        (_number(item, "h"), _number(item, "w"), _number(item, "l")),
        int(_number(item, "first_frame")),
        np.array(table, np.float64).reshape(-1, 4),
    )

"""Clouds without a header: rows of float32, whose number of columns must be told."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.errors import EncodingError
from perception.files.limits import check_points

COLUMNS_BY_SUFFIX: Final = {".pcd.bin": 5, ".bin": 4}
"""nuScenes writes x, y, z, intensity, ring; KITTI x, y, z, intensity."""

COLUMNS: Final = range(3, 17)
"""How many columns may be told."""

_ALTERNATIVES = (4, 5, 6)
_FARTHEST_M, _BRIGHTEST = 10_000.0, 65535.0
_SMALLEST = 1e-30  # but 0, what rounding leaves of a coordinate is larger
_ENOUGH_POINTS, _FEW, _MANY = 16, 0.01, 0.1


def columns_of(path: Path) -> int | None:
    """Float32 a point of a headerless file by its name; None of another file."""
    name = Path(path).name.lower()
    return next((n for suffix, n in COLUMNS_BY_SUFFIX.items() if name.endswith(suffix)), None)


def parse_bin(content: bytes, columns: int) -> NDArray[np.float32]:
    """Rows (N, min(columns, 5)) of x, y, z and, when there are more columns, intensity and others.

    Args:
        content: the file's bytes, little-endian float32.
        columns: float32 a point.

    Raises:
        EncodingError: the size or the values contradict `columns`: read with another number of columns
            every value makes sense, with this one intensities are negative, for example.  Or they are no
            coordinates at all, as those of another type or byte order.
        InputError: more points than the limit.
    """
    if columns not in COLUMNS:
        raise EncodingError(f"{columns} columns, expected {COLUMNS[0]} to {COLUMNS[-1]}")
    others = [n for n in _ALTERNATIVES if n != columns and len(content) % (4 * n) == 0]
    if len(content) % (4 * columns):
        fitting = " or ".join(map(str, others)) or "none of 4, 5 and 6"
        raise EncodingError(
            f"{len(content)} bytes are no multiple of {columns} float32 a point",
            hint=f"{fitting} would fit; {_REMEDY}",
        )
    check_points(len(content) // (4 * columns))
    values = np.frombuffer(content, "<f4")
    table = values.reshape(-1, columns)
    if len(table) >= _ENOUGH_POINTS and _nonsense(table) > _FEW:
        better = next((n for n in others if not _nonsense(values.reshape(-1, n))), None)
        if better is None and columns > 3 and _may_be_three(content, table):
            better = 3
        if better is not None:
            raise EncodingError(
                f"does not hold {columns} float32 a point but {better}: read so, all values make sense",
                hint=_REMEDY,
            )
    if len(table) >= _ENOUGH_POINTS and _absurd(table) > _MANY:
        least, most = np.nanmin(table[:, :3]), np.nanmax(table[:, :3])
        raise EncodingError(
            f"holds values from {least:.3g} to {most:.3g}, no coordinates in metres",
            hint="expected little-endian float32; is it another type, or are these millimetres?",
        )
    return table[:, :5]


_REMEDY = "columns are told by the name (.pcd.bin: 5, .bin: 4), --lidar-columns or lidar_columns"


def _nonsense(table: NDArray[np.float32]) -> float:
    """Share of the rows that no LiDAR writes."""
    with np.errstate(invalid="ignore"):
        good = (np.abs(table[:, :3]) <= _FARTHEST_M).all(axis=1)
        good &= ((table[:, 3:] >= 0) & (table[:, 3:] < np.inf)).all(axis=1)
        good &= (table[:, 3:4] <= _BRIGHTEST).all(axis=1)
    return 1 - float(good.mean())


def _may_be_three(content: bytes, table: NDArray[np.float32]) -> bool:
    """Whether what should be intensities spreads to both sides of 0, as only coordinates do."""
    if len(content) % 12:
        return False
    negative = table[:, 3][table[:, 3] < 0]
    many = len(negative) > _MANY * len(table) and len(np.unique(negative)) > _ENOUGH_POINTS / 2
    return many and not _nonsense(np.frombuffer(content, "<f4").reshape(-1, 3))


def _absurd(table: NDArray[np.float32]) -> float:
    """Share of the rows beyond any range; a row of three equal numbers may stand for no return."""
    distance = np.abs(table[:, :3])
    no_return = (distance == distance[:, :1]).all(axis=1)
    absurd = (distance > _FARTHEST_M) | ((distance > 0) & (distance < _SMALLEST))
    return float((absurd.any(axis=1) & ~no_return).mean())

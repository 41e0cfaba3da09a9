"""Points on the ground grid: those of a cell are a pillar (Lang et al., "PointPillars", CVPR 2019).

All of it is decided by the points alone, without chance: the same points give the same pillars.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import is_square_of_return
from perception.geometry.grid import BirdseyeSpec
from perception.geometry.scratch import POINTS, Scratch, as_columns, block_size
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Index = NDArray[np.intp]

FIELDS = ("x", "y", "z", "intensity", "dx", "dy", "dz", "valid")
"""Of a point in a pillar: where it is in the base frame, in metres; intensity; how far it is from the middle
of its cell and from the pillar's mean height; and 1, where a padded place has 0."""

_TWO_BYTES = 1 << 16


def on_ground(
    points: NDArray[Any], pose: RigidTransform, spec: BirdseyeSpec
) -> tuple[Float32, Int32]:
    """The returns of a cloud that lie on the grid, in the base frame, and where they fall.

    Args:
        points: (N, C >= 3) x, y, z in metres in the sensor's frame, then intensity in 0..1; what is no
            return (`perception.frame.is_return`) is left out.
        pose: from the sensor's frame to the base frame.
        spec: the grid.

    Returns:
        (M, 4) x, y, z, intensity, in the order they came; intensity 0 where it is not known.  And (M,) int32,
        their cells as `cells_of` has them.
    """
    rotation, translation = pose.rotation.astype(np.float32), pose.translation.astype(np.float32)
    found, cells = np.empty((len(points), 4), np.float32), np.empty(len(points), np.int32)
    count = 0
    with POINTS.lend() as scratch, np.errstate(all="ignore"):
        size = block_size(len(points))
        for start in range(0, len(points), size):
            columns = as_columns(points[start : start + size, :4], scratch)
            base = scratch.array("base", (4, columns.shape[1]), np.float32)
            np.matmul(rotation, columns[:3], out=base[:3])
            base[:3] += translation[:, None]
            square = columns[0] * columns[0]
            square += columns[1] * columns[1]
            square += columns[2] * columns[2]
            cell, keep = _within(base, spec)
            keep &= is_square_of_return(square)
            if len(columns) > 3:
                np.clip(columns[3], 0, 1, out=base[3])
                base[3][np.isnan(base[3])] = 0
            else:
                base[3] = 0
            chosen = np.flatnonzero(keep)
            if chosen.size:
                rows = cv2.transpose(base, scratch.array("rows", base.shape[::-1], np.float32))
                into = slice(count, count := count + len(chosen))
                # Any other mode makes a copy.
                np.take(rows, chosen, axis=0, out=found[into], mode="clip")
                np.take(cell, chosen, out=cells[into], mode="clip")
    return found[:count], cells[:count]


def _within(columns: Float32, spec: BirdseyeSpec) -> tuple[Int32, NDArray[np.bool_]]:
    """Cells of points given as columns (3 or more, N), and which of them lie on the grid."""
    rows, across = spec.shape
    scale = np.float32(1 / spec.cell_m)
    with np.errstate(invalid="ignore"):
        i = (columns[0] - np.float32(spec.x[0])) * scale
        j = (columns[1] - np.float32(spec.y[0])) * scale
        keep = (i >= 0) & (i < rows) & (j >= 0) & (j < across)
        keep &= (columns[2] >= np.float32(spec.z[0])) & (columns[2] < np.float32(spec.z[1]))
        cell = i.astype(np.int32)  # the floor of what is not negative
        cell *= across
        cell += j.astype(np.int32)
        return cell, keep


def cells_of(points: Float32, spec: BirdseyeSpec) -> tuple[Int32, NDArray[np.bool_]]:
    """Where points of the base frame fall.

    Args:
        points: (N, C >= 3) metres.
        spec: the grid.

    Returns:
        (N,) int32 row * columns + column, and (N,) whether it lies on the grid; of what does not, the
        cell means nothing.
    """
    return _within(np.ascontiguousarray(points[:, :3].T, np.float32), spec)


def fill_pillars(
    points: Float32,
    spec: BirdseyeSpec,
    pillars: Float32,
    cells: Int32,
    fallen: Int32 | None = None,
) -> int:
    """Points to pillars, in ascending order of their cells.

    Where there are more than fit, those with the most points stay, of equals the lower cell; of a pillar
    with too many points every so many-th one stays, in the order they came.

    Args:
        points: (N, 4) x, y, z, intensity in the base frame; what lies beside the grid is left out.
        spec: the grid.
        pillars: (P, M, 8) float32, filled with `FIELDS`; 0 in a padded row.
        cells: (P,) int32, filled with row * columns + column, rows * columns for a pillar without points.
        fallen: (N,) int32, the cells of the points where these are known and all lie on the grid.

    Returns:
        How many pillars have points.
    """
    most, deep, _ = pillars.shape
    rows, across = spec.shape
    if fallen is None:
        fallen, keep = cells_of(points, spec)
        if not keep.all():
            kept = np.flatnonzero(keep)
            points, fallen = points.take(kept, axis=0), fallen.take(kept)
    order, taken, starts, counts = _by_cell(fallen, rows * across)
    if len(taken) > most:
        key = _TWO_BYTES - 1 - counts.clip(max=_TWO_BYTES - 1)  # of more, the lower cell
        chosen = np.sort(np.argsort(key.astype(np.uint16), kind="stable")[:most])
        taken, starts, counts = taken[chosen], starts[chosen], counts[chosen]
    filled = len(taken)
    cells[:filled], cells[filled:] = taken, rows * across
    pillars[filled:] = 0
    if not filled:
        return 0
    valid = np.arange(deep) < counts[:, None]
    at = order.take(_places(counts, starts, valid))
    with POINTS.lend() as scratch:
        planes = _planes(points, at, valid, taken, spec, scratch)
        into = pillars[:filled].reshape(at.size, len(FIELDS))  # not a copy where it is contiguous
        found = cv2.transpose(planes.reshape(len(FIELDS), at.size), into)
        if not np.shares_memory(found, pillars):
            pillars[:filled] = found.reshape(filled, deep, len(FIELDS))
    return filled


def _by_cell(cell: Int32, count: int) -> tuple[Index, Index, Index, Index]:
    """Points by cell, of each in the order they came; which cells have any, where those of each begin among
    them, and how many they are.

    numpy sorts two bytes in linear time, more it does not.
    """
    if count <= _TWO_BYTES:
        narrow = cell.astype(np.uint16)
        order = np.argsort(narrow, kind="stable")
        found: NDArray[Any] = narrow.take(order)
    else:
        low = np.argsort((cell & (_TWO_BYTES - 1)).astype(np.uint16), kind="stable")
        high = np.argsort((cell >> 16).astype(np.uint16).take(low), kind="stable")
        order = low.take(high)
        found = cell.take(order)
    first = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return order, found[starts].astype(np.intp), starts, np.diff(starts, append=len(found))


def _places(counts: Index, starts: Index, valid: NDArray[np.bool_]) -> Index:
    """Which of the sorted points stand at the places of pillars, (P, M), given how many there are, where they
    begin, and which places are taken; any at the others."""
    deep = valid.shape[1]
    every = np.arange(deep) * np.maximum(counts, deep)[:, None] // deep
    every += starts[:, None]
    every *= valid
    return every


def _planes(
    points: Float32,
    at: Index,
    valid: NDArray[np.bool_],
    cells: Index,
    spec: BirdseyeSpec,
    scratch: Scratch,
) -> Float32:
    """`FIELDS` of pillars, (8, P, M): arithmetic on contiguous planes is twice as fast as on columns."""
    there = valid.astype(np.float32)
    planes = scratch.array("planes", (len(FIELDS), *at.shape), np.float32)
    rows = scratch.array("rows", (at.size, 4), np.float32)
    np.take(points, at.ravel(), axis=0, out=rows, mode="clip")  # any other mode makes a copy
    cv2.transpose(rows, planes[:4].reshape(4, -1))
    planes[:4] *= there
    middle = _middle(cells, spec)
    np.subtract(planes[0], middle[:, :1], out=planes[4])
    np.subtract(planes[1], middle[:, 1:], out=planes[5])
    mean = planes[2].sum(axis=1) / np.count_nonzero(valid, axis=1).astype(np.float32)
    np.subtract(planes[2], mean[:, None], out=planes[6])
    planes[4:7] *= there
    planes[7] = there
    return planes


def _middle(cell: Index, spec: BirdseyeSpec) -> Float32:
    """(N, 2) x and y of the middles of cells."""
    row, column = np.divmod(cell, spec.shape[1])
    x = spec.x[0] + (row + 0.5) * spec.cell_m
    y = spec.y[0] + (column + 0.5) * spec.cell_m
    return np.column_stack([x, y]).astype(np.float32)

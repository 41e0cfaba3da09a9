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

FIELDS = ("x", "y", "z", "intensity", "dx", "dy", "dz", "valid")
"""Of a point in a pillar: where it is in the base frame, in metres; intensity; how far it is from the middle
of its cell and from the pillar's mean height; and 1, where a padded place has 0."""

_TWO_BYTES = 1 << 16


def on_ground(points: NDArray[Any], pose: RigidTransform, spec: BirdseyeSpec) -> Float32:
    """The returns of a cloud that lie on the grid, in the base frame.

    Args:
        points: (N, C >= 3) x, y, z in metres in the sensor's frame, then intensity in 0..1; what is no
            return (`perception.frame.is_return`) is left out.
        pose: from the sensor's frame to the base frame.
        spec: the grid.

    Returns:
        (M, 4) x, y, z, intensity, in the order they came; intensity 0 where it is not known.
    """
    rotation, translation = pose.rotation.astype(np.float32), pose.translation.astype(np.float32)
    found, count = np.empty((len(points), 4), np.float32), 0
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
            keep = is_square_of_return(square) & _within(base, spec)[1]
            base[3] = columns[3] if len(columns) > 3 else 0
            kept = base.take(np.flatnonzero(keep), axis=1)
            np.clip(kept[3], 0, 1, out=kept[3])
            kept[3][np.isnan(kept[3])] = 0
            if kept.size:
                found[count : count + kept.shape[1]] = cv2.transpose(kept)
                count += kept.shape[1]
    return found[:count]


def _within(columns: Float32, spec: BirdseyeSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Cells of points given as columns (3 or more, N), and which of them lie on the grid."""
    rows, across = spec.shape
    scale = np.float32(1 / spec.cell_m)
    with np.errstate(invalid="ignore"):
        i = np.floor((columns[0] - np.float32(spec.x[0])) * scale)
        j = np.floor((columns[1] - np.float32(spec.y[0])) * scale)
        keep = (i >= 0) & (i < rows) & (j >= 0) & (j < across)
        keep &= (columns[2] >= np.float32(spec.z[0])) & (columns[2] < np.float32(spec.z[1]))
        i *= np.float32(across)
        i += j
        return i.astype(np.int32), keep


def cells_of(points: Float32, spec: BirdseyeSpec) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
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
    points: Float32, spec: BirdseyeSpec, pillars: Float32, cells: NDArray[np.int32]
) -> int:
    """Points to pillars, in ascending order of their cells.

    Where there are more than fit, those with the most points stay, of equals the lower cell; of a pillar
    with too many points every so many-th one stays, in the order they came.

    Args:
        points: (N, 4) x, y, z, intensity in the base frame; what lies beside the grid is left out.
        spec: the grid.
        pillars: (P, M, 8) float32, filled with `FIELDS`; 0 in a padded row.
        cells: (P,) int32, filled with row * columns + column, rows * columns for a pillar without points.

    Returns:
        How many pillars have points.
    """
    most, deep, _ = pillars.shape
    rows, across = spec.shape
    cell, keep = cells_of(points, spec)
    if not keep.all():
        kept = np.flatnonzero(keep)
        points, cell = points.take(kept, axis=0), cell.take(kept)
    counts = np.bincount(cell, minlength=rows * across)
    taken = np.flatnonzero(counts)
    starts = np.cumsum(counts)[taken]
    counts = counts[taken]
    starts -= counts
    if len(taken) > most:
        key = _TWO_BYTES - 1 - counts.clip(max=_TWO_BYTES - 1)  # of more, the lower cell
        chosen = np.sort(np.argsort(key.astype(np.uint16), kind="stable")[:most])
        taken, starts, counts = taken[chosen], starts[chosen], counts[chosen]
    filled = len(taken)
    cells[:filled], cells[filled:] = taken, rows * across
    pillars[filled:] = 0
    if not filled:
        return 0
    at, valid = _places(counts, starts, deep)
    at = _in_order_of(cell, rows * across).take(at)
    with POINTS.lend() as scratch:
        planes = _planes(points, at, valid, taken, spec, scratch)
        count = filled * deep
        into = pillars[:filled].reshape(count, len(FIELDS))  # not a copy where it is contiguous
        found = cv2.transpose(planes.reshape(len(FIELDS), count), into)
        if not np.shares_memory(found, pillars):
            pillars[:filled] = found.reshape(filled, deep, len(FIELDS))
    return filled


def _places(
    counts: NDArray[np.intp], starts: NDArray[np.intp], deep: int
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Which of the sorted points stand at the places of pillars, (P * deep,), and which places are taken."""
    slot = np.arange(deep)
    every = starts[:, None] + slot
    full = np.flatnonzero(counts > deep)
    every[full] = starts[full, None] + slot * counts[full, None] // deep
    valid = slot < counts[:, None]
    every *= valid  # any point will do: it counts for nothing
    return every.ravel(), valid


def _planes(
    points: Float32,
    at: NDArray[np.intp],
    valid: NDArray[np.bool_],
    cells: NDArray[np.intp],
    spec: BirdseyeSpec,
    scratch: Scratch,
) -> Float32:
    """`FIELDS` of pillars, (8, P, M): arithmetic on contiguous planes is twice as fast as on columns."""
    there = valid.astype(np.float32)
    planes = scratch.array("planes", (len(FIELDS), *valid.shape), np.float32)
    rows = scratch.array("rows", (len(at), 4), np.float32)
    np.take(points, at, axis=0, out=rows, mode="clip")  # any other mode makes a copy
    cv2.transpose(rows, planes[:4].reshape(4, -1))
    planes[:4] *= there
    middle = _middle(cells, spec)
    np.subtract(planes[0], middle[:, :1], out=planes[4])
    np.subtract(planes[1], middle[:, 1:], out=planes[5])
    mean = planes[2].sum(axis=1) / there.sum(axis=1)
    np.subtract(planes[2], mean[:, None], out=planes[6])
    planes[4:7] *= there
    planes[7] = there
    return planes


def _in_order_of(cell: NDArray[np.int32], count: int) -> NDArray[np.intp]:
    """Points by cell, of each in the order they came; numpy sorts two bytes in linear time, more it does
    not."""
    if count <= _TWO_BYTES:
        return np.argsort(cell.astype(np.uint16), kind="stable")
    low = np.argsort((cell & (_TWO_BYTES - 1)).astype(np.uint16), kind="stable")
    high = np.argsort((cell >> 16).astype(np.uint16).take(low), kind="stable")
    return low.take(high)


def _middle(cell: NDArray[np.intp], spec: BirdseyeSpec) -> Float32:
    """(N, 2) x and y of the middles of cells."""
    row, column = np.divmod(cell, spec.shape[1])
    x = spec.x[0] + (row + 0.5) * spec.cell_m
    y = spec.y[0] + (column + 0.5) * spec.cell_m
    return np.column_stack([x, y]).astype(np.float32)

"""Where a camera sees the cells of the ground grid: tables by which a network gathers features of a picture.

Points above every cell are projected through the camera as it is calibrated now (Harley et al.,
"Simple-BEV", ICRA 2023); what the network then does is to pick, with indices that are its input.  How far
away the cells are goes along, as does where each part of the picture looks: with these a network can tell
at which of the cells on its ray a thing stands (after "BEVDepth", Li et al., AAAI 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.grid import BirdseyeSpec, GridMap, ViewSpec
from perception.geometry.sights import Cache, Sight
from perception.geometry.transforms import RigidTransform

Table = NDArray[np.int32]
Float32 = NDArray[np.float32]

TABLE_STRIDE = 4
"""Of the camera's feature map whose positions a table names, in pixels of the input's grid."""

RAY_VALUES = 3
"""Of where a position of the feature map looks; see `Lift.rays`."""

NEAREST_M, FARTHEST_M = 0.5, 200.0
"""Distances over the ground are kept within these before their logarithm is taken."""

_STEEPEST = 4.0

_LIFTS = Cache()


@dataclass(frozen=True, eq=False)
class Lift:
    """How a picture comes to lie on the ground grid.  Not to be changed.

    Attributes:
        table: (Z, rows, columns) int32, positions in the feature map, row by row, of the middle of each cell
            at each of the grid's heights; `places(view)` where it is not in the picture.
        ranges: (rows, columns) float32, logarithm of the distance over the ground, in metres, from the camera
            to the middle of each cell.
        rays: (3, h, w) float32 of each position of the feature map: how steeply its ray rises (a tangent),
            the logarithm of the distance at which it meets the ground, and that of the pixels of the input's
            grid across a radian, over 100; 0 where a lens sees nothing.
    """

    table: Table
    ranges: Float32
    rays: Float32


def places(view: ViewSpec) -> int:
    """How many positions the feature map has; the index that says: not seen."""
    return (view.height // TABLE_STRIDE) * (view.width // TABLE_STRIDE)


def lift_of(view: ViewSpec, camera: CameraModel, pose: RigidTransform) -> Lift:
    """How a camera's pictures come to lie on a view's ground grid; kept by calibration.

    Args:
        view: of a picture, with `birdseye`.
        camera: intrinsics for pictures of the size they come in.
        pose: from the optical frame to the base frame, whose z = 0 is the ground.
    """
    assert view.birdseye is not None
    spec, own = view.birdseye, (view.height, view.width, view.fit, view.birdseye)

    def make() -> Lift:
        grid = GridMap.fit((camera.height, camera.width), view)
        scaled = camera.scaled(*grid.scale)
        table = _table(view, spec, grid, scaled, pose)
        found = Lift(table, _ranges(spec, pose), _rays(view, grid, scaled, pose))
        for values in (found.table, found.ranges, found.rays):
            values.setflags(write=False)
        return found

    lift: Lift = _LIFTS.get((*Sight(camera, pose).key, *own), make)
    return lift


def centres_of(spec: BirdseyeSpec) -> NDArray[np.float64]:
    """(Z * rows * columns, 3) the middles of all cells at every height, in metres in the base frame."""
    rows, columns = spec.shape
    x = spec.x[0] + (np.arange(rows) + 0.5) * spec.cell_m
    y = spec.y[0] + (np.arange(columns) + 0.5) * spec.cell_m
    z, x, y = np.meshgrid(np.array(spec.heights), x, y, indexing="ij")
    return np.column_stack([x.ravel(), y.ravel(), z.ravel()])


def _table(
    view: ViewSpec,
    spec: BirdseyeSpec,
    grid: GridMap,
    camera: CameraModel,
    pose: RigidTransform,
) -> Table:
    table = positions(view, grid, camera, pose.inverse().apply(centres_of(spec)))
    return table.reshape(len(spec.heights), *spec.shape)


def positions(view: ViewSpec, grid: GridMap, camera: CameraModel, points: NDArray[Any]) -> Table:
    """Where points lie in a camera's feature map.

    Args:
        view: of a picture.
        grid: that brings its pictures to the view.
        camera: intrinsics for pictures that were brought there.
        points: (N, 3) metres in the optical frame.

    Returns:
        (N,) int32, row by row; `places(view)` of what is not in the picture.
    """
    u, v, seen = camera.project_columns(*points.T)
    height, width = grid.scaled  # what lies beyond is padding
    with np.errstate(invalid="ignore"):
        seen = seen & (u >= -0.5) & (v >= -0.5) & (u < width - 0.5) & (v < height - 0.5)
    found = np.full(len(u), places(view), np.int32)
    row, column = (np.floor((c[seen] + 0.5) / TABLE_STRIDE).astype(np.int32) for c in (v, u))
    found[seen] = row * (view.width // TABLE_STRIDE) + column
    return found


def log_range(metres: NDArray[Any]) -> NDArray[Any]:
    """The logarithm of distances over the ground, as networks are told of them."""
    return np.log(np.clip(metres, NEAREST_M, FARTHEST_M))


def _ranges(spec: BirdseyeSpec, pose: RigidTransform) -> Float32:
    rows, columns = spec.shape
    x, y = centres_of(spec)[: rows * columns, :2].T
    away = np.hypot(x - pose.translation[0], y - pose.translation[1])
    return log_range(away).reshape(rows, columns).astype(np.float32)


def _rays(view: ViewSpec, grid: GridMap, camera: CameraModel, pose: RigidTransform) -> Float32:
    down, across = view.height // TABLE_STRIDE, view.width // TABLE_STRIDE
    v, u = np.meshgrid(
        *((np.arange(n) + 0.5) * TABLE_STRIDE - 0.5 for n in (down, across)), indexing="ij"
    )
    seen = (v < grid.scaled[0] - 0.5) & (u < grid.scaled[1] - 0.5)
    with np.errstate(all="ignore"):
        ahead = camera.unproject(np.column_stack([u.ravel(), v.ravel()]), np.ones(u.size))
        x, y, z = (ahead @ pose.rotation.T).T.reshape(3, down, across)
        flat = np.hypot(x, y)
        rise = np.clip(z / flat, -_STEEPEST, _STEEPEST)
        reach = np.where(rise < 0, pose.translation[2] / -rise, FARTHEST_M)
        values = [rise, log_range(reach), np.full_like(rise, np.log(camera.fy / 100))]
    found = np.stack(values)
    found[:, ~(seen & np.isfinite(found).all(axis=0))] = 0
    return found.astype(np.float32)

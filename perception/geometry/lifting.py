"""Where a camera sees the cells of the ground grid: tables by which a network gathers features of a picture.

Points above every cell are projected through the camera as it is calibrated now (Harley et al.,
"Simple-BEV", ICRA 2023); what the network then does is to pick, with indices that are its input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.grid import BirdseyeSpec, GridMap, ViewSpec
from perception.geometry.sights import Cache, Sight
from perception.geometry.transforms import RigidTransform

Table = NDArray[np.int32]

TABLE_STRIDE = 8
"""Of the camera's feature map whose positions a table names, in pixels of the input's grid."""

_TABLES = Cache()


def places(view: ViewSpec) -> int:
    """How many positions the feature map has; the index that says: not seen."""
    return (view.height // TABLE_STRIDE) * (view.width // TABLE_STRIDE)


def table_of(view: ViewSpec, camera: CameraModel, pose: RigidTransform) -> Table:
    """Where the cells of a view's ground grid lie in a camera's feature map; kept by calibration.

    Args:
        view: of a picture, with `birdseye`.
        camera: intrinsics for pictures of the size they come in.
        pose: from the optical frame to the base frame.

    Returns:
        (Z, rows, columns) int32, positions in the feature map row by row, of the middle of each cell at
        each of the grid's heights; `places(view)` where it is not in the picture.  Not to be changed.
    """
    assert view.birdseye is not None
    own = (view.height, view.width, view.fit, view.birdseye)
    found: Table = _TABLES.get(
        (*Sight(camera, pose).key, *own), lambda: _table(view, view.birdseye, camera, pose)
    )
    return found


def centres_of(spec: BirdseyeSpec) -> NDArray[np.float64]:
    """(Z * rows * columns, 3) the middles of all cells at every height, in metres in the base frame."""
    rows, columns = spec.shape
    x = spec.x[0] + (np.arange(rows) + 0.5) * spec.cell_m
    y = spec.y[0] + (np.arange(columns) + 0.5) * spec.cell_m
    z, x, y = np.meshgrid(np.array(spec.heights), x, y, indexing="ij")
    return np.column_stack([x.ravel(), y.ravel(), z.ravel()])


def _table(
    view: ViewSpec, spec: BirdseyeSpec | None, camera: CameraModel, pose: RigidTransform
) -> Table:
    assert spec is not None
    grid = GridMap.fit((camera.height, camera.width), view)
    scaled = camera.scaled(*grid.scale)
    u, v, seen = scaled.project_columns(*pose.inverse().apply(centres_of(spec)).T)
    height, width = grid.scaled  # what lies beyond is padding
    with np.errstate(invalid="ignore"):
        seen = seen & (u >= -0.5) & (v >= -0.5) & (u < width - 0.5) & (v < height - 0.5)
    across = view.width // TABLE_STRIDE
    table = np.full(len(u), places(view), np.int32)
    row, column = (np.floor((c[seen] + 0.5) / TABLE_STRIDE).astype(np.int32) for c in (v, u))
    table[seen] = row * across + column
    table.setflags(write=False)
    return table.reshape(len(spec.heights), *spec.shape)

"""LiDAR clouds as images in the reference camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.frame import is_return
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]

_NEAREST = 0.05  # metres before the camera


@dataclass(frozen=True)
class LidarImage:
    """The nearest return in each pixel, all arrays (H, W).

    Attributes:
        range_m: distance from the LiDAR in metres, 0 where there is no return.
        intensity: 0..1, 0 where unknown.
        height_m: height above ground in metres.
        index: row of the return in the cloud, -1 where there is none.
        valid: where there is a return.
    """

    range_m: Float32
    intensity: Float32
    height_m: Float32
    index: NDArray[np.int32]
    valid: NDArray[np.bool_]


def project_lidar(
    points: NDArray[Any],
    camera: CameraModel,
    extrinsics: RigidTransform,
    height: int,
    width: int,
    *,
    sensor_height_m: float = 0.0,
) -> LidarImage:
    """Project a cloud into a camera image; the nearest return of a pixel wins.

    Args:
        points: (N, C>=3) x, y, z in metres in the LiDAR frame (REP 103), then intensity in 0..1 if
            there is a fourth column.  What is no return (`is_return`) is left out.
        camera: intrinsics for an image of `height` by `width` pixels.
        extrinsics: from the LiDAR frame to the camera's optical frame.
        height, width: size of the image.
        sensor_height_m: added to z to give the height above ground.

    Raises:
        InputError: the cloud has another shape.
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise InputError(f"cloud has shape {points.shape}, expected (N, 3 or more)")
    rows, flat, square = _visible(points, camera, extrinsics, height, width)
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, flat, square)
    wins = np.flatnonzero(square == nearest[flat])[::-1]  # reversed: of equals, the first row stays
    flat, rows = flat[wins], rows[wins]
    index = np.full(height * width, -1, np.int32)
    index[flat] = rows
    valid = index >= 0
    kept = points.take(rows, axis=0)[:, :4].astype(np.float32, copy=False)
    intensity, above = (np.zeros(height * width, np.float32) for _ in range(2))
    above[flat] = kept[:, 2] + np.float32(sensor_height_m)
    if kept.shape[1] > 3:
        intensity[flat] = np.nan_to_num(kept[:, 3]).clip(0, 1)
    nearest[~valid] = 0
    shape = (height, width)
    return LidarImage(
        np.sqrt(nearest).reshape(shape),
        intensity.reshape(shape),
        above.reshape(shape),
        index.reshape(shape),
        valid.reshape(shape),
    )


def _visible(
    points: NDArray[Any], camera: CameraModel, extrinsics: RigidTransform, height: int, width: int
) -> tuple[NDArray[np.intp], NDArray[np.int32], Float32]:
    """Rows of the points in the image, their flat pixel index and their squared range."""
    columns = np.ascontiguousarray(points[:, :3].T, np.float32)
    with np.errstate(all="ignore"):
        optical = extrinsics.rotation.astype(np.float32) @ columns
        optical += extrinsics.translation.astype(np.float32)[:, None]
        rows = np.flatnonzero((optical[2] > _NEAREST) & is_return(columns.T))
        u, v, inside = camera.project_columns(*optical.take(rows, axis=1))
        inside &= (u > -0.5) & (v > -0.5) & (u < width - 0.5) & (v < height - 0.5)
        kept = np.flatnonzero(inside)
        rows = rows.take(kept)
        column, row = (np.rint(c.take(kept)).astype(np.int32) for c in (u, v))
        flat = row * np.int32(width) + column
        x, y, z = columns.take(rows, axis=1)
        square = x * x + y * y + z * z
    return rows, flat, square

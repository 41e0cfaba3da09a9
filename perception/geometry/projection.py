"""LiDAR clouds as images in the reference camera.

Memory is what a cloud costs, not arithmetic: fresh pages, and columns that lie 16 bytes apart.  So points
go through in blocks whose columns stay in the cache, in memory that is used again, and what follows works
on the returns that are seen alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.frame import is_square_of_return
from perception.geometry.camera import CameraModel
from perception.geometry.scratch import POINTS, Scratch, as_columns, block_size
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]

_NEAREST = 0.05  # metres before the camera
_ROW_BITS = 29
"""A float32 as float64 leaves this many bits of the significand 0: room for a row."""

_ROWS = 2**_ROW_BITS
_WHOLE = 2**24
"""Up to here float32 holds every whole number."""

_NOTHING = np.iinfo(np.int64).max


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


@dataclass(frozen=True)
class Nearest:
    """The nearest return of each pixel that has one, M of them, in the order of pixels.

    Attributes:
        size: (height, width) of the image.
        pixel: (M,) row * width + column.
        row: (M,) row in the cloud.
        range_m: (M,) float32 distance from the LiDAR.
        most: largest value of the cloud's fourth column, of all points; NaN where one is, 0 without.
    """

    size: tuple[int, int]
    pixel: NDArray[np.intp]
    row: NDArray[np.int64]
    range_m: Float32
    most: float

    @cached_property
    def index(self) -> NDArray[np.int32]:
        """See `LidarImage`."""
        return self.image(self.row.astype(np.int32), -1)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """See `LidarImage`."""
        return self.image(np.ones(len(self.pixel), bool), False)

    def image(self, values: NDArray[Any], fill: Any = 0) -> NDArray[Any]:
        """Values (M,) as (H, W), `fill` where there is no return."""
        height, width = self.size
        flat = np.full(height * width, fill, values.dtype)
        flat[self.pixel] = values
        return flat.reshape(height, width)


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
        InputError: the cloud has another shape, or more than 2^29 points.
    """
    found = nearest_returns(points, camera, extrinsics, height, width)
    height_m, intensity = fields_of(points, found, sensor_height_m)
    return LidarImage(
        found.image(found.range_m),
        found.image(intensity),
        found.image(height_m),
        found.index,
        found.valid,
    )


def fields_of(
    points: NDArray[Any], found: Nearest, sensor_height_m: float
) -> tuple[Float32, Float32]:
    """Height above ground in metres, and intensity in 0..1, of the returns that were found, (M,) each."""
    kept = points.take(found.row, axis=0)[:, 2:4].astype(np.float32, copy=False)
    height_m = kept[:, 0] + np.float32(sensor_height_m)
    if kept.shape[1] == 1:
        return height_m, np.zeros(len(kept), np.float32)
    intensity = kept[:, 1].clip(0, 1)
    unknown = np.isnan(intensity)
    if unknown.any():
        intensity[unknown] = 0
    return height_m, intensity


def nearest_returns(
    points: NDArray[Any], camera: CameraModel, extrinsics: RigidTransform, height: int, width: int
) -> Nearest:
    """The nearest return of each pixel; of equally near ones the first row.

    Args, Raises: see `project_lidar`.
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise InputError(f"cloud has shape {points.shape}, expected (N, 3 or more)")
    if len(points) > _ROWS:
        raise InputError(f"cloud of {len(points)} points")
    rotation = extrinsics.rotation.astype(np.float32)
    translation = extrinsics.translation.astype(np.float32)
    with POINTS.lend() as scratch, np.errstate(all="ignore"):
        # In one number what is nearer, then the earlier row: positive floats are ordered as their bits.
        nearest = scratch.array("nearest", (height * width,), np.int64)
        nearest.fill(_NOTHING)
        most = 0.0
        size = block_size(len(points))
        for start in range(0, len(points), size):
            columns = as_columns(points[start : start + size, :4], scratch)
            if len(columns) > 3:
                most = float(np.maximum(most, columns[3].max()))  # of NaN and a number it gives NaN
            optical = scratch.array("optical", (3, columns.shape[1]), np.float32)
            np.matmul(rotation, columns[:3], out=optical)
            for axis, offset in zip(optical, translation, strict=True):
                axis += offset
            rows, flat, square = _visible(columns, optical, camera, height, width, scratch)
            keys = square.astype(np.float64).view(np.int64)
            keys += rows
            keys += start
            np.minimum.at(nearest, flat, keys)
        pixel = np.flatnonzero(nearest != _NOTHING)
        keys = nearest.take(pixel)
    row = keys & (_ROWS - 1)
    keys -= row
    range_m = np.sqrt(keys.view(np.float64).astype(np.float32))
    return Nearest((height, width), pixel, row, range_m, most)


def _visible(
    columns: Float32,
    optical: Float32,
    camera: CameraModel,
    height: int,
    width: int,
    scratch: Scratch,
) -> tuple[NDArray[np.intp], NDArray[np.intp], Float32]:
    """Which points of a block are returns in the image, their flat pixel index and squared range.

    `columns` and `optical` are overwritten.
    """
    x, y, z = optical
    seen, other = scratch.array("seen", (2, len(z)), bool)
    np.greater(z, _NEAREST, out=seen)
    x /= z
    y /= z
    u, v, within = camera.pixels_of(x, y)
    if within is not None:
        seen &= within
    for coordinate, size in ((u, width), (v, height)):
        seen &= np.greater(coordinate, -0.5, out=other)
        seen &= np.less(coordinate, size - 0.5, out=other)
    np.rint(u, out=u)
    np.rint(v, out=v)
    if height * width > _WHOLE:
        v = v.astype(np.float64)
    v *= width
    v += u
    square = columns[0]
    square *= square
    for axis in columns[1:3]:
        axis *= axis
        square += axis
    rows = np.flatnonzero(seen)
    found = square.take(rows)
    returned = is_square_of_return(found)
    if not returned.all():
        rows, found = rows[returned], found[returned]
    return rows, v.take(rows).astype(np.intp), found

"""Points that a sensor measured, with the pixels of a picture that they fall into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PixelPoints:
    """Measured points that fall into the result's image.

    Attributes:
        points: (N, 3) float32 metres in the sensor's own frame.
        optical: (N, 3) float32 metres in the reference camera's optical frame.
        column, row: (N,) int32 pixel of the result's image.
    """

    points: Float32
    optical: Float32
    column: NDArray[np.int32]
    row: NDArray[np.int32]


def cloud_points(sample: Sample, size: tuple[int, int], stride: int = 1) -> PixelPoints | None:
    """Points with the pixels of the camera that they are projected into.

    Occlusion between the sensor's and the camera's place is not resolved: a point that only the sensor
    sees gets the pixel of what stands before it.

    Args:
        sample: (N, C >= 3) with camera and extrinsics.
        size: (height, width) of the picture, which may be scaled from the camera's.
        stride: of pictures; all points are taken.

    Returns:
        None when the sample lacks the calibration.
    """
    camera = sample.camera
    if camera is None or sample.extrinsics is None:
        return None
    points = np.ascontiguousarray(sample.data[:, :3], np.float32)
    optical = sample.extrinsics.apply(points)
    u, v, valid = camera.project_columns(*optical.T)
    with np.errstate(invalid="ignore"):
        valid &= (u > -0.5) & (v > -0.5) & (u < camera.width - 0.5) & (v < camera.height - 0.5)
    keep = np.flatnonzero(valid & is_return(points))
    return PixelPoints(
        points[keep],
        optical[keep],
        _pixel(u[keep], camera.width, size[1]),
        _pixel(v[keep], camera.height, size[0]),
    )


def depth_points(sample: Sample, size: tuple[int, int], stride: int = 1) -> PixelPoints | None:
    """The points of a depth map, every `stride`-th row and column.

    Args:
        sample: (H, W) metres with its camera.
        size: (height, width) of the picture, which may be scaled from the map's.
        stride: 1 or more.

    Returns:
        None when the sample lacks the calibration.
    """
    if (camera := sample.camera) is None:
        return None
    depth = sample.data[::stride, ::stride]
    row, column = np.nonzero(np.isfinite(depth) & (depth > 0))
    z = depth[row, column].astype(np.float32)
    u, v = (column * stride).astype(np.float32), (row * stride).astype(np.float32)
    if camera.distortion_model == "none":
        x = (u - np.float32(camera.cx)) / np.float32(camera.fx) * z
        y = (v - np.float32(camera.cy)) / np.float32(camera.fy) * z
        points = np.stack([x, y, z], axis=1)
    else:
        points = camera.unproject(np.stack([u, v], axis=1), z).astype(np.float32)
        keep = np.isfinite(points).all(axis=1)
        points, u, v = points[keep], u[keep], v[keep]
    height, width = sample.data.shape[:2]
    return PixelPoints(points, points, _pixel(u, width, size[1]), _pixel(v, height, size[0]))


def _pixel(values: Float32, source: int, target: int) -> NDArray[np.int32]:
    """Pixel coordinates of an image `source` wide in one `target` wide, edges on edges."""
    scaled = (values + np.float32(0.5)) * np.float32(target / source)
    return np.floor(scaled).astype(np.int32).clip(0, target - 1)

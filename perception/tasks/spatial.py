"""Points that LiDAR or depth measured, in the pixels of the picture that a result is given in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return
from perception.geometry.camera import CameraModel
from perception.tasks.task import TaskContext

Float32 = NDArray[np.float32]

SPATIAL = ("lidar", "depth")
"""The kinds of sensors whose points are taken, of the first that there is."""


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


def spatial_sensor(ctx: TaskContext) -> str | None:
    """The sensor whose points are taken: the first that has the calibration; None for none."""
    ordered = (n for kind in SPATIAL for n, s in ctx.samples.items() if s.kind == kind)
    return next((name for name in ordered if _calibrated(ctx.samples[name])), None)


def _calibrated(sample: Sample) -> bool:
    return sample.camera is not None and (sample.kind == "depth" or sample.extrinsics is not None)


def pixel_points(sample: Sample, size: tuple[int, int], stride: int = 1) -> PixelPoints | None:
    """The points of a LiDAR or depth sample with their pixels in the result's image.

    Occlusion between the LiDAR's and the camera's place is not resolved: a point that only the LiDAR
    sees gets the label of what stands before it.

    Args:
        sample: lidar with camera and extrinsics, or depth with its camera.
        size: (height, width) of the result's image.
        stride: take every `stride`-th row and column of a depth image.

    Returns:
        None when the sample lacks the calibration.
    """
    camera = sample.camera
    if camera is None:
        return None
    if sample.modality == "depth":
        return _from_depth(sample, camera, size, stride)
    if sample.extrinsics is None:
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


def _from_depth(
    sample: Sample, camera: CameraModel, size: tuple[int, int], stride: int
) -> PixelPoints:
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

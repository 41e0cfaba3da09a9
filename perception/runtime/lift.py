"""From pixels to space: labeled points and 3D boxes, from the points that LiDAR or depth measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample, is_return
from perception.geometry.camera import CameraModel
from perception.runtime.result import Detections

Float32 = NDArray[np.float32]

_LEAST_POINTS = 3
_CORE = 0.6  # share of a box's width and height whose points say how far away it is
_BIN_M = 0.5
_LEAST_SIZE_M = 0.1


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


@dataclass(frozen=True)
class Boxes3d:
    """Boxes in the reference camera's optical frame, axes along its axes.

    Attributes:
        center: (N, 3) float32 metres.
        size: (N, 3) float32 metres along x, y, z.
        index: (N,) int64, which 2D box each one was lifted from.
    """

    center: Float32
    size: Float32
    index: NDArray[np.int64]


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


def lift_boxes(points: PixelPoints, boxes: Detections, camera: CameraModel) -> Boxes3d:
    """3D boxes from 2D ones and the points within.

    The distance is that of the fullest half-metre among the points in the box's core; width and
    height follow from the 2D box at that distance, length from the points near it.  A box without
    three points is left out.

    Args:
        points: measured points.
        boxes: 2D boxes in the result's pixels.
        camera: intrinsics of the result's image.
    """
    centers, sizes, index = [], [], []
    for i, (left, top, right, bottom) in enumerate(boxes.xyxy):
        dx, dy = (right - left) * (1 - _CORE) / 2, (bottom - top) * (1 - _CORE) / 2
        inside = (points.column >= left + dx) & (points.column < right - dx)
        inside &= (points.row >= top + dy) & (points.row < bottom - dy)
        z = points.optical[inside, 2]
        if len(z) < _LEAST_POINTS:
            continue
        near = _densest(z)
        middle, length = float(np.median(near)), float(np.ptp(near))
        corners = camera.unproject([[left, top], [right, bottom]], middle)
        if not np.isfinite(corners).all():
            continue
        wide, high = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1]
        centers.append([*(corners.mean(axis=0)[:2]), middle])
        sizes.append([max(v, _LEAST_SIZE_M) for v in (wide, high, length)])
        index.append(i)
    return Boxes3d(
        np.array(centers, np.float32).reshape(-1, 3),
        np.array(sizes, np.float32).reshape(-1, 3),
        np.array(index, np.int64),
    )


def _densest(z: Float32) -> Float32:
    """The distances in and next to the fullest bin; of equals the nearest."""
    bins = np.floor(z / _BIN_M).astype(np.int64)
    values, counts = np.unique(bins, return_counts=True)
    return z[np.abs(bins - values[counts.argmax()]) <= 1]

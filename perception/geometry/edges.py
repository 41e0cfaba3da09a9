"""Edges of clouds, depth maps and pictures, that a LiDAR's or depth camera's place can be told from.

Where a near thing ends before a far one, ranges jump and the picture mostly changes.  After Levinson and
Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013, with edges at sides and at tops apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import is_return
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64

Float32 = NDArray[np.float32]

BIAS_DEG = (0.12, 0.08, 0.15)
"""What rotations from edges may be off about the camera's x, y, z, on real drives whose truth is known."""

_ROW = np.radians(0.3)
_COLUMN = np.radians(0.25)
_BESIDE = np.radians(0.6)
_ABOVE = np.radians(0.1), np.radians(1.6)
_FIRM_ABOVE = np.radians(0.4)
_NEAREST_M = 1.0
_MOST_JUMP_M = 5.0
_GAP = 4  # pixels between the near and the far side of a depth map's edge
_BLUR_PX, _LOCAL_PX, _LEAST_GRADIENT, _MOST_SHARE = 1.2, 25.0, 3.0, 4.0


@dataclass(frozen=True)
class Edges:
    """Edges of one cloud.

    Attributes:
        points: (N, 3) float64, in the LiDAR's frame, m.
        weights: (N,) how far the range jumps, and how exactly it is known where.
        tops: (N,) bool: the upper end of something, else a side.
    """

    points: Float64
    weights: Float64
    tops: NDArray[np.bool_]


def edges_of_cloud(points: NDArray[Any]) -> Edges:
    """Where ranges jump, as seen from the LiDAR; in whatever order the points are.

    Args:
        points: (N, C >= 3) x, y, z in metres, in the LiDAR's frame.
    """
    xyz = np.asarray(points[:, :3], np.float64)[is_return(points, _NEAREST_M)]
    ranges = np.linalg.norm(xyz, axis=1)
    up = np.arcsin(np.clip(xyz[:, 2] / np.maximum(ranges, 1e-9), -1, 1))
    around = np.arctan2(xyz[:, 1], xyz[:, 0])
    found = [*_sides(ranges, up, around), _tops(ranges, up, around)]
    azimuth, elevation, range_m, weight = (
        np.concatenate([one[i] for one in found]) for i in range(4)
    )
    flat = np.cos(elevation)
    place = np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    tops = np.arange(len(azimuth)) >= len(azimuth) - len(found[-1][0])
    return Edges(place * range_m[:, None], weight, tops)


_Found = tuple[Float64, Float64, Float64, Float64]


def _sides(ranges: Float64, up: Float64, around: Float64) -> Iterator[_Found]:
    """Ends to the left and right: azimuth (between the two points), elevation, range, weight."""
    row = np.round(up / _ROW).astype(np.int64)
    order = np.lexsort((around, row))
    row, azimuth, elevation, near = row[order], around[order], up[order], ranges[order]
    for step in (1, -1):
        beside, behind = np.roll(np.arange(len(order)), -step), np.roll(np.arange(len(order)), step)
        same = (row[beside] == row) & (row[behind] == row)
        same &= np.abs(azimuth[beside] - azimuth) < _BESIDE
        same &= np.abs(azimuth[behind] - azimuth) < _BESIDE
        same &= np.abs(elevation[beside] - elevation) < _ROW
        jump = near[beside] - near
        ends = same & (jump > np.maximum(0.5, 0.06 * near))
        ends &= np.abs(near[behind] - near) < 0.1 + 0.02 * near  # a surface, not a lone point
        middle = (azimuth[beside] + azimuth) / 2
        weight = np.sqrt(np.minimum(jump[ends], _MOST_JUMP_M))
        yield middle[ends], elevation[ends], near[ends], weight


def _tops(ranges: Float64, up: Float64, around: Float64) -> _Found:
    """Upper ends, halfway to the beam above: as `_sides`."""
    column = np.round(around / _COLUMN).astype(np.int64)
    order = np.lexsort((up, column))
    column, azimuth, elevation, near = column[order], around[order], up[order], ranges[order]
    above, below = np.roll(np.arange(len(order)), -1), np.roll(np.arange(len(order)), 1)
    gap, jump = elevation[above] - elevation, near[above] - near
    ends = (column[above] == column) & (column[below] == column)
    ends &= (gap > _ABOVE[0]) & (gap < _ABOVE[1]) & (jump > np.maximum(1.0, 0.1 * near))
    ends &= np.abs(near[below] - near) < 0.1 + 0.03 * near
    jump, gap = jump[ends], gap[ends]
    weight = np.sqrt(np.minimum(jump, _MOST_JUMP_M)) / np.maximum(1.0, gap / _FIRM_ABOVE)
    return azimuth[ends], elevation[ends] + gap / 2, near[ends], weight


def edges_of_depth(depth: Float32, camera: CameraModel, stride: int = 1) -> Edges:
    """Where a depth map jumps: the near sides' pixels, as points of its camera.

    Args:
        depth: (H, W) metres along the optical axis, what is not finite is unknown.
        camera: its intrinsics, of that size.
        stride: every so many-th row and column are looked at.
    """
    near = depth[::stride, ::stride]
    near = np.where(np.isfinite(near) & (near > 0), near, np.float32(0))
    found = []
    for axis, back in ((1, False), (1, True), (0, True)):  # to the right, to the left, and above
        step = 1 if back else -1
        far, gap = np.zeros_like(near), np.zeros(near.shape)
        for away in range(1, _GAP + 1):  # the rim itself is often not measured
            fresh = far == 0
            gap[fresh] = away
            far[fresh] = _shifted(near, step * away, axis)[fresh]
        behind, jump = _shifted(near, -step, axis), far - near
        # Stereo's noise grows with the square of the distance.
        least = np.maximum(0.5, np.maximum(0.06 * near, 0.006 * near**2))
        ends = (near > 0) & (behind > 0) & (far > 0) & (jump > least)
        ends &= np.abs(behind - near) < 0.1 + 0.03 * near  # a surface, not a lone pixel
        row, column = np.nonzero(ends)
        half = gap[ends] / 2 * (-1 if back else 1)
        u, v = column + half * (axis == 1), row + half * (axis == 0)
        weight = np.sqrt(np.minimum(jump[ends], _MOST_JUMP_M))
        found.append((u * stride, v * stride, near[ends], weight, np.full(len(row), axis == 0)))
    u, v, at, weights, tops = (np.concatenate([one[i] for one in found]) for i in range(5))
    points = np.asarray(camera.unproject(np.column_stack([u, v]), at), np.float64)
    return Edges(points, weights.astype(np.float64), tops.astype(np.bool_))


def _shifted(values: Float32, by: int, axis: int) -> Float32:
    """Rolled by some places along an axis; what comes in from beyond is 0."""
    out = np.roll(values, by, axis)
    rim = slice(None, by) if by > 0 else slice(by, None)
    out[rim if axis == 0 else slice(None), rim if axis == 1 else slice(None)] = 0
    return out


def edge_strength(smooth: Float32, dx: int, dy: int) -> Float32:
    """Edges along one direction by what is usual nearby, so that shadows and textures weigh no more."""
    found = np.abs(cv2.Sobel(smooth, cv2.CV_32F, dx, dy))
    usual = cv2.GaussianBlur(found, (0, 0), _LOCAL_PX) + _LEAST_GRADIENT
    return np.minimum(found / usual, _MOST_SHARE)


def edge_strengths(gray: NDArray[Any]) -> list[Float32]:
    """Strength (H, W) of the upright and of the level edges of a picture (H, W) from 0 to 255."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _BLUR_PX)
    return [edge_strength(smooth, *along) for along in ((1, 0), (0, 1))]


def spread_edges(strengths: Sequence[Float32], wide_px: float) -> Float32:
    """(2, H, W): strengths within some pixels; mean 0, deviation 1."""
    blurred = [cv2.GaussianBlur(one, (0, 0), wide_px) for one in strengths]
    return np.stack([(one - one.mean()) / max(float(one.std()), 1e-6) for one in blurred])

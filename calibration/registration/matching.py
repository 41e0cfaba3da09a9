"""Matches between descriptors of two pictures: all over the other picture, then in a window."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.registration.network import COARSE_STRIDE, FINE_STRIDE, Features
from calibration.registration.pictures import Float32

Float64 = NDArray[np.float64]

_TEMPERATURE = 0.07
_MOST_MATCHES = 400
_THINNED = 2
"""Of the fine cells, every other one in each direction is looked for."""


@dataclass(frozen=True)
class Matches:
    """Points that were found in both pictures.

    Attributes:
        a, b: (N, 2) x, y in pixels at working size.
        weight: (N,) 0 to 1, how sure each is.
    """

    a: Float64
    b: Float64
    weight: Float64


def everywhere(a: Features, b: Features) -> Matches:
    """Cells whose descriptors are each other's nearest, the surest first."""
    first, second = a.coarse[a.coarse_valid], b.coarse[b.coarse_valid]
    if min(len(first), len(second)) < 4:
        return Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    scores = first @ second.T
    scores -= 1.0  # at most 0: descriptors have length 1
    scores *= np.float32(1 / _TEMPERATURE)
    both = cv2.exp(scores)
    rows, columns = both.sum(1, keepdims=True), both.sum(0, keepdims=True)
    both *= both
    both /= np.maximum(rows, 1e-30)
    both /= np.maximum(columns, 1e-30)
    best = both.argmax(1)
    sure = both[np.arange(len(best)), best]
    mutual = np.flatnonzero(both.max(0)[best] <= sure)
    sure = sure[mutual]
    order = np.argsort(-sure)[:_MOST_MATCHES]
    mutual, sure = mutual[order], sure[order]
    at_a, at_b = _centers(a.coarse_valid), _centers(b.coarse_valid)
    return Matches(at_a[mutual], at_b[best[mutual]], sure.astype(np.float64))


def _centers(valid: NDArray[np.bool_], stride: int = COARSE_STRIDE) -> Float64:
    y, x = np.nonzero(valid)
    return np.asarray((np.stack([x, y], 1) + 0.5) * stride - 0.5, np.float64)


def nearby(warped: Features, b: Features, a_to_b: Float64, cells: int, smooth: float) -> Matches:
    """Where what was warped by a first guess lies beside it.

    Args:
        warped: of the first picture, warped into the second's pixels.
        b: of the second picture.
        a_to_b: what it was warped by.
        cells: of 4 pixels, how far is looked in each direction.
        smooth: standard deviation, in cells of 8 pixels, over which neighbours are looked for together.
    """
    step = _THINNED
    own = warped.fine[::step, ::step]
    here = warped.fine_valid[::step, ::step]
    height, width = b.fine.shape[:2]
    size = 2 * cells + 1
    room = np.pad(b.fine, ((cells, cells), (cells, cells), (0, 0)))
    there = np.pad(b.fine_valid, cells)
    volume = np.zeros((size * size, *own.shape[:2]), np.float32)
    seen = np.zeros_like(volume)
    for k in range(size * size):
        dy, dx = divmod(k, size)
        part = slice(dy, dy + height, step), slice(dx, dx + width, step)
        known = (there[part] & here).astype(np.float32)
        value = np.einsum("hwc,hwc->hw", own, room[part]) * known
        volume[k] = cv2.GaussianBlur(value, (0, 0), smooth)
        seen[k] = cv2.GaussianBlur(known, (0, 0), smooth)
    volume = np.where(seen > 0.3, volume / np.maximum(seen, 0.3), -1.0)
    return _peaks(volume, here, size, a_to_b)


def _peaks(volume: Float32, here: NDArray[np.bool_], size: int, a_to_b: Float64) -> Matches:
    cells = size // 2
    best = volume.argmax(0)
    dy, dx = best // size, best % size
    inner = (dy > 0) & (dy < size - 1) & (dx > 0) & (dx < size - 1) & here
    y, x = np.nonzero(inner)
    if not len(y):
        return Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    at = best[y, x]
    top = volume[at, y, x]
    around = [volume[at + k, y, x] for k in (-1, 1, -size, size)]
    part_x = _parabola(around[0], top, around[1])
    part_y = _parabola(around[2], top, around[3])
    values = volume[:, y, x]
    raised = np.exp((values - top) / _TEMPERATURE)
    weight = 1 / raised.sum(0)  # the share of the peak among all places
    points = np.stack([x, y], 1) * (_THINNED * FINE_STRIDE) + (FINE_STRIDE - 1) / 2
    shift = np.stack([dx[y, x] - cells + part_x, dy[y, x] - cells + part_y], 1) * FINE_STRIDE
    origin = cv2.perspectiveTransform(points[None].astype(np.float64), np.linalg.inv(a_to_b))[0]
    sure = weight * np.clip(top, 0, 1)
    return Matches(origin, points + shift, sure.astype(np.float64))


def _parabola(left: Float32, top: Float32, right: Float32) -> Float32:
    bend = np.minimum(left + right - 2 * top, -1e-6)
    return np.asarray(np.clip((left - right) / (2 * bend), -0.5, 0.5), np.float32)

"""Overlap of boxes: upright rectangles in a picture, turned rectangles on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def intersection_of_upright(a: Floats, b: Floats) -> Floats:
    """(P,) areas that rectangles share, from (P, 4) left, top, right, bottom each."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared: Floats = (high - low).clip(0).prod(axis=1)
    return shared


def intersection_of_turned(a: Floats, b: Floats) -> Floats:
    """Areas that turned rectangles share, exact but for rounding.

    One of a pair is clipped by the other's four sides in turn, in the other's own axes (Sutherland and
    Hodgman, "Reentrant polygon clipping", Communications of the ACM, 1974).

    Args:
        a, b: (P, 5) float64: center x, y, length, width, and the angle in radians by which the length is
            turned from x towards y.  Where a length or width is negative its absolute value counts.

    Returns:
        (P,) float64, in the square of the unit of x.
    """
    out = np.zeros(len(a))
    reach = np.hypot(a[:, 2], a[:, 3]) + np.hypot(b[:, 2], b[:, 3])
    near = np.flatnonzero(np.hypot(*(a[:, :2] - b[:, :2]).T) < reach / 2)
    a, b = a[near], b[near]
    half = np.abs(b[:, 2:4]) / 2
    polygon = _corners_seen_from(a, b)
    for axis in (0, 1):
        for side in (1.0, -1.0):
            polygon = _clipped(polygon, side * polygon[..., axis] - half[:, None, axis])
    x, y = polygon[..., 0], polygon[..., 1]
    twice = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    out[near] = np.abs(twice.sum(axis=1)) / 2
    return out


def _corners_seen_from(a: Floats, b: Floats) -> Floats:
    """(P, 4, 2) corners of a in the axes of b, around b's center."""
    length, width = (
        a[:, i, None] / 2 * np.array(s) for i, s in ((2, (1, 1, -1, -1)), (3, (1, -1, -1, 1)))
    )
    turned = (a[:, 4] - b[:, 4])[:, None]
    away = a[:, :2] - b[:, :2]
    cos, sin = np.cos(b[:, 4]), np.sin(b[:, 4])
    x = cos * away[:, 0] + sin * away[:, 1]
    y = cos * away[:, 1] - sin * away[:, 0]
    return np.stack(
        [
            x[:, None] + np.cos(turned) * length - np.sin(turned) * width,
            y[:, None] + np.sin(turned) * length + np.cos(turned) * width,
        ],
        axis=-1,
    )


def _clipped(polygon: Floats, beyond: Floats) -> Floats:
    """Convex polygons without what lies beyond a line.

    Args:
        polygon: (P, N, 2).
        beyond: (P, N), how far each corner lies beyond it.

    Returns:
        (P, N + 1, 2).  Corners that a polygon does not need repeat its first; one that is empty is a point.
    """
    count, sides = beyond.shape
    after, beyond_after = np.roll(polygon, -1, axis=1), np.roll(beyond, -1, axis=1)
    inside = beyond <= 0
    crosses = inside != (beyond_after <= 0)
    # Of a side that crosses the line both ends differ in `beyond`; elsewhere the share is not used.
    share = np.where(crosses, beyond / np.where(crosses, beyond - beyond_after, 1), 0)
    crossing = polygon + share[..., None] * (after - polygon)
    corners = np.stack([polygon, crossing], axis=2).reshape(count, 2 * sides, 2)
    needed = np.stack([inside, crosses], axis=2).reshape(count, 2 * sides)
    order = np.argsort(~needed, axis=1, kind="stable")[:, : sides + 1]
    order = np.where(np.take_along_axis(needed, order, axis=1), order, order[:, :1])
    # Of an empty polygon the first corner is as good as any: repeated, it has no area.
    return np.take_along_axis(corners, order[..., None], axis=1)

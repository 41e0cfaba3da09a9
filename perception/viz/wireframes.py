"""Boxes in space as their edges in a camera's picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.tasks.task import Image

Float64 = NDArray[np.float64]

NEAREST_M = 0.1
"""What of an edge is nearer to the camera's plane than this is cut off."""

_EDGES = np.array([(i, i | 1 << bit) for bit in range(3) for i in range(8) if not i >> bit & 1])
_FRONT = 4, 6  # corners of the lower edge in front, as `geometry.boxes.corners_of` counts
_PIECES = 16  # of an edge that a lens bends
_SHIFT = 4  # OpenCV's fixed point


def draw_boxes3d(
    image: Image,
    camera: CameraModel,
    corners: NDArray[np.floating],
    colors: Any,
    thick: int | None = None,
) -> Image:
    """A picture with the edges of boxes, those further away first, and a line to the front of each.

    Args:
        image: (H, W, 3) uint8 RGB, of the camera's size or of another resolution of it.
        camera: intrinsics.
        corners: (N, 8, 3) metres in the camera's optical frame, in the order of `geometry.boxes.corners_of`.
        colors: (N, 3) RGB.
        thick: pixels of a line; None for what fits the picture.
    """
    drawn = image.copy()
    every = np.asarray(corners, np.float64).reshape(-1, 8, 3)
    height, width = image.shape[:2]
    scale = np.array([width / camera.width, height / camera.height])
    thick = thick or max(1, round(width / 600))
    distance = np.linalg.norm(every.mean(axis=1), axis=1)
    for i in np.argsort(-distance).tolist():
        if not np.isfinite(every[i]).all():
            continue
        color = tuple(int(v) for v in colors[i])
        uv = (segments_of(every[i], camera) + 0.5) * scale - 0.5
        for first, last in (cut(uv, width, height) * (1 << _SHIFT)).round().astype(int).tolist():
            cv2.line(drawn, first, last, color, thick, cv2.LINE_AA, _SHIFT)
    return drawn


def segments_of(corners: Float64, camera: CameraModel) -> Float64:
    """What a camera sees of a box's edges, wherever it lies.

    Args:
        corners: (8, 3), as above.
        camera: intrinsics.

    Returns:
        (M, 2, 2) the ends of straight pieces, u and v in pixels; none of what is behind the camera or outside
        of the angle that its model covers.
    """
    bottom, ahead = corners[[0, 2, 4, 6]].mean(axis=0), corners[list(_FRONT)].mean(axis=0)
    ends = np.concatenate([corners[_EDGES], np.stack([bottom, ahead])[None]])
    ends = _before(ends)
    if camera.distortion_model != "none":
        share = np.linspace(0.0, 1.0, _PIECES + 1)[:, None]
        along = ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])
        ends = np.stack([along[:, :-1], along[:, 1:]], axis=2).reshape(-1, 2, 3)
    uv, valid = camera.project(ends.reshape(-1, 3))
    seen = valid.reshape(-1, 2).all(axis=1)
    return np.asarray(uv, np.float64).reshape(-1, 2, 2)[seen]


def _before(ends: Float64) -> Float64:
    """(M, 2, 3) edges, cut off at the plane `NEAREST_M` before the camera."""
    z = ends[..., 2]
    kept = (z >= NEAREST_M).any(axis=1)
    ends, z = ends[kept].copy(), z[kept]
    for own in (0, 1):
        other = 1 - own
        behind = z[:, own] < NEAREST_M
        share = (NEAREST_M - z[behind, other]) / (z[behind, own] - z[behind, other])
        way = ends[behind, own] - ends[behind, other]
        ends[behind, own] = ends[behind, other] + share[:, None] * way
        ends[behind, own, 2] = NEAREST_M
    return ends


def cut(segments: Float64, width: int, height: int) -> Float64:
    """Segments (M, 2, 2) cut off at a picture's edges, without those that are outside.

    Liang and Barsky, "A New Concept and Method for Line Clipping", 1984: what is far outside would not fit
    into OpenCV's integers.
    """
    first, way = segments[:, 0], segments[:, 1] - segments[:, 0]
    enter, leave = np.zeros(len(segments)), np.ones(len(segments))
    outside = np.zeros(len(segments), bool)
    for axis, limit in ((0, width), (1, height)):
        low, high = -1.0 - first[:, axis], limit - first[:, axis]
        step = way[:, axis]
        with np.errstate(all="ignore"):
            one, two = low / step, high / step
        still = step == 0
        outside |= still & ((low > 0) | (high < 0))
        enter = np.where(still, enter, np.maximum(enter, np.minimum(one, two)))
        leave = np.where(still, leave, np.minimum(leave, np.maximum(one, two)))
    kept = ~outside & (enter <= leave)
    first, way = first[kept], way[kept]
    ends = [first + share[kept][:, None] * way for share in (enter, leave)]
    return np.stack(ends, axis=1)

"""How a camera turned between two pictures: the usual flow of corners, whatever kind of picture it is."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.transforms import Float64

_CORNERS, _FEWEST = 250, 12
_APART, _QUALITY = 6, 0.005
_SPARE = 0.15
"""Share of the corners that must be found again for a turn to be believed."""


def small_gray(picture: NDArray[Any], width: int = 320) -> NDArray[np.uint8]:
    """Gray of at most `width` columns, stretched to 8 bits; what is not finite is taken as 0.

    Args:
        picture: (H, W) or (H, W, C) of any type.
        width: in pixels.
    """
    values = picture if picture.dtype in (np.uint8, np.uint16) else picture.astype(np.float32)
    if values.dtype == np.float32:
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    if width < values.shape[1]:
        size = (width, max(1, round(values.shape[0] * width / values.shape[1])))
        values = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    gray = values.astype(np.float32)
    if gray.ndim == 3:
        gray = gray[..., :3].mean(axis=2)
    low, high = np.percentile(gray, (1, 99))
    stretched = (gray - low) * (255 / max(float(high - low), 1e-6))
    return np.asarray(np.clip(stretched, 0, 255), np.uint8)


def turn_between(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Float64 | None:
    """The median flow of corners, to the right and down by the width, and about the middle in radians."""
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, _QUALITY, _APART)
    if corners is None or len(corners) < _FEWEST:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, np.empty_like(corners))
    away = np.abs(back - corners).reshape(-1, 2).max(axis=1)
    kept = (found.ravel() > 0) & (returned.ravel() > 0) & (away < 0.5)
    if kept.sum() < max(_FEWEST, _SPARE * len(corners)):
        return None
    height, width = before.shape
    place = corners.reshape(-1, 2)[kept] - [(width - 1) / 2, (height - 1) / 2]
    flow = (moved - corners).reshape(-1, 2)[kept].astype(np.float64)
    shift = np.median(flow, axis=0)
    rest, square = flow - shift, (place**2).sum(axis=1)
    outer = square > (0.15 * width) ** 2
    about = (place[:, 0] * rest[:, 1] - place[:, 1] * rest[:, 0]) / np.maximum(square, 1)
    roll = float(np.median(about[outer])) if outer.sum() >= _FEWEST else 0.0
    return np.array([shift[0] / width, shift[1] / width, roll])

"""A picture that shows whether a registration is right: squares of A, warped, and of B by turns."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.registration.pictures import stretched

_SQUARES = 10
_GREEN, _MAGENTA = np.array([0.8, 1.0, 0.8]), np.array([1.0, 0.82, 1.0])


def overlay(a: NDArray[Any], b: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Squares of both pictures by turns, A in green, B in magenta.

    Args:
        a, b: (H, W) of any numbers.
        matrix: 3x3 from pixels of A to those of B.

    Returns:
        (H, W, 3) uint8 R, G, B, as large as B.
    """
    height, width = b.shape
    warped = cv2.warpPerspective(_shown(a), matrix, (width, height))
    seen = cv2.warpPerspective(np.full(a.shape, 255, np.uint8), matrix, (width, height)) > 0
    side = max(8, max(height, width) // _SQUARES)
    y, x = np.indices((height, width)) // side
    first = seen & ((x + y) % 2 == 0)
    gray = np.where(first, warped, _shown(b))
    tint = np.where(first[..., None], _GREEN, _MAGENTA)
    return np.asarray(gray[..., None] * tint, np.uint8)


def _shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    values = image.astype(np.float32)
    valid = np.isfinite(values)
    gray = stretched(np.where(valid, values, np.float32(0)), valid)
    if gray is None:
        return np.zeros(image.shape, np.uint8)
    return np.asarray(np.clip(gray, 0, 1) * 255, np.uint8)

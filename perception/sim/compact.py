"""Simulated recordings in a fifth of the bytes: without the digits that hold noise alone.

Lossless files of noisy sensors consist of noise for the most part.  Here values are rounded to steps of
at most two standard deviations of the simulated sensor's own noise, which adds a third to its variance at
most, and pictures are JPEG.  Labels and boxes are as ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = {"rgb": ".jpg", "depth": ".tiff", "thermal": ".tiff"}
"""Of files by kind, see `FolderWriter`."""

INVERSE_DEPTH_STEP = 0.003
"""1/m, as a stereo camera's disparity comes in steps; the noise is 0.0015 times the depth's square."""

THERMAL_STEP_K = 0.2
"""Two deviations of the noise of pixels (0.08 K) and columns (0.05 K)."""

LIDAR_STEP_M = 1 / 32
"""One and a half deviations of the range noise of 0.02 m."""

INTENSITY_STEP = 1 / 64


def coarse(kind: str, values: NDArray[Any]) -> NDArray[Any]:
    """A sample's values in coarse steps.

    Args:
        kind: of the sensor; other kinds than depth, thermal and lidar stay as they are.
        values: (H, W) float32 metres or kelvin, NaN = none; (N, 4) float32 x, y, z in metres, intensity.

    Returns:
        Of the same shape and dtype; clouds column after column, which compresses better.
    """
    if kind == "depth":
        with np.errstate(divide="ignore"):
            steps = np.maximum(np.round(1 / (values * INVERSE_DEPTH_STEP)), 1)
        return (1 / (steps * INVERSE_DEPTH_STEP)).astype(values.dtype)
    if kind == "thermal":
        return (np.round(values / THERMAL_STEP_K) * THERMAL_STEP_K).astype(values.dtype)
    if kind == "lidar":
        steps = np.array([*3 * [LIDAR_STEP_M], INTENSITY_STEP])
        return np.asfortranarray((np.round(values / steps) * steps).astype(values.dtype))
    return values

"""Depth as a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.sensors.drawing import Image, false_colors, spread
from perception.sensors.kind import ColorScale

_COLORS = cv2.COLORMAP_TURBO


def _inverse(sample: Sample) -> tuple[NDArray[np.float32], float, float]:
    """1 / depth, and between which values of it colors change."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = (1 / sample.data).astype(np.float32)
    return inverse, *spread(inverse, 2, 98)


def draw(sample: Sample) -> Image:
    """Near is bright."""
    inverse, low, high = _inverse(sample)
    return false_colors(np.where(sample.data > 0, inverse, np.nan), low, high, _COLORS)


def scale(sample: Sample) -> ColorScale | None:
    """In metres: even steps of the colors are even steps of 1 / depth."""
    _, low, high = _inverse(sample)
    if not 0 < low <= high or not (sample.data > 0).any():
        return None
    ticks = tuple((at, float(1 / (low + (high - low) * at))) for at in (0.0, 0.5, 1.0))
    return ColorScale(_COLORS, ticks, "m")

"""Temperatures as a picture."""

from __future__ import annotations

import cv2
import numpy as np

from perception.frame import Sample
from perception.sensors.drawing import Image, false_colors, spread
from perception.sensors.kind import ColorScale

_COLORS = cv2.COLORMAP_INFERNO
_ZERO_CELSIUS_K = 273.15


def _range(sample: Sample) -> tuple[float, float]:
    return spread(sample.data, 1, 99.5)


def draw(sample: Sample) -> Image:
    """Warm is bright."""
    return false_colors(sample.data, *_range(sample), _COLORS)


def scale(sample: Sample) -> ColorScale | None:
    """In degrees Celsius where temperatures are known, else in the sensor's counts."""
    if not np.isfinite(sample.data).any():
        return None
    low, high = _range(sample)
    zero, unit = (_ZERO_CELSIUS_K, "°C") if sample.unit == "kelvin" else (0.0, "")
    ticks = tuple((at, float(low + (high - low) * at - zero)) for at in (0.0, 0.5, 1.0))
    return ColorScale(_COLORS, ticks, unit)

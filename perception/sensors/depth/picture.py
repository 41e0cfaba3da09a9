"""Depth as a picture."""

from __future__ import annotations

import cv2
import numpy as np

from perception.frame import Sample
from perception.sensors.drawing import Image, false_colors, spread


def draw(sample: Sample) -> Image:
    """Near is bright."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = (1 / sample.data).astype(np.float32)
    low, high = spread(inverse, 2, 98)
    return false_colors(np.where(sample.data > 0, inverse, np.nan), low, high, cv2.COLORMAP_TURBO)

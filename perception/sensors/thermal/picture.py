"""Temperatures as a picture."""

from __future__ import annotations

import cv2

from perception.frame import Sample
from perception.sensors.drawing import Image, false_colors, spread


def draw(sample: Sample) -> Image:
    """Warm is bright."""
    return false_colors(sample.data, *spread(sample.data, 1, 99.5), cv2.COLORMAP_INFERNO)

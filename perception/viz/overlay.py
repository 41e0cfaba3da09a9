"""Overlays of labels and boxes, and pictures of each kind of sensor."""

from __future__ import annotations

import cv2
import numpy as np

from perception.frame import Frame, Sample
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.drawing import draw_picture, draw_points
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS
from perception.tasks.task import Image


def draw_sample(sample: Sample) -> Image:
    """A picture of a sample, as its kind draws it.

    Raises:
        CalibrationError: points that need a camera have none.
    """
    own = kind_of(sample.kind)
    draw = own.draw or (draw_picture if own.has_picture else draw_points)
    return draw(sample)


def is_drawn(sample: Sample) -> bool:
    """Whether there is a picture of it: not of points without the camera that they need."""
    return sample.camera is not None or not kind_of(sample.kind).projected


def background(frame: Frame, reference: str | None) -> Image:
    """What results are drawn on: the reference sensor's picture, else the first, gray but for colors."""
    name = reference if reference in frame else next(iter(frame), None)
    if name is None:
        return np.zeros((240, 320, 3), np.uint8)
    picture = draw_sample(frame[name])
    if kind_of(frame[name].kind).colors:
        return picture
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def draw_result(
    manifest: BundleManifest, frame: Frame, result: Result, opacity: float = 0.55
) -> Image:
    """What each task draws, one over the other: labels blended over the picture, then boxes."""
    image, specs = background(frame, result.reference), manifest.tasks.every
    for name, value in result.values.items():
        if (draw := TASKS[name].draw) is not None:
            image = draw(image, value, specs[name], opacity)
    return image

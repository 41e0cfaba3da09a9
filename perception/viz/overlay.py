"""Overlays of labels and boxes, and pictures of each kind of sensor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame, Sample
from perception.geometry.projection import project_lidar
from perception.preprocess.sample import source_size
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.tasks.registry import TASKS
from perception.tasks.task import Image


def _mapped(values: NDArray[np.float32], low: float, high: float, colormap: int) -> Image:
    steps = np.nan_to_num((values - low) / max(high - low, 1e-6) * 255, posinf=255.0, neginf=0.0)
    colors = cv2.applyColorMap(steps.clip(0, 255).astype(np.uint8), colormap)
    colors[~np.isfinite(values)] = 0
    return cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)


def draw_sample(sample: Sample) -> Image:
    """A picture of a sample: near is bright for depth and LiDAR, warm is bright for thermal."""
    if sample.kind == "rgb":
        return np.ascontiguousarray(sample.data)
    if sample.kind == "depth":
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = (1 / sample.data).astype(np.float32)
        finite = inverse[np.isfinite(inverse)]
        low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
        return _mapped(np.where(sample.data > 0, inverse, np.nan), low, high, cv2.COLORMAP_TURBO)
    if sample.kind == "thermal":
        finite = sample.data[np.isfinite(sample.data)]
        low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
        return _mapped(sample.data, low, high, cv2.COLORMAP_INFERNO)
    return _draw_lidar(sample)


def _draw_lidar(sample: Sample) -> Image:
    height, width = source_size(sample)
    assert sample.camera is not None
    if sample.extrinsics is None or len(sample.data) == 0:
        return np.zeros((height, width, 3), np.uint8)
    points = project_lidar(sample.data, sample.camera, sample.extrinsics, height, width)
    with np.errstate(divide="ignore"):
        inverse = np.where(points.valid, 1 / points.range_m, np.nan).astype(np.float32)
    dots = _mapped(inverse, 0.01, 0.2, cv2.COLORMAP_TURBO)
    side = 1 + max(1, round(width / 320))
    return cv2.dilate(dots, np.ones((side, side), np.uint8))


def background(frame: Frame, reference: str | None) -> Image:
    """What results are drawn on: the reference sensor's picture, else the first, gray but for RGB."""
    name = reference if reference in frame else next(iter(frame), None)
    if name is None:
        return np.zeros((240, 320, 3), np.uint8)
    picture = draw_sample(frame[name])
    if frame[name].kind == "rgb":
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

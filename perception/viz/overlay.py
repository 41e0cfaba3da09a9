"""Overlays of labels and boxes, and pictures of each kind of sensor."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame, Sample
from perception.geometry.projection import project_lidar
from perception.preprocess.sample import source_size
from perception.runtime.manifest import BundleManifest, ClassSpec
from perception.runtime.result import Detections, Result

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


def colorize_labels(labels: NDArray[np.uint8], classes: Sequence[ClassSpec]) -> Image:
    """Label ids (H, W) as colors; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    for entry in classes:
        table[entry.id] = entry.color
    return table[labels]


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


def draw_boxes(image: Image, boxes: Detections, classes: Sequence[ClassSpec]) -> Image:
    """Boxes with class name and score on a copy of `image`."""
    image = np.ascontiguousarray(image).copy()
    by_id = {c.id: c for c in classes}
    thick = max(1, round(image.shape[1] / 400))
    size = max(0.35, image.shape[1] / 1600)
    for box, score, kind in zip(boxes.xyxy, boxes.scores, boxes.class_ids, strict=True):
        entry = by_id.get(int(kind))
        color = entry.color if entry else (255, 255, 255)
        left, top, right, bottom = (int(v) for v in box)
        cv2.rectangle(image, (left, top), (right, bottom), color, thick, cv2.LINE_AA)
        text = f"{entry.name if entry else kind} {score:.2f}"
        (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        y = max(top, high + base)
        cv2.rectangle(image, (left, y - high - base), (left + wide, y), color, -1)
        cv2.putText(
            image, text, (left, y - base), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA
        )
    return image


def draw_result(
    manifest: BundleManifest, frame: Frame, result: Result, opacity: float = 0.55
) -> Image:
    """Labels blended over the picture, then boxes."""
    image = background(frame, result.reference)
    if result.labels is not None:
        colors = colorize_labels(result.labels, manifest.seg_classes)
        if colors.shape[:2] != image.shape[:2]:
            image = cv2.resize(image, colors.shape[1::-1])
        image = cv2.addWeighted(colors, opacity, image, 1 - opacity, 0)
    if result.boxes is not None:
        image = draw_boxes(image, result.boxes, manifest.det_classes)
    return image

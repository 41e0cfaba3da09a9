"""From network outputs to labels, confidence and boxes in source pixels."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.grid import GridMap
from perception.runtime.result import Detections

Float32 = NDArray[np.float32]


def segment(logits: Float32, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Float32]:
    """Labels and confidence from class logits, see `label_pixels` and `label_confidence`."""
    return label_pixels(logits, size), label_confidence(logits, size)


def label_pixels(logits: Float32, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels from class logits.

    Classes are compared at twice the logits' resolution after bilinear interpolation, one class at
    a time so that the working set stays in cache; the winner is then brought to `size`.

    Args:
        logits: (K, h, w) float32.
        size: (height, width) of the result in pixels.

    Returns:
        (H, W) uint8 class ids.
    """
    classes, height, width = logits.shape
    fine = (width * 2, height * 2)
    best = cv2.resize(logits[0], fine, interpolation=cv2.INTER_LINEAR)
    labels = np.zeros(best.shape, np.uint8)
    plane = np.empty_like(best)
    wins = np.empty(best.shape, np.uint8)
    for index in range(1, classes):
        cv2.resize(logits[index], fine, plane, interpolation=cv2.INTER_LINEAR)
        cv2.compare(plane, best, cv2.CMP_GT, wins)
        cv2.max(plane, best, best)
        labels[wins.view(bool)] = index
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST).astype(
        np.uint8, copy=False
    )


def label_confidence(logits: Float32, size: tuple[int, int]) -> Float32:
    """(H, W) float32 softmax probabilities of the labels that `label_pixels` gives."""
    peak = logits.max(axis=0)
    confidence = (1.0 / np.exp(logits - peak).sum(axis=0)).astype(np.float32)
    out: Float32 = cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR)
    return out


def pictures(
    outputs: Mapping[str, Float32], grid: GridMap, prefix: str = "image_"
) -> dict[str, NDArray[np.uint8]]:
    """The pictures that a model makes besides, in the source image's pixels.

    Args:
        outputs: of a graph, by name; those whose name begins with `prefix` are (1, C, H, W) in 0..1.
        grid: how the source lies on the model's grid.

    Returns:
        By name without the prefix, (H, W, C) uint8.
    """
    return {
        name.removeprefix(prefix): as_picture(grid.crop(array[0]), grid.source)
        for name, array in outputs.items()
        if name.startswith(prefix)
    }


def as_picture(image: Float32, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An (H, W, C) uint8 picture of `size` from (C, h, w) float32 in 0..1."""
    scaled = (image.clip(0, 1) * 255).round().astype(np.uint8)
    picture = np.ascontiguousarray(np.moveaxis(scaled, 0, -1))
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, -1)


def decode_detections(
    maps: Mapping[int, tuple[Float32, Float32]],
    *,
    score_threshold: float = 0.3,
    nms_iou: float = 0.6,
    max_detections: int = 100,
    candidates: int = 1000,
) -> Detections:
    """Boxes from the anchor-free head's maps.

    Args:
        maps: by stride s, (C, H/s, W/s) class logits and (4, H/s, W/s) distances left, top, right,
            bottom in stride units.
        score_threshold: least score of a box.
        nms_iou: boxes of one class that overlap a better one by more are dropped.
        max_detections: most boxes to return.
        candidates: most boxes to enter non-maximum suppression.

    Returns:
        Boxes in grid pixels, best first.
    """
    threshold = np.float32(np.log(score_threshold / (1 - score_threshold)))
    parts = [_decode_level(s, c, b, threshold) for s, (c, b) in sorted(maps.items())]
    xyxy = np.concatenate([p[0] for p in parts])
    scores = np.concatenate([p[1] for p in parts])
    kinds = np.concatenate([p[2] for p in parts])
    order = np.argsort(-scores, kind="stable")[:candidates]
    xyxy, scores, kinds = xyxy[order], scores[order], kinds[order]
    keep = suppress(xyxy, kinds, nms_iou)[:max_detections]
    return Detections(xyxy[keep], scores[keep], kinds[keep])


def _decode_level(
    stride: int, logits: Float32, sides: Float32, threshold: np.float32
) -> tuple[Float32, Float32, NDArray[np.int64]]:
    kind, y, x = np.nonzero(logits > threshold)
    left, top, right, bottom = sides[:, y, x] * np.float32(stride)
    cx, cy = (x + np.float32(0.5)) * stride, (y + np.float32(0.5)) * stride
    xyxy = np.stack([cx - left, cy - top, cx + right, cy + bottom], axis=1)
    scores = 1.0 / (1.0 + np.exp(-logits[kind, y, x]))
    return xyxy.astype(np.float32), scores.astype(np.float32), kind.astype(np.int64)


def suppress(xyxy: Float32, class_ids: NDArray[np.int64], iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    Args:
        xyxy: (N, 4), best first.
        class_ids: (N,).
        iou: largest overlap with a better box of the same class.

    Returns:
        Indices of the boxes kept, best first.
    """
    left = np.arange(len(xyxy))
    keep = []
    with np.errstate(over="ignore", invalid="ignore"):  # boxes may be larger than any image
        area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        while left.size:
            first, left = left[0], left[1:]
            keep.append(first)
            low = np.maximum(xyxy[first, :2], xyxy[left, :2])
            high = np.minimum(xyxy[first, 2:], xyxy[left, 2:])
            overlap = (high - low).clip(0).prod(axis=1)
            union = area[first] + area[left] - overlap
            left = left[(overlap <= iou * union) | (class_ids[left] != class_ids[first])]
    return np.array(keep, np.int64)

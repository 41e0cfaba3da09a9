"""2D boxes of one picture, and how they are decoded from what a network says of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """2D boxes of one image, best first.

    Attributes:
        xyxy: (N, 4) float32, left, top, right, bottom in source pixels.
        scores: (N,) float32 in 0..1: a rank, and what thresholds are compared with.
        class_ids: (N,) int64, indices into the bundle's detection classes.
        confidence: (N,) float32 in 0..1, how often boxes like this are right (IoU 0.5), derated where inputs
            are far from training; None where the bundle has no `scalings` for the sensors used.
    """

    xyxy: Float32
    scores: Float32
    class_ids: NDArray[np.int64]
    confidence: Float32 | None = None

    @staticmethod
    def empty() -> Detections:
        """No box."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        )

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, keep: NDArray[Any]) -> Detections:
        """Those of a mask or of indices."""
        sure = None if self.confidence is None else self.confidence[keep]
        return Detections(self.xyxy[keep], self.scores[keep], self.class_ids[keep], sure)


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

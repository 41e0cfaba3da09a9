"""Average precision of boxes: at IoU 0.5, and the mean over 0.50:0.05:0.95.

Precision is interpolated at 101 recall points, as in Lin et al., "Microsoft COCO" (ECCV 2014), and
detections are matched as pycocotools does it. Ignored boxes are as its crowd regions: any number of
detections may lie on one, and how much one does is the share of its own area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0, 1, 101)
MAX_PER_IMAGE = 100


class ScoredBoxes(Protocol):
    """Detections of one image: (N, 4) xyxy, (N,) scores, (N,) class ids."""

    @property
    def xyxy(self) -> NDArray[np.float32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def class_ids(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class DetectionScore:
    """Average precision over the classes that the truth holds; NaN when it holds none.

    Attributes:
        ap50: at IoU 0.5.
        ap: mean over IoU 0.5 to 0.95.
        per_class: by class id, (AP50, AP).
    """

    ap50: float
    ap: float
    per_class: dict[int, tuple[float, float]] = field(default_factory=dict)


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of every pair of boxes (N, 4) and (M, 4): (N, M)."""
    return _overlaps(a, b, np.zeros(len(b), bool))


def _overlaps(
    a: NDArray[np.float32], b: NDArray[np.float32], regions: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of every pair (N, M); with a box b of `regions` (M,), the share of a that lies in it."""
    a64, b64 = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a64[:, None, :2], b64[None, :, :2])
    high = np.minimum(a64[:, None, 2:], b64[None, :, 2:])
    overlap = (high - low).clip(0).prod(-1)
    area_a, area_b = (a64[:, 2:] - a64[:, :2]).prod(-1), (b64[:, 2:] - b64[:, :2]).prod(-1)
    union = area_a[:, None] + area_b[None] - overlap
    return overlap / np.maximum(np.where(regions, area_a[:, None], union), 1e-12)


def average_precision(frames: Sequence[tuple[ScoredBoxes, Boxes]], classes: int) -> DetectionScore:
    """Score detections against the truth of all frames.

    Each detection, best first, takes the free box of its class that it overlaps most; of equal ones the
    last. Detections that lie on ignored boxes, and on no free box, count neither for nor against, however
    many there are.

    Args:
        frames: detections and truth of each image, in the same pixels. Of an image and class the best
            `MAX_PER_IMAGE` detections count.
        classes: number of classes; ids are 0 to classes - 1.
    """
    per_class: dict[int, tuple[float, float]] = {}
    for kind in range(classes):
        values = _class_precision(frames, kind)
        if values is not None:
            per_class[kind] = (float(values[0]), float(values.mean()))
    if not per_class:
        return DetectionScore(float("nan"), float("nan"))
    table = np.array(list(per_class.values()))
    return DetectionScore(float(table[:, 0].mean()), float(table[:, 1].mean()), per_class)


def matched(
    found: ScoredBoxes, truth: Boxes, classes: int, iou: float = 0.5
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores of one image's detections, and whether each is right, those that lie on ignored boxes left out.

    Args:
        found: detections; matched as in `average_precision`.
        truth: in the same pixels.
        classes: number of classes; ids are 0 to classes - 1.
        iou: least overlap of a right one.

    Returns:
        (N,) float32, and (N,) bool.
    """
    scores, right = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for kind in range(classes):
        own, outcomes = _outcomes(found, truth, kind, np.array([iou]))
        counted = outcomes[0] >= 0
        scores.append(own[counted])
        right.append(outcomes[0, counted] > 0)
    return np.concatenate(scores), np.concatenate(right)


def _outcomes(
    found: ScoredBoxes, truth: Boxes, kind: int, thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """(N,) scores of an image's best detections of a class, and their (T, N) outcomes, see `_match`."""
    own = truth.class_ids == kind
    mine = np.flatnonzero(found.class_ids == kind)
    mine = mine[np.argsort(-found.scores[mine], kind="stable")][:MAX_PER_IMAGE]
    overlap = _overlaps(found.xyxy[mine], truth.xyxy[own], truth.ignore[own])
    return found.scores[mine], _match(overlap, truth.ignore[own], thresholds)


def _class_precision(
    frames: Sequence[tuple[ScoredBoxes, Boxes]], kind: int
) -> NDArray[np.float64] | None:
    """(10,) AP at each threshold, None when no frame holds the class."""
    scores, outcomes, wanted = [], [], 0
    for found, truth in frames:
        wanted += int(((truth.class_ids == kind) & ~truth.ignore).sum())
        own, matches = _outcomes(found, truth, kind, THRESHOLDS)
        scores.append(own)
        outcomes.append(matches)
    if wanted == 0:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    table = np.concatenate(outcomes, axis=1)[:, order]
    return np.array([_interpolated(row, wanted) for row in table])


def _match(
    overlap: NDArray[np.float64], ignore: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> NDArray[np.int8]:
    """(T, N) outcome of each detection by threshold, best first: 1 hit, 0 miss, -1 ignored."""
    out = np.zeros((len(thresholds), len(overlap)), np.int8)
    for t, threshold in enumerate(thresholds):
        free = ~ignore
        for i, row in enumerate(overlap):
            candidates = np.where(free & (row >= threshold), row, -1.0)
            if candidates.size and candidates.max() >= 0:
                out[t, i] = 1
                free = free.copy()
                free[len(row) - 1 - int(candidates[::-1].argmax())] = False
            elif (row[ignore] >= threshold).any():
                out[t, i] = -1
    return out


def _interpolated(outcomes: NDArray[np.int8], wanted: int) -> float:
    counted = outcomes[outcomes >= 0]
    if not counted.size:
        return 0.0
    hits = np.cumsum(counted)
    precision = hits / np.arange(1, len(counted) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hits / wanted
    position = np.searchsorted(recall, _RECALL_POINTS - 1e-12, side="left")
    reached = position < len(precision)
    return float(np.where(reached, precision[np.minimum(position, len(precision) - 1)], 0).mean())

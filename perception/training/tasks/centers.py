"""A quick score of boxes on the ground while a network is trained: are their centres where objects are?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perception.data.base import TruthBoxes3d
from perception.geometry.grid import BirdseyeSpec
from perception.tasks.centers import decode_centers
from perception.training.tasks.task import LOW_SCORE

WITHIN_M = (0.5, 1.0, 2.0, 4.0)
"""Distances on the ground within which a centre is right (Caesar et al., "nuScenes", CVPR 2020)."""

_MOST = 100


class CenterPrecision:
    """Average precision of centres on the ground, the mean over classes that there are and `WITHIN_M`.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self.frames: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], TruthBoxes3d]] = []
        self.classes = classes

    def add(self, value: dict[str, Tensor], truth: TruthBoxes3d, ground: BirdseyeSpec) -> None:
        """Count one frame: what the head gave of a batch of one, and its truth in the base frame."""
        inside = np.ones(len(truth), bool)
        for axis, (low, high) in enumerate((ground.x, ground.y)):
            inside &= (truth.center[:, axis] >= low) & (truth.center[:, axis] < high)
        heatmap, fields = (value[name][0].float().cpu().numpy() for name in ("heatmap", "fields"))
        found = decode_centers(heatmap, fields, ground, min_score=LOW_SCORE, most=_MOST)
        self.frames.append(
            (found.center[:, :2], found.class_ids, found.scores, truth.chosen(inside))
        )

    def score(self) -> float | None:
        """None where there is no truth."""
        found = [self._of_class(kind) for kind in range(self.classes)]
        known = [score for score in found if score is not None]
        return float(np.mean(known)) if known else None

    def _of_class(self, kind: int) -> float | None:
        scores, hits, wanted = [], [], 0
        for places, ids, score, truth in self.frames:
            own = truth.class_ids == kind
            center, ignore = truth.center[own, :2], truth.ignore[own]
            mine = np.flatnonzero(ids == kind)
            wanted += int((~ignore).sum())
            each = np.column_stack([_matched(places[mine], center, ignore, m) for m in WITHIN_M])
            scores.append(score[mine])
            hits.append(each.reshape(-1, len(WITHIN_M)))
        if not wanted:
            return None
        order = np.argsort(-np.concatenate(scores), kind="stable")
        outcomes = np.concatenate(hits)[order]
        return float(np.mean([_precision(outcomes[:, k], wanted) for k in range(len(WITHIN_M))]))


def _matched(
    places: NDArray[Any], centers: NDArray[Any], ignore: NDArray[np.bool_], within: float
) -> NDArray[np.int64]:
    """1 for a place that takes the nearest free centre, 0 for none, -1 where that is to be ignored."""
    free = np.ones(len(centers), bool)
    found = np.zeros(len(places), np.int64)
    for k, place in enumerate(places):
        away = np.where(free, np.hypot(*(centers - place).T), np.inf)
        if len(away) and away.min() < within:
            nearest = int(away.argmin())
            found[k] = -1 if ignore[nearest] else 1
            free[nearest] = ignore[nearest]
    return found


def _precision(outcomes: NDArray[np.int64], wanted: int) -> float:
    """Area under the curve of precision over recall, precision made falling."""
    hits = outcomes[outcomes >= 0]
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * hits).sum() / wanted)

"""Intersection over union from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL
from perception.errors import InputError


class ConfusionMatrix:
    """Counts of (true, predicted) pixels.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)
        self.unlabeled = np.zeros(classes, np.int64)

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """Count one image; pixels with truth 255 are left out.

        Args:
            truth: (H, W) uint8.
            predicted: (H, W) uint8, class ids; 255 (unlabeled) counts as wrong for every class.
        """
        if truth.shape != predicted.shape:
            raise InputError(f"truth {truth.shape} and prediction {predicted.shape} differ in size")
        classes = len(self.counts)
        known = truth != IGNORE_LABEL
        wanted, got = truth[known].astype(np.int64), predicted[known].astype(np.int64)
        # One more column takes predictions that are no class, so that they miss without hitting.
        got = np.minimum(got, classes)
        pairs = np.bincount(wanted * (classes + 1) + got, minlength=classes * (classes + 1))
        table = pairs.reshape(classes, classes + 1)
        self.counts += table[:, :classes]
        self.unlabeled += table[:, classes]

    @property
    def truth_pixels(self) -> NDArray[np.int64]:
        """(classes,) pixels of each class in the truth."""
        return self.counts.sum(axis=1) + self.unlabeled

    def without(self, classes: Sequence[int]) -> ConfusionMatrix:
        """The same counts as if the truth's pixels of these classes had been left out."""
        rest = ConfusionMatrix(len(self.counts))
        rest.counts, rest.unlabeled = self.counts.copy(), self.unlabeled.copy()
        rest.counts[list(classes)] = 0
        rest.unlabeled[list(classes)] = 0
        return rest

    def iou(self) -> NDArray[np.float64]:
        """(classes,) IoU; NaN for classes that the truth does not hold."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.truth_pixels + self.counts.sum(axis=0) - hit
        with np.errstate(invalid="ignore"):
            return np.where(self.truth_pixels > 0, hit / np.maximum(union, 1), np.nan)

    def miou(self) -> float:
        """Mean IoU over the classes in the truth; NaN when it holds none."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def miou_all(self) -> float:
        """Mean IoU over all classes, those without truth counted as 0."""
        return float(np.nan_to_num(self.iou()).mean())

    def pixel_accuracy(self) -> float:
        """Share of labeled pixels that are right."""
        total = self.truth_pixels.sum()
        return float(np.diag(self.counts).sum() / total) if total else float("nan")

"""Training of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.data.base import IGNORE_LABEL, Recording, RecordingInfo, Truth
from perception.geometry.grid import GridMap
from perception.metrics.segmentation import ConfusionMatrix
from perception.models.heads import SegmentationHead
from perception.models.layers import upsample
from perception.models.supervision import auxiliary_segmentation_loss, sample_labels
from perception.tasks.segmentation import LOGITS, SegmentationSpec
from perception.training.distributed import here
from perception.training.geometry import Geometry
from perception.training.tasks.task import (
    TrainingTask,
    TruthSource,
    Validation,
    classes_of,
    stacked,
)

if TYPE_CHECKING:
    from perception.training.config import LossSpec

Labels = NDArray[np.uint8]


class SegmentationTraining(TrainingTask):
    """Truth (H, W) uint8, 255 = ignore; in batches (N, H, W) int64.  Values are (N, K, H/4, W/4) logits."""

    name = "segmentation"
    part = "segmentation"
    strides = (4, 8, 16, 32)
    needs = "a labeled pixel", "every label is 255 (ignore) or missing"
    loss_weights = ("lovasz",)

    def spec(self, info: RecordingInfo) -> SegmentationSpec:
        return SegmentationSpec(**classes_of(info, self.name, "semantic", info.seg_classes))

    def outputs(self, value: Tensor) -> dict[str, Tensor]:
        return {LOGITS: value}

    def read_truth(self, source: TruthSource) -> Labels | None:
        labels = source.truth.labels
        if labels is None:
            return None
        fitted = GridMap.fit(labels.shape, source.grid)  # type: ignore[arg-type]
        return fitted.to_grid(labels, nearest=True, fill=IGNORE_LABEL)

    def as_recorded(self, truth: Labels) -> Truth:
        return Truth(labels=truth)

    def warp(self, truth: Labels, geometry: Geometry) -> Labels:
        return np.ascontiguousarray(geometry.warp(truth, True, IGNORE_LABEL))

    def blank(self, size: tuple[int, int]) -> Labels:
        return np.full(size, IGNORE_LABEL, np.uint8)

    def collate(self, truths: Sequence[Labels]) -> Tensor:
        return stacked(truths, np.int64)

    def known(self, truths: Tensor) -> bool:
        return self.has_truth(truths)

    def has_truth(self, truth: Any) -> bool:
        return truth is not None and bool((truth != IGNORE_LABEL).any())

    def notes(self, info: RecordingInfo, truths: Sequence[Any]) -> list[str]:
        if len(info.seg_classes) > 1:
            return []
        return ["there is one semantic class: nothing to tell apart; add one for all the rest"]

    def head(self, channels: Mapping[int, int], spec: SegmentationSpec, width: int) -> nn.Module:
        return SegmentationHead(dict(channels), len(spec.classes), width)

    def auxiliary_head(self, channels: int, spec: SegmentationSpec) -> nn.Module:
        return nn.Conv2d(channels, len(spec.classes), 1)

    def prepare(
        self, recording: Recording, spec: SegmentationSpec, balance: float
    ) -> Tensor | None:
        return class_weights(recording, len(spec.classes), balance) if balance > 0 else None

    def loss(self, value: Tensor, truths: Tensor, prepared: Tensor | None = None) -> Tensor:
        return segmentation_loss(value, truths, prepared)

    def further_losses(self, value: Tensor, truths: Tensor, weights: LossSpec) -> dict[str, Tensor]:
        return {"lovasz": weights.lovasz * lovasz_loss(value, truths)} if weights.lovasz else {}

    def auxiliary_loss(self, logits: Tensor, truths: Tensor) -> Tensor:
        return auxiliary_segmentation_loss(logits, truths)

    def validation(self, spec: SegmentationSpec, info: RecordingInfo) -> Validation:
        return _AtHalfSize(self, spec, None)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        target, own = teacher.detach().float().log_softmax(1), student.float().log_softmax(1)
        return F.kl_div(own, target, reduction="none", log_target=True).sum(1).mean()


class _AtHalfSize(Validation):
    """`miou` at half the grid's size, which is quick and tells epochs apart as well."""

    def __init__(self, half: TrainingTask, spec: SegmentationSpec, meter: None) -> None:
        super().__init__(half, spec, meter)
        self.confusion = ConfusionMatrix(len(spec.classes))

    def look(self, value: Tensor, truth: Labels, size: tuple[int, int]) -> ConfusionMatrix:
        labels = upsample(value.float()).argmax(1)[0].cpu().numpy().astype(np.uint8)
        own = ConfusionMatrix(len(self.confusion.counts))
        own.add(truth[::2, ::2], labels)
        return own

    def count(self, seen: ConfusionMatrix, truth: Labels, size: tuple[int, int]) -> None:
        self.confusion.counts += seen.counts
        self.confusion.unlabeled += seen.unlabeled

    def scores(self) -> dict[str, float | None]:
        return {"miou": self.confusion.miou()}


def class_weights(recording: Recording, classes: int, exponent: float) -> Tensor:
    """Weights frequency^-exponent of the classes in the truth, mean 1, within 0.3..3.

    All are 1 where there is no truth.  Processes that train together count their share of the frames each.
    """
    ranks, counts = here(), np.zeros(classes, np.int64)
    for index in ranks.share(len(recording)):
        labels = recording.truth(index).labels
        if labels is not None:
            counts += np.bincount(labels[::4, ::4].ravel(), minlength=256)[:classes]
    counts = np.sum(ranks.heard(counts), axis=0)
    seen = counts > 0
    if not seen.any():
        return torch.ones(classes)
    weights = np.ones(classes, np.float64)
    weights[seen] = (counts[seen] / counts.sum()) ** -exponent
    weights[seen] /= weights[seen].mean()
    return torch.from_numpy(weights.clip(0.3, 3.0)).float()


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted cross-entropy at half the label resolution; 0 where no label is valid.

    Args:
        logits: (N, K, H/4, W/4).
        labels: (N, H, W) int64, 255 = ignore.
        weights: (K,) or None.
    """
    logits = upsample(logits.float())
    if weights is not None:
        weights = weights.to(logits.device)
    wanted = labels[:, ::2, ::2]
    if not (wanted != IGNORE_LABEL).any():
        return 0.0 * logits.sum()  # the mean over no pixel would be NaN
    return F.cross_entropy(logits, wanted, weights, ignore_index=IGNORE_LABEL)


def lovasz_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász-softmax: a smooth stand-in for 1 - IoU, averaged over the classes present; 0 without labels.

    Berman, Rannen Triki and Blaschko, "The Lovász-Softmax Loss", CVPR 2018, over all pixels of the batch.

    Args:
        logits: (N, K, h, w).
        labels: (N, H, W) int64, 255 = ignore; they are sampled at the logits' own resolution.
    """
    wanted = sample_labels(labels, logits.shape[-1])
    kept = wanted != IGNORE_LABEL
    wanted = wanted[kept]
    chances = logits.float().softmax(1).permute(0, 2, 3, 1)[kept]
    terms = []
    for label in wanted.unique().tolist():
        there = (wanted == label).float()
        errors, order = (there - chances[:, label]).abs().sort(descending=True)
        terms.append(errors @ _jaccard_steps(there[order]))
    return torch.stack(terms).mean() if terms else 0.0 * logits.sum()


def _jaccard_steps(there: Tensor) -> Tensor:
    """By how much 1 - IoU grows with each further wrong pixel, (P,), for the truth (P,) in that order."""
    total = there.sum()
    intersection = total - there.cumsum(0)
    union = total + (1 - there).cumsum(0)
    loss = 1 - intersection / union
    return torch.cat([loss[:1], loss[1:] - loss[:-1]])


SEGMENTATION = SegmentationTraining()

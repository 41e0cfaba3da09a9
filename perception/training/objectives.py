"""The loss terms of one batch, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.data.base import IGNORE_LABEL
from perception.models.interface import FusionModel, ModelOutput
from perception.training.config import LossSpec
from perception.training.dataset import Batch
from perception.training.losses import (
    auxiliary_detection_loss,
    auxiliary_segmentation_loss,
    detection_loss,
    segmentation_loss,
)

Tensors = dict[str, Tensor]
TASKS = ("segmentation", "detection")
"""Names of the terms that belong to a task; the others support them."""


def loss_terms(
    model: FusionModel,
    output: ModelOutput,
    batch: Batch,
    spec: LossSpec,
    class_weights: Tensor | None,
) -> Tensors:
    """Weighted terms: one per task, `auxiliary`, and the model's own.

    A task of which the batch holds no truth, not one labeled pixel or not one image with known boxes,
    has no term; nor has `auxiliary` then.

    Args:
        model: gave `output`.
        output: of the forward pass in training mode.
        batch: the truth, on any device.
        spec: weights of the terms.
        class_weights: (K,) of the semantic classes, or None.
    """
    terms: Tensors = {}
    labels = None
    semantic = output.seg_logits is not None
    boxed = any(kept is not None for kept in batch.boxes)
    if output.seg_logits is not None and has_labels(batch.labels):
        assert batch.labels is not None
        labels = batch.labels.to(output.seg_logits.device)
        main = segmentation_loss(output.seg_logits, labels, class_weights)
        terms["segmentation"] = spec.segmentation * main
    if output.detections and boxed:
        terms["detection"] = spec.detection * detection_loss(output.detections, batch.boxes)
    if output.aux and (labels is not None if semantic else boxed):
        extra = [
            auxiliary_segmentation_loss(logits, labels)
            if labels is not None
            else auxiliary_detection_loss(logits, batch.boxes)
            for logits in output.aux.values()
        ]
        terms["auxiliary"] = spec.auxiliary * torch.stack(extra).mean()
    return terms | model.losses(output, labels)


def has_labels(labels: Tensor | None) -> bool:
    """Whether one pixel of (N, H, W) labels counts."""
    return labels is not None and bool((labels != IGNORE_LABEL).any())


def total(terms: Tensors) -> Tensor:
    """The sum of all terms."""
    return torch.stack([term.float() for term in terms.values()]).sum()

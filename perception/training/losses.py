"""Losses of the semantic, detection and auxiliary heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perception.data.base import IGNORE_LABEL, Boxes, Recording
from perception.models.layers import upsample
from perception.models.supervision import auxiliary_segmentation_loss
from perception.training.assignment import Assignment, assign

__all__ = [
    "auxiliary_detection_loss",
    "auxiliary_segmentation_loss",
    "cell_grid",
    "class_weights",
    "detection_loss",
    "flatten_outputs",
    "giou_loss",
    "segmentation_loss",
]

_EPS = 1e-7


def class_weights(recording: Recording, classes: int, exponent: float) -> Tensor:
    """Weights frequency^-exponent of the classes in the truth, mean 1, within 0.3..3.

    All are 1 where there is no truth.
    """
    counts = np.zeros(classes, np.int64)
    for index in range(len(recording)):
        labels = recording.truth(index).labels
        if labels is not None:
            counts += np.bincount(labels[::4, ::4].ravel(), minlength=256)[:classes]
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


def auxiliary_detection_loss(
    logits: Tensor, boxes: Sequence[Boxes | None], stride: int = 16
) -> Tensor:
    """Binary cross-entropy of a unimodal head against the boxes' shrunken areas.

    Args:
        logits: (N, C, h, w).
        boxes: per image; those of None do not count.
        stride: of the logits.
    """
    labeled = [image for image, kept in enumerate(boxes) if kept is not None]
    if not labeled:
        return 0.0 * logits.float().sum()
    if len(labeled) < len(boxes):
        logits = logits[labeled]
    target = torch.zeros_like(logits, dtype=torch.float32)
    for image, kept in enumerate(kept for kept in boxes if kept is not None):
        for (x0, y0, x1, y1), kind in zip(kept.xyxy, kept.class_ids, strict=True):
            dx, dy = 0.2 * (x1 - x0), 0.2 * (y1 - y0)
            left, top = int((x0 + dx) / stride), int((y0 + dy) / stride)
            right, bottom = int(np.ceil((x1 - dx) / stride)), int(np.ceil((y1 - dy) / stride))
            target[image, int(kind), top:bottom, left:right] = 1.0
    return F.binary_cross_entropy_with_logits(logits.float(), target) * 4


def cell_grid(outputs: dict[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Centers (A, 2) in pixels and strides (A,) of all cells, strides ascending."""
    centers, strides = [], []
    for stride, (logits, _) in sorted(outputs.items()):
        height, width = logits.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=logits.device),
            torch.arange(width, device=logits.device),
            indexing="ij",
        )
        centers.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width,), float(stride), device=logits.device))
    return torch.cat(centers), torch.cat(strides)


def flatten_outputs(outputs: dict[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Class logits (N, A, C) and boxes (N, A, 4) xyxy in pixels of all cells."""
    centers, strides = cell_grid(outputs)
    logits = torch.cat([c.flatten(2) for _, (c, _) in sorted(outputs.items())], dim=2)
    sides = torch.cat([b.flatten(2) for _, (_, b) in sorted(outputs.items())], dim=2)
    sides = sides.float().transpose(1, 2) * strides[:, None]
    boxes = torch.cat([centers - sides[..., :2], centers + sides[..., 2:]], dim=-1)
    return logits.float().transpose(1, 2), boxes


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU of paired boxes (P, 4) (Rezatofighi et al., CVPR 2019)."""
    low = torch.maximum(predicted[:, :2], target[:, :2])
    high = torch.minimum(predicted[:, 2:], target[:, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_p = (predicted[:, 2:] - predicted[:, :2]).prod(-1)
    area_t = (target[:, 2:] - target[:, :2]).prod(-1)
    union = area_p + area_t - overlap + _EPS
    outer_low = torch.minimum(predicted[:, :2], target[:, :2])
    outer_high = torch.maximum(predicted[:, 2:], target[:, 2:])
    hull = (outer_high - outer_low).prod(-1) + _EPS
    return 1 - (overlap / union - (hull - union) / hull)


def detection_loss(
    outputs: dict[int, tuple[Tensor, Tensor]], truth: Sequence[Boxes | None]
) -> Tensor:
    """Quality focal loss on classes and GIoU loss on boxes, normalized by the summed targets.

    Args:
        outputs: class logits and box sides by stride.
        truth: per image; those of None do not count.
    """
    logits, boxes = flatten_outputs(outputs)
    centers, strides = cell_grid(outputs)
    targets = [
        _assign_one(logits[i], boxes[i], centers, strides, kept) for i, kept in enumerate(truth)
    ]
    wanted = torch.stack([t.scores for t in targets])
    counted = ~torch.stack([t.ignore for t in targets])
    mass = wanted.sum().clamp(min=1.0)
    modulation = (wanted - logits.detach().sigmoid()).abs() ** 2
    focal = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * modulation
    class_loss = (focal * counted[..., None]).sum() / mass
    positive = torch.stack([t.positive for t in targets])
    if not positive.any():
        return class_loss + 0.0 * boxes.sum()
    share = wanted.amax(-1)[positive]
    aim = torch.stack([t.boxes for t in targets])[positive]
    box_loss = (giou_loss(boxes[positive], aim) * share).sum() / mass
    return class_loss + 2.0 * box_loss


def _assign_one(
    logits: Tensor, boxes: Tensor, centers: Tensor, strides: Tensor, truth: Boxes | None
) -> Assignment:
    device = logits.device
    unlabeled = truth is None
    truth = Boxes.empty() if truth is None else truth
    target = assign(
        logits.detach().sigmoid(),
        boxes.detach(),
        centers,
        strides,
        torch.from_numpy(truth.xyxy).to(device),
        torch.from_numpy(truth.class_ids).to(device),
        torch.from_numpy(truth.ignore).to(device),
    )
    target.ignore |= unlabeled
    return target

"""Losses that models state themselves, on logits at a resolution below the labels'."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perception.data.base import IGNORE_LABEL


def sample_labels(labels: Tensor, width: int) -> Tensor:
    """Labels (N, H, W) at the resolution of maps `width` wide: the middle pixel of each cell."""
    step = labels.shape[-1] // width
    return labels[:, step // 2 :: step, step // 2 :: step]


def auxiliary_segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy at the logits' own resolution (labels are sampled there); 0 without labels.

    Args:
        logits: (N, K, h, w).
        labels: (N, H, W) int64, 255 = ignore; H and W multiples of h and w.
    """
    sampled = sample_labels(labels, logits.shape[-1])
    total = F.cross_entropy(logits.float(), sampled, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / (sampled != IGNORE_LABEL).sum().clamp(min=1)

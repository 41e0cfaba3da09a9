"""Presence-gated softmax fusion: any subset of modalities, per pixel and channel.

Each encoder gives, at each scale, a feature map and a score map of the same shape.  The fused map
is the sum of the features weighted by the softmax of the scores over the modalities present.  An
absent modality is removed by selection (`torch.where`, ONNX `Where`) and never by multiplication, so
that NaN in its place changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ABSENT_SCORE = -1e4
"""Score of an absent modality; exp(ABSENT_SCORE - anything) is exactly 0 in float32."""


def fuse_present(features: Sequence[Tensor], scores: Sequence[Tensor]) -> Tensor:
    """Fuse maps that are all present; each argument holds (N, C, H, W) tensors."""
    if len(features) == 1:
        return features[0]
    peak = scores[0]
    for score in scores[1:]:
        peak = torch.maximum(peak, score)
    weights = [torch.exp(score - peak) for score in scores]
    total = weights[0]
    mixed = weights[0] * features[0]
    for weight, feature in zip(weights[1:], features[1:], strict=True):
        total = total + weight
        mixed = mixed + weight * feature
    return mixed / total


def fuse_gated(
    features: Sequence[Tensor], scores: Sequence[Tensor], present: Sequence[Tensor]
) -> Tensor:
    """Fuse maps of which some may be absent.

    Args:
        features: (N, C, H, W) per modality; absent ones may hold anything.
        scores: same shapes.
        present: boolean tensors that broadcast to them, per modality.
    """
    # Scalars, not zeros_like: an exporter would store those as tensors of full size.
    shown = [torch.where(p, f, 0.0) for f, p in zip(features, present, strict=True)]
    gated = [torch.where(p, s, ABSENT_SCORE) for s, p in zip(scores, present, strict=True)]
    return fuse_present(shown, gated)

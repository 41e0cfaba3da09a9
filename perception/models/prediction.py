"""Predicting what an absent modality's encoder would have said, from those present.

After Kim and Kim, "Missing Modality Prediction for Unpaired Multimodal Learning via Joint Embedding of
Unimodal Models", ECCV 2024: features, not images, are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.fusion import fuse_gated
from perception.models.layers import ConvBNReLU, SeparableBlock

UNSURE = -2.0
"""Score that a predicted map starts with: less weight than a seen one, whose scores start at 0."""


class FeaturePredictor(nn.Module):
    """One small network per modality and scale, from the fusion of those present to its features.

    Args:
        modalities: all of the model's.
        channels: of the feature maps, by stride.
    """

    def __init__(self, modalities: Sequence[str], channels: Mapping[int, int]) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                m: nn.ModuleDict(
                    {
                        str(s): nn.Sequential(
                            ConvBNReLU(c, c), SeparableBlock(c, 3), nn.Conv2d(c, c, 1)
                        )
                        for s, c in channels.items()
                    }
                )
                for m in modalities
            }
        )
        self.scores = nn.ModuleDict(
            {
                m: nn.ModuleDict({str(s): nn.Conv2d(c, c, 1) for s, c in channels.items()})
                for m in modalities
            }
        )
        for table in self.scores.values():
            assert isinstance(table, nn.ModuleDict)
            for conv in table.values():
                nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
                nn.init.constant_(conv.bias, UNSURE)  # type: ignore[arg-type]

    def forward(self, modality: str, stride: int, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Features and scores (N, C, h, w) of `modality` from the fused map of others."""
        table, scores = self.features[modality], self.scores[modality]
        assert isinstance(table, nn.ModuleDict) and isinstance(scores, nn.ModuleDict)
        predicted = table[str(stride)](fused)
        return predicted, scores[str(stride)](predicted)


def fill_in(
    predictor: FeaturePredictor,
    modalities: Sequence[str],
    stride: int,
    features: Sequence[Tensor],
    scores: Sequence[Tensor],
    present: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Features and scores of all modalities, predicted where they are absent.

    Args:
        predictor: gives the missing ones.
        modalities: names, in the order of the maps.
        stride: of the maps.
        features, scores: (N, C, h, w) per modality; absent ones may hold anything.
        present: boolean tensors that broadcast to them, per modality.
    """
    seen = fuse_gated(features, scores, present)
    full_features, full_scores = [], []
    for modality, feature, score, there in zip(modalities, features, scores, present, strict=True):
        guess, trust = predictor(modality, stride, seen)
        full_features.append(torch.where(there, feature, guess))
        full_scores.append(torch.where(there, score, trust))
    return full_features, full_scores


def prediction_loss(
    predictor: FeaturePredictor,
    stride: int,
    maps: Mapping[str, tuple[Tensor, Tensor]],
) -> Tensor:
    """How far each modality's features are from those predicted from all the others, 0 to 2.

    The distance is one minus the cosine over channels, plus that of the size, both against the
    features themselves held fixed: encoders shall not become predictable by saying less.

    Args:
        predictor: that learns.
        stride: of the maps.
        maps: by modality, features and scores (N, C, h, w); two or more.
    """
    losses = []
    for modality, (feature, _) in maps.items():
        others = [pair for m, pair in maps.items() if m != modality]
        on = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=feature.device)
        seen = fuse_gated([f for f, _ in others], [s for _, s in others], [on] * len(others))
        # Trains the predictor alone: what is fused and what is aimed at are both held fixed.
        guess, _ = predictor(modality, stride, seen.detach())
        target, guess = feature.detach().float(), guess.float()
        turned = 1 - F.cosine_similarity(guess, target, dim=1).mean()
        scale = target.abs().mean() + 1e-6
        losses.append(turned + F.l1_loss(guess / scale, target / scale).clamp(max=1.0))
    return torch.stack(losses).mean()

"""SSMA: several AdapNet++ experts whose features are re-weighted and fused at three places.

Valada, Mohan and Burgard, "Self-Supervised Model Adaptation for Multimodal Semantic Segmentation",
International Journal of Computer Vision, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception.models.interface import Features, ModelCard, ModelOutput, Present, gather
from perception.models.zoo.adapnet import SOURCE, MultiresolutionSupervision

CONTEXT_BOTTLENECK, SKIP_BOTTLENECK = 16, 6


class SSMABlock(nn.Module):
    """Concatenate, squeeze by `bottleneck`, weigh every channel and pixel by a sigmoid, project.

    Args:
        channels: of one modality's map.
        modalities: how many there are.
        bottleneck: the publication's eta, by which the channels are reduced in between.
        kernel: of the last convolution.
        norm: batch normalization after it.
    """

    def __init__(
        self, channels: int, modalities: int, bottleneck: int, kernel: int, *, norm: bool
    ) -> None:
        super().__init__()
        joined = channels * modalities
        inner = max(4, joined // bottleneck)
        self.squeeze = nn.Conv2d(joined, inner, 3, padding=1)
        self.excite = nn.Conv2d(inner, joined, 3, padding=1)
        self.project = nn.Conv2d(joined, channels, kernel, padding=kernel // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Fuse (N, channels, h, w) maps, zeros in the place of absent ones."""
        joined = torch.cat(maps, dim=1)
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(joined))))
        fused: Tensor = self.norm(self.project(joined * weights))
        return fused


class SSMA(MultiresolutionSupervision):
    """Experts and fusion of two or more modalities; see docs/zoo/ssma.md for its training in stages."""

    card = ModelCard(
        kind="expert fusion, convolutional",
        source=SOURCE,
        fewest=2,
        reference=("rgb", "depth"),
        published_weights=False,
        published_parameters=56.44,
        published_result="mIoU 57.7, ScanNet test, RGB-D",
    )

    reweigh = True

    def add_fusion(self, context: int, skip: int) -> None:
        count = len(self.modalities)
        self.fusion = nn.ModuleDict(
            {
                "context": SSMABlock(context, count, CONTEXT_BOTTLENECK, 1, norm=True),
                "skip8": SSMABlock(skip, count, SKIP_BOTTLENECK, 3, norm=False),
                "skip4": SSMABlock(skip, count, SKIP_BOTTLENECK, 3, norm=False),
            }
        )

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; an absent expert's maps are zeros."""
        fused = [
            self.fusion[name](gather(self.modalities, features, present, name).maps)
            for name in self.feature_names
        ]
        output: ModelOutput = self.decoder(*fused)
        return output

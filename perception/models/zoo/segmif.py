"""SegMiF: image fusion and segmentation that help each other by hierarchical interactive attention.

Liu et al., "Multi-interactive Feature Learning and a Full-time Multi-modality Benchmark for Image
Fusion and Segmentation", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.efficientnet_lite import SCALES, LitePyramid
from perception.models.heads import SegmentationHead
from perception.models.interface import (
    Features,
    FusionModel,
    ModelCard,
    ModelOutput,
    Present,
    gather,
)
from perception.models.layers import upsample
from perception.models.supervision import auxiliary_segmentation_loss
from perception.models.zoo.attention import ContextAttention, to_map, to_tokens
from perception.models.zoo.picture import picture_of, to_rgb, to_unit_rgb
from perception.tasks.pictures import PICTURES
from perception.tasks.segmentation import SEGMENTATION

DETAIL, GROWTH, HEADS = 32, 16, 4


class DenseBlock(nn.Module):
    """Residual dense block of three dilated 3x3 convolutions."""

    def __init__(self, channels: int, growth: int = GROWTH) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth, 3, padding=2, dilation=2) for i in range(3)
        )
        self.project = nn.Conv2d(channels + 3 * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        grown = x
        for conv in self.convs:
            grown = torch.cat([grown, F.relu(conv(grown))], dim=1)
        return x + F.relu(self.project(grown))


class InteractiveAttention(nn.Module):
    """A modality's features and semantic ones ask each other; both answers are added to the former.

    Args:
        channels: of the modality's features.
        semantic: channels of the semantic map.
        pool: by which both are reduced for the attention; its answer is upsampled again.
    """

    def __init__(self, channels: int, semantic: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.align = nn.Conv2d(semantic, channels, 1)
        self.from_semantic = ContextAttention(channels, HEADS)
        self.from_modality = ContextAttention(channels, HEADS)
        self.project = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor, semantic: Tensor) -> Tensor:
        """`features` (N, C, h, w) and `semantic` (N, S, h / k, w / k), k a whole number."""
        small = F.avg_pool2d(features, self.pool) if self.pool > 1 else features
        factor = small.shape[-1] // semantic.shape[-1]
        meaning = self.align(semantic)
        meaning = upsample(meaning, factor) if factor > 1 else meaning
        own, other = to_tokens(small), to_tokens(meaning)
        # Modality asks semantics, semantics ask the modality: the two directions of the publication.
        answers = torch.cat([self.from_semantic(own, other), self.from_modality(other, own)], -1)
        answer = to_map(self.norm(self.project(answers)), small)
        return features + (upsample(answer, self.pool) if self.pool > 1 else answer)


class FusionNet(nn.Module):
    """From two modalities' features to a fused brightness, with semantics joining at two depths."""

    def __init__(self, semantic: int, pool: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(DenseBlock(DETAIL) for _ in range(2))
        self.meet = nn.ModuleList(InteractiveAttention(DETAIL, semantic, pool) for _ in range(2))
        self.mix = nn.Conv2d(2 * DETAIL, DETAIL, 3, padding=1)
        self.brightness = nn.Conv2d(DETAIL, 1, 3, padding=1)

    def forward(self, details: list[Tensor], semantic: Tensor) -> Tensor:
        """Change of the logit of the fused brightness, (N, 1, h, w)."""
        for dense, meet in zip(self.dense, self.meet, strict=True):
            details = [meet(dense(x), semantic) for x in details]
        change: Tensor = self.brightness(F.relu(self.mix(torch.cat(details, dim=1))))
        return change


class SegMiF(FusionModel):
    """Fused picture and segmentation of RGB and one further modality.

    Args:
        inputs, tasks: see `FusionModel`; rgb and one other.
        pretrained: start the segmentation network from ImageNet weights.
        width: channel multiplier of the segmentation network.
        decoder_width: channels of its decoder.
        edge: fuse at half resolution, with the attention at an eighth of the image's.
    """

    card = ModelCard(
        kind="image fusion and segmentation",
        source="Liu et al.: SegMiF, ICCV 2023",
        fewest=2,
        most=2,
        repeats=False,
        needs=("rgb",),
        reference=("rgb", "thermal"),
        published_result="mIoU +7.66 % over the best before, FMB and others, RGB-T",
    )
    feature_names = ("detail", "luma", "chroma")
    head_parts = (SEGMENTATION.name,)

    def build(self, width: float = 1.0, decoder_width: int = 96, edge: bool = False) -> None:
        self.shrink = 2 if edge else 1
        self.encoders = nn.ModuleDict(
            {e: nn.Conv2d(n, DETAIL, 3, self.shrink, 1) for e, n in self.encoder_channels.items()}
        )
        self.backbone = LitePyramid(3, width, SCALES, pretrained=self.pretrained)
        self.fusion = FusionNet(self.backbone.channels[4], pool=4 if edge else 1)
        self.segmentation = SegmentationHead(
            self.backbone.channels, self.classes_of(SEGMENTATION.name), decoder_width
        )
        # Slow averages of both tasks' losses, and their last change: what the task weight follows.
        self.register_buffer("slow", torch.ones(2))
        self.register_buffer("rates", torch.ones(2))

    def encode(self, modality: str, image: Tensor) -> Features:
        """Shallow features `detail`; brightness and colour of the modality as a picture."""
        luma, chroma = picture_of(self.kinds[modality], image)
        return {
            "detail": F.relu(self.encoders[self.encoder_of[modality]](image)),
            "luma": luma,
            "chroma": chroma,
        }

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; an absent modality's features are zero and it adds no brightness."""
        details = gather(self.modalities, features, present, "detail").maps
        lumas = gather(self.modalities, features, present, "luma")
        chroma = torch.stack(gather(self.modalities, features, present, "chroma").maps).sum(0)
        count = torch.stack([gate.to(chroma.dtype) for gate in lumas.gates]).sum(0).clamp(min=1)
        mean = torch.stack(lumas.maps).sum(0) / count
        semantic = self.backbone(to_rgb(mean, chroma))[4]
        change = self.fusion(details, self._at_quarter(semantic))
        change = upsample(change, self.shrink) if self.shrink > 1 else change
        fused = torch.sigmoid(torch.logit(mean.float(), 1e-3).to(change.dtype) + change)
        output = ModelOutput(
            {
                SEGMENTATION.name: self.segmentation(self.backbone(to_rgb(fused, chroma))),
                PICTURES.name: {"fused": to_unit_rgb(fused, chroma)},
            }
        )
        if self.training:
            output.taps = {"fused": fused, "brightest": torch.stack(lumas.maps).amax(0)}
        return output

    def _at_quarter(self, semantic: Tensor) -> Tensor:
        """The semantic map at a resolution that divides the attention's."""
        return F.avg_pool2d(semantic, 2) if self.shrink > 1 else semantic

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """The fusion loss, weighted by how slowly it falls compared with the segmentation loss."""
        fused, brightest = output.taps["fused"].float(), output.taps["brightest"].float()
        intensity = (fused - brightest).abs().mean()
        fusion = intensity + sum((a - b).abs().mean() for a, b in _edges(fused, brightest))
        losses = None
        if (labels := truths.get(SEGMENTATION.name)) is not None:
            logits = output.values[SEGMENTATION.name].detach()
            semantic = auxiliary_segmentation_loss(logits, labels)
            losses = torch.stack([semantic, fusion.detach()])
        return {"fusion": self._task_weight(losses) * fusion}

    @torch.no_grad()
    def _task_weight(self, losses: Tensor | None) -> Tensor:
        """Weight of fusion over that of segmentation: the task whose loss falls slower gets more.

        Without losses, of a batch that has no labels, it stays what it was.
        """
        slow, rates = self.slow, self.rates
        assert isinstance(slow, Tensor) and isinstance(rates, Tensor)
        if losses is not None:
            rates.lerp_((losses / slow.clamp(min=1e-6)).clamp(0.1, 10), 0.1)
            slow.lerp_(losses, 0.02)
        weights = torch.softmax(rates, dim=0)
        return weights[1] / weights[0]


def _edges(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Horizontal and vertical differences of both pictures."""
    return [
        (a[..., 1:] - a[..., :-1], b[..., 1:] - b[..., :-1]),
        (a[..., 1:, :] - a[..., :-1, :], b[..., 1:, :] - b[..., :-1, :]),
    ]

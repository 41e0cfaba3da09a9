"""FeatEnHancer: a learned enhancement of dark images in front of an encoder.

Hashmi et al., "FeatEnHancer: Enhancing Hierarchical Features for Object Detection and Beyond Under
Low-Light Vision", ICCV 2023.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.models.anyfuse import AnyFuse
from perception.models.interface import FusionModel, ModelCard
from perception.models.layers import upsample

SOURCE = "Hashmi et al.: FeatEnHancer, ICCV 2023"
INNER, OUTER, HEADS, CURVES = 32, 24, 8, 8


class IntraScale(nn.Module):
    """Seven 3x3 convolutions with symmetric skips; the same weights serve every scale."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        sizes = [(inputs, INNER), *[(INNER, INNER)] * 3, *[(2 * INNER, INNER)] * 2]
        sizes.append((2 * INNER, OUTER))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in sizes)

    def forward(self, x: Tensor) -> Tensor:
        down = []
        for conv in self.convs[:4]:
            x = F.relu(conv(x))
            down.append(x)
        for conv, skip in zip(self.convs[4:6], down[2:0:-1], strict=True):
            x = F.relu(conv(torch.cat([skip, x], dim=1)))
        return F.relu(self.convs[6](torch.cat([down[0], x], dim=1)))


class ScaleAttention(nn.Module):
    """Weighs the fine scale against the coarse one, head by head, where each pixel asks the coarse."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(channels, channels, 7, 4, 3), nn.Conv2d(channels, channels, 3, 2, 1)
        )
        self.coarse = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(N, C, H, W) from maps of sizes H and H/4."""
        pair = torch.stack([self.fine(fine), self.coarse(coarse)], dim=1)
        n, _, channels, height, width = pair.shape
        heads = pair.reshape(n, 2, HEADS, channels // HEADS, height, width)
        match = (heads * heads[:, 1:]).sum(3, keepdim=True) / (channels / HEADS) ** 0.5
        mixed = (heads * match.softmax(dim=1)).sum(1).reshape(n, channels, height, width)
        return fine + upsample(mixed, 8)


class FeatEnHancer(nn.Module):
    """Three scales, attention between two of them, a skip from the third, eight additive curves.

    Args:
        inputs: channels of the image.
        half: work at half the resolution and add the upsampled enhancement, at about a quarter of the
            cost.
    """

    def __init__(self, inputs: int = 3, *, half: bool = False) -> None:
        super().__init__()
        self.inputs, self.shrink = inputs, 2 if half else 1
        self.quarter = nn.Conv2d(inputs, inputs, 7, 4, 3)
        self.eighth = nn.Conv2d(inputs, inputs, 3, 2, 1)
        self.intra = IntraScale(inputs)
        self.attention = ScaleAttention(OUTER)
        self.join = nn.Conv2d(2 * OUTER, INNER, 3, padding=1)
        self.curves = nn.Conv2d(INNER, inputs * CURVES, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """The enhanced image, (N, inputs, H, W), H and W multiples of 16."""
        x = F.avg_pool2d(image, 2) if self.shrink > 1 else image
        quarter = self.quarter(x)
        eighth = self.eighth(quarter)
        fine, middle, coarse = (self.intra(scale) for scale in (x, quarter, eighth))
        joined = torch.cat([self.attention(fine, middle), upsample(coarse, 8)], dim=1)
        curves = torch.tanh(self.curves(self.join(joined)))
        change = torch.stack(curves.chunk(CURVES, dim=1)).sum(0)
        return image + (upsample(change) if self.shrink > 1 else change)


class EnhancedEncoder(nn.Module):
    """An encoder behind the enhancement."""

    def __init__(self, enhance: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.enhance, self.encoder = enhance, encoder

    def forward(self, image: Tensor) -> object:
        return self.encoder(self.enhance(image))


def enhance_rgb(model: FusionModel, *, half: bool = False) -> None:
    """Put the enhancement in front of every RGB encoder of any model, in place."""
    for name in {e: m for m, e in model.encoder_of.items() if model.kinds[m] == "rgb"}:
        model.encoders[name] = EnhancedEncoder(FeatEnHancer(3, half=half), model.encoders[name])


class EnhancedAnyFuse(AnyFuse):
    """AnyFuse whose RGB encoder sees the enhanced image.

    Args:
        inputs, tasks, pretrained, options: see `AnyFuse`; rgb
            must be among the modalities.
        half: see `FeatEnHancer`.
    """

    card = ModelCard(
        kind="low-light enhancement, gated fusion",
        source=SOURCE,
        tasks=None,
        needs=("rgb",),
        reference=("rgb", "thermal"),
        published_result="mAP +5.7 over the best before, ExDark, RGB",
    )

    def build(self, *args: Any, half: bool = True, **options: Any) -> None:
        super().build(*args, **options)
        enhance_rgb(self, half=half)

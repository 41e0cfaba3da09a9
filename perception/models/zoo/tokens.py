"""Shared-token transformers: a tokenizer per modality, one transformer for all of them.

The representative of Zhang et al., "Meta-Transformer: A Unified Framework for Multimodal Learning",
2023, and Mizrahi et al., "4M: Massively Multimodal Masked Modeling", NeurIPS 2023: every modality becomes
tokens of one width, and one encoder, frozen or fine-tuned, works on them whatever they came from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception.errors import ConfigError, names_hint
from perception.models.interface import (
    Features,
    FusionModel,
    ModelCard,
    ModelOutput,
    Present,
    gather,
)
from perception.models.layers import ConvBNReLU, SeparableBlock, upsample
from perception.models.zoo.attention import TransformerBlock, to_map, to_tokens
from perception.tasks.segmentation import SEGMENTATION

PATCH = 16
SIZES: dict[str, tuple[int, int, int]] = {
    "micro": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
"""Width, depth and heads; tiny, small and base are those of the Vision Transformer."""


def position_map(channels: int, height: int, width: int, like: Tensor) -> Tensor:
    """Sine and cosine of the row and the column, (1, channels, height, width)."""
    quarter = channels // 4
    rates = 10000.0 ** (-torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter)
    parts = []
    for size, axis in ((height, 2), (width, 3)):
        places = torch.arange(size, device=like.device, dtype=torch.float32)
        angles = rates[:, None] * places[None]
        waves = torch.cat([angles.sin(), angles.cos()])
        shape = [1, 2 * quarter, 1, 1]
        shape[axis] = size
        parts.append(waves.reshape(shape).expand(1, -1, height, width))
    return torch.cat(parts, dim=1).to(like.dtype)


class Tokenizer(nn.Module):
    """Patches of 16 pixels to tokens that carry their place and their modality."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, channels, PATCH, PATCH)
        self.modality = nn.Parameter(torch.zeros(1, channels, 1, 1))
        nn.init.normal_(self.modality, std=0.02)

    def forward(self, image: Tensor) -> Features:
        x = self.project(image)
        place = position_map(x.shape[1], x.shape[2], x.shape[3], x)
        return {"tokens": x + place + self.modality}


class Transformer(nn.Module):
    """Blocks over all tokens and a few global ones, and a last normalization."""

    def __init__(self, channels: int, depth: int, heads: int, registers: int = 1) -> None:
        super().__init__()
        self.registers = nn.Parameter(torch.zeros(1, registers, channels))
        nn.init.normal_(self.registers, std=0.02)
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """(N, L, C) of (N, L, C); `present` (N or 1, L) bool takes tokens out of every attention."""
        count = self.registers.shape[1]
        tokens = torch.cat([self.registers.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        mask = None
        if present is not None:
            always = torch.ones_like(present[:, :1]).expand(-1, count)
            mask = torch.cat([always, present], dim=1)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, mask)
        normed: Tensor = self.norm(tokens)[:, count:]
        return normed


class TokenDecoder(nn.Module):
    """From a map at stride 16 to logits at stride 4."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.enter = ConvBNReLU(channels, width)
        self.refine8, self.refine4 = SeparableBlock(width), SeparableBlock(width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.refine8(upsample(self.enter(x)))
        logits: Tensor = self.classify(self.refine4(upsample(x)))
        return logits


class SharedTokens(FusionModel):
    """One transformer over the tokens of whatever modalities there are.

    Args:
        inputs, tasks: see `FusionModel`.
        pretrained: must be False; start from an `anysense pretrain` run with `model.start_from`.
        size: a key of `SIZES`.
        decoder_width: channels of the decoder.
    """

    card = ModelCard(
        kind="shared-token transformer",
        source="after Zhang et al.: Meta-Transformer, 2023; Mizrahi et al.: 4M, NeurIPS 2023",
        published_weights=False,
    )
    feature_names = ("tokens",)
    shared_part = "transformer"

    def build(self, size: str = "tiny", decoder_width: int = 96) -> None:
        if size not in SIZES:
            raise ConfigError(
                f"unknown size '{size}'", where="model.options.size", hint=names_hint(size, SIZES)
            )
        channels, depth, heads = SIZES[size]
        self.encoders = nn.ModuleDict(
            {e: Tokenizer(n, channels) for e, n in self.encoder_channels.items()}
        )
        self.transformer = Transformer(channels, depth, heads)
        self.decoder = TokenDecoder(channels, self.classes_of(SEGMENTATION.name), decoder_width)

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; tokens of absent modalities get no weight in any attention."""
        got = gather(self.modalities, features, present, "tokens")
        each = got.maps[0].shape[2] * got.maps[0].shape[3]
        if present is None:
            # Without gates there is nothing to hide: only the tokens that are there, and no mask.
            shown = [features[m]["tokens"] for m in self.modalities if m in features]
            tokens = self.transformer(torch.cat([to_tokens(x) for x in shown], dim=1))
            parts = [to_map(t, shown[0]) for t in tokens.split(each, dim=1)]
            mixed = torch.stack(parts).mean(0)
        else:
            gates = [g.reshape(g.shape[0], 1).expand(-1, each) for g in got.gates]
            rows = max(g.shape[0] for g in gates)
            mask = torch.cat([g.expand(rows, -1) for g in gates], dim=1)
            tokens = self.transformer(torch.cat([to_tokens(x) for x in got.maps], dim=1), mask)
            parts = [
                torch.where(g, to_map(t, got.maps[0]), 0.0)
                for g, t in zip(got.gates, tokens.split(each, dim=1), strict=True)
            ]
            count = torch.stack([g.to(parts[0].dtype) for g in got.gates]).sum(0)
            mixed = torch.stack(parts).sum(0) / count.clamp(min=1)
        return ModelOutput({SEGMENTATION.name: self.decoder(mixed)})

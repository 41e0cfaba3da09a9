"""AnyFuse with one further block at the end of each encoder, to compare such blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from perception.models.anyfuse import AnyFuse, Maps, ModalityEncoder
from perception.models.interface import ModelCard
from perception.models.zoo.encoder_blocks import make_block


class BlockedEncoder(nn.Module):
    """An AnyFuse encoder whose stride-16 features go through a block."""

    def __init__(self, encoder: ModalityEncoder, kind: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.block = make_block(kind, encoder.channels[16])

    def forward(self, image: object) -> Maps:
        maps: Maps = self.encoder(image)
        features = self.block(maps[16][0])
        maps[16] = (features, self.encoder.score["16"](features))
        return maps


class BlockedAnyFuse(AnyFuse):
    """AnyFuse with a block of `perception.models.zoo.encoder_blocks` in every encoder.

    Args:
        inputs, tasks, pretrained, options: see `AnyFuse`.
        block: `none`, `lka`, `hilo`, `ulsam` or `glmix`.
    """

    card = ModelCard(
        kind="gated softmax fusion, encoder block",
        source="VAN, LITv2 (HiLo), ULSAM, GLMix: see the page",
        tasks=None,
    )

    def build(self, *args: Any, block: str = "lka", **options: Any) -> None:
        super().build(*args, **options)
        for encoder in self.encoder_channels:
            self.encoders[encoder] = BlockedEncoder(self._encoder(encoder), block)

"""Recurrent mixing: modalities are mixed one after the other, each completed by the others first.

After Lee et al., "Modality Mixer for Multi-modal Action Recognition", WACV 2023 (M-Mixer): its
contextualization unit carries a state and takes in, at each step, one modality together with what the
others know and it does not.  There it runs over time; here, over the modalities of one frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception.models.efficientnet_lite import SCALES
from perception.models.heads import Pyramid
from perception.models.interface import Features, ModelCard, ModelOutput, Present, gather
from perception.models.zoo.backbone import PyramidModel


class ContextUnit(nn.Module):
    """Gated update of a state by a modality and its complement, with 1x1 convolutions.

    The complement is what a gate lets through of the mean of the other modalities.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.complement = nn.Conv2d(2 * channels, channels, 1)
        self.gates = nn.Conv2d(3 * channels, 2 * channels, 1)
        self.candidate = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, state: Tensor, own: Tensor, others: Tensor) -> Tensor:
        """The next state; all (N, C, h, w)."""
        missing = torch.sigmoid(self.complement(torch.cat([own, others], dim=1))) * others
        update, reset = torch.sigmoid(self.gates(torch.cat([state, own, missing], dim=1))).chunk(
            2, dim=1
        )
        new = torch.tanh(self.candidate(torch.cat([reset * state, own, missing], dim=1)))
        return state + update * (new - state)


class RecurrentMix(nn.Module):
    """The states' last value over all modalities present, at one scale; one unit for all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit = ContextUnit(channels)
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: list[Tensor], gates: list[Tensor]) -> Tensor:
        """Fuse (N, C, h, w) maps that are zero where their gate is False."""
        counts = [g.to(maps[0].dtype) for g in gates]
        together, number = torch.stack(maps).sum(0), torch.stack(counts).sum(0)
        state = together / number.clamp(min=1)
        for own, gate, count in zip(maps, gates, counts, strict=True):
            others = (together - own) / (number - count).clamp(min=1)
            state = torch.where(gate, self.unit(state, own, others), state)
        # The mean stays beside the bounded state, so that strong features are not flattened.
        mixed: Tensor = together / number.clamp(min=1) + self.leave(state)
        return mixed


class RecurrentMixer(PyramidModel):
    """EfficientNet-Lite encoders, recurrent mixing at every scale, the usual heads.

    Args:
        inputs, tasks: see `FusionModel`.
        pretrained: start the encoders from ImageNet weights.
        width: channel multiplier of the encoders.
        decoder_width: channels of the heads.
    """

    card = ModelCard(
        kind="recurrent mixing",
        source="after Lee et al.: Modality Mixer, WACV 2023",
        tasks=None,
    )
    shared_part = "mix"

    def build(self, width: float = 1.0, decoder_width: int = 96) -> None:
        channels = self.add_encoders(width)
        self.mix = nn.ModuleDict({str(s): RecurrentMix(c) for s, c in channels.items()})
        self.add_heads(self.tasks, channels, decoder_width)

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; an absent modality leaves the state alone and completes nobody."""
        pyramid: Pyramid = {}
        for s in SCALES:
            got = gather(self.modalities, features, present, f"f{s}")
            pyramid[s] = self.mix[str(s)](got.maps, got.gates)
        return ModelOutput(self.answers(pyramid))

"""MultiModN: modalities change a shared state one after the other, and every state can be read.

Swamy et al., "MultiModN - Multimodal, Multi-Task, Interpretable Modular Networks", NeurIPS 2023.
The publication's state is a vector; for dense prediction it is a pyramid of maps here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from perception.models.efficientnet_lite import SCALES
from perception.models.heads import Pyramid
from perception.models.interface import Features, ModelCard, ModelOutput, Present
from perception.models.supervision import auxiliary_segmentation_loss
from perception.models.zoo.backbone import PyramidModel
from perception.models.zoo.blocks import ConvNorm
from perception.tasks.segmentation import SEGMENTATION


class StateUpdate(nn.Module):
    """The next state from the present one and a modality's features, at one scale."""

    def __init__(self, features: int, state: int) -> None:
        super().__init__()
        self.project = ConvNorm(features, state)
        self.mix = nn.Sequential(ConvNorm(2 * state, state), ConvNorm(state, state, 3))

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        new: Tensor = self.mix(torch.cat([state, self.project(features)], dim=1))
        return new


class MultiModN(PyramidModel):
    """Sequential fusion.

    Args:
        inputs, tasks: see `FusionModel`.
        pretrained: start the encoders from ImageNet weights.
        width: channel multiplier of the encoders.
        state: channels of the state at every scale.
        decoder_width: channels of the heads.
        state_change: weight of the penalty on the change of the state in one step.
    """

    card = ModelCard(
        kind="sequential state",
        source="Swamy et al.: MultiModN, NeurIPS 2023",
        tasks=None,
    )
    shared_part = "updates"

    def build(
        self,
        width: float = 1.0,
        state: int = 48,
        decoder_width: int = 96,
        state_change: float = 0.01,
    ) -> None:
        self.state_change = state_change
        channels = self.add_encoders(width)
        self.first = nn.ParameterDict(
            {str(s): nn.Parameter(torch.zeros(1, state, 1, 1)) for s in SCALES}
        )
        self.updates = nn.ModuleDict(
            {
                m: nn.ModuleDict({str(s): StateUpdate(c, state) for s, c in channels.items()})
                for m in self.modalities
            }
        )
        self.add_heads(self.tasks, dict.fromkeys(SCALES, state), decoder_width)

    def fuse(self, features: Mapping[str, Features], present: Present = None) -> ModelOutput:
        """See `FusionModel`; an absent modality leaves the state as it is."""
        states = self.states(features, present)
        output = ModelOutput(self.answers(states[-1]))
        if self.training:
            for step, state in enumerate(states[1:-1]):
                if SEGMENTATION.name in self.tasks:
                    output.taps[f"step{step}"] = self.head_of(SEGMENTATION.name)(state)
            changes = [
                (b[s] - a[s]).float().square().mean() for a, b in pairwise(states) for s in SCALES
            ]
            output.taps["change"] = torch.stack(changes).mean()
        return output

    def states(self, features: Mapping[str, Features], present: Present = None) -> list[Pyramid]:
        """The first state and the one after each modality in `features`, by stride."""
        sample = next(iter(features.values()))
        state: Pyramid = {
            s: self.first[str(s)].expand(x.shape[0], -1, *x.shape[-2:])
            for s, x in ((s, sample[f"f{s}"]) for s in SCALES)
        }
        states = [state]
        for modality in self.modalities:
            if modality not in features:
                continue
            updates = self.updates[modality]
            assert isinstance(updates, nn.ModuleDict)
            new: Pyramid = {}
            for s in SCALES:
                changed = updates[str(s)](state[s], features[modality][f"f{s}"])
                if present is not None:
                    changed = torch.where(present[modality], changed, state[s])
                new[s] = changed
            state = new
            states.append(state)
        return states

    def losses(self, output: ModelOutput, truths: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of the steps before the last, weighted like it, and of the state's change."""
        terms = {"state_change": self.state_change * output.taps["change"]}
        steps = [v for k, v in output.taps.items() if k.startswith("step")]
        labels = truths.get(SEGMENTATION.name)
        if labels is not None and steps:
            each = [auxiliary_segmentation_loss(logits, labels) for logits in steps]
            terms["steps"] = torch.stack(each).mean()
        return terms

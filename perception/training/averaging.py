"""The moving average of a model's weights, which is what is judged and exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's state, with a short warm-up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present state."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                averages.append(self.state[key])
                values.append(value.detach())
            else:
                self.state[key].copy_(value)
        if averages:  # at once: on a GPU several hundred launches otherwise
            torch._foreach_lerp_(averages, values, 1 - decay)

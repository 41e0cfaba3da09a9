"""Training of a super-network by the sandwich rule.

Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019: every step
trains the largest network on the truth, and the smallest and some random ones on what the largest says.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from perception.errors import ConfigError
from perception.models.anyfuse import AnyFuse
from perception.models.elastic import Architecture, ElasticSpace, blank, sliced, sort_channels
from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.training.dataset import Batch
from perception.training.distributed import here
from perception.training.methods.base import TrainingMethod
from perception.training.objectives import Tensors
from perception.training.precision import autocast


class Sandwich(TrainingMethod):
    """Train all sub-networks of an AnyFuse together.

    Logged: `sandwich/smallest` and `sandwich/drawn`, how far these are from the largest.

    Args:
        model: the super-network.
        drawn: random sub-networks per step, besides the smallest.
        weight: of each sub-network's distance from the largest.
    """

    divides = True

    def __init__(self, model: FusionModel, drawn: int = 1, weight: float = 1.0) -> None:
        super().__init__(model)
        if drawn < 0 or weight <= 0:
            raise ConfigError("drawn must not be negative, weight positive", where="method.options")
        self.space = ElasticSpace(model)
        self.drawn, self.weight = drawn, weight

    def begin(self) -> None:
        """Sort the channels, so that narrow blocks start with the important ones."""
        sort_channels(self.model)

    def backward(
        self, terms: Tensors, inputs: Tensors, output: ModelOutput, batch: Batch
    ) -> Tensor:
        """Gradients of the largest, the smallest and the drawn networks, summed."""
        loss = super().backward(terms, inputs, output, batch)
        chosen = [("smallest", self.space.smallest())]
        chosen += [("drawn", self.space.draw()) for _ in range(self.drawn)]
        for name, architecture in chosen:
            # One at a time, so that memory holds the graph of one network only.
            answer = here().whole(self.run(architecture, inputs), batch.frames)
            gap = distance(answer, output)
            (self.weight * gap).backward()  # type: ignore[no-untyped-call]
            self.log(f"sandwich/{name}", float(gap.detach()))
        return loss

    def run(self, architecture: Architecture, inputs: dict[str, Tensor]) -> ModelOutput:
        """Outputs of a sub-network, whose gradients go to the super-network.

        The statistics that it gathers in passing are thrown away: they belong to it alone.
        """
        assert isinstance(self.model, AnyFuse)
        small = blank(self.model, architecture).train(self.model.training)
        tensors: dict[str, Tensor] = dict(self.model.named_parameters())
        tensors |= {k: v.clone() for k, v in self.model.named_buffers()}
        device = next(iter(inputs.values())).device
        with autocast(device, self.precision):
            output: ModelOutput = functional_call(small, sliced(tensors, small), (inputs,))
        return output


def distance(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """How far one network's outputs are from another's, which are taken as they are."""
    gaps = [half_of(t).distance(v, teacher.values[t]) for t, v in student.values.items()]
    return torch.stack(gaps).sum()

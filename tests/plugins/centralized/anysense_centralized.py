"""Gradient centralization: the gradient of every filter is brought to zero mean.

Yong, Huang, Hua and Zhang, "Gradient Centralization: A New Optimization Technique for Deep Neural
Networks", ECCV 2020.
"""

from __future__ import annotations

from torch import Tensor

from perception.models.interface import FusionModel, ModelOutput
from perception.training.dataset import Batch
from perception.training.methods.base import TrainingMethod
from perception.training.objectives import Tensors


class GradientCentralization(TrainingMethod):
    """Plain training, but for the gradients of convolutions, and of matrices where `matrices` is set."""

    def __init__(self, model: FusionModel, matrices: bool = False) -> None:
        super().__init__(model)
        self.least_axes = 2 if matrices else 4

    def backward(
        self, terms: Tensors, inputs: Tensors, output: ModelOutput, batch: Batch
    ) -> Tensor:
        loss = super().backward(terms, inputs, output, batch)
        shares = []
        for parameter in self.model.parameters():
            gradient = parameter.grad
            if gradient is None or gradient.ndim < self.least_axes:
                continue
            before = float(gradient.norm())
            axes = tuple(range(1, gradient.ndim))
            gradient -= gradient.mean(axes, keepdim=True)
            shares.append(1 - float(gradient.norm()) / before if before else 0.0)
        self.log("centralized", sum(shares) / max(1, len(shares)))
        return loss

"""What the methods that change gradients share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from perception.models.interface import FusionModel
from perception.training.distributed import here


def scale_encoder_gradients(model: FusionModel, factors: Mapping[str, float]) -> None:
    """Multiply the gradients of each modality's encoder by its factor.

    A parameter that several encoders share is multiplied by the mean of their factors.
    """
    owners: dict[int, list[float]] = defaultdict(list)
    parameters: dict[int, nn.Parameter] = {}
    for modality, factor in factors.items():
        for parameter in model.encoders[model.encoder_of[modality]].parameters():
            owners[id(parameter)].append(factor)
            parameters[id(parameter)] = parameter
    for key, shares in owners.items():
        gradient = parameters[key].grad
        if gradient is not None:
            gradient.mul_(sum(shares) / len(shares))


def gradient_norm(parameters: Iterator[nn.Parameter]) -> float:
    """Euclidean norm of the gradients, their mean over the ranks; 0 where there are none."""
    squares = [g.square().sum() for g in _mean([p.grad for p in parameters if p.grad is not None])]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _mean(gradients: list[Tensor]) -> list[Tensor]:
    """The mean over the ranks of what each of them has."""
    means = [gradient.float() for gradient in gradients]
    if here().several:
        means = [mean.clone() for mean in means]
        here().mean(means)
    return means


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, forward passes in training mode leave normalizations' running statistics alone."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def last_weights(model: nn.Module, part: str) -> nn.Parameter:
    """The last weight matrix or kernel of the submodule `part`."""
    found = [p for p in model.get_submodule(part).parameters() if p.ndim > 1]
    return found[-1]


def norm_of(gradient: Tensor | None) -> float:
    """Euclidean norm of one gradient, its mean over the ranks; 0 for none."""
    return 0.0 if gradient is None else float(_mean([gradient])[0].norm())

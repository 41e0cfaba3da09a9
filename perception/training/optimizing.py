"""What the optimizer is given: groups of parameters, the learning rate of a step, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perception.models.interface import FusionModel
from perception.training.config import OptimizerSpec, TrainConfig


def optimizer_groups(model: FusionModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by how fast they learn, and whether they decay."""
    spec = config.optimizer
    backbone = model.parameter_groups()["backbone"]
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        pretrained = config.model.pretrained and name in backbone
        groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_factor": spec.encoder_lr_factor if pretrained else 1.0,
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (pretrained, decays), parameters in sorted(groups.items())
    ]


def learning_rate(spec: OptimizerSpec, epoch: float, epochs: int | None) -> float:
    """Linear warm-up, then polynomial decay.

    Args:
        spec: says how.
        epoch: epochs so far, with the share of the present one.
        epochs: of the whole run; None where that is not known yet, for no decay.
    """
    warm = min(1.0, (epoch + 1e-3) / spec.warmup_epochs) if spec.warmup_epochs else 1.0
    done = 0.0 if epochs is None else epoch / epochs
    return spec.lr * warm * max(0.0, 1 - done) ** spec.power


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradients of all parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def statistics_of(model: nn.Module) -> list[Tensor]:
    """The running statistics of normalizations that gather them now, each process from its own frames."""
    found: list[Tensor] = []
    for module in model.modules():
        own = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        if own and not isinstance(module, nn.SyncBatchNorm):
            both = module.running_mean, module.running_var
            found += [buffer for buffer in both if isinstance(buffer, Tensor)]
    return found


class GradientSum:
    """The gradients of the parts of a batch, which are computed one after the other.

    Each part has its own while a method looks at them.

    Args:
        model: whose parameters they are of.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())
        self._sums: dict[int, Tensor] = {}

    def add(self) -> None:
        """Take what the last part left in the parameters."""
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                before = self._sums.get(place)
                self._sums[place] = (
                    parameter.grad if before is None else before.add_(parameter.grad)
                )

    @torch.no_grad()
    def give(self, parts: int) -> None:
        """Leave the mean over so many parts in the parameters."""
        for place, parameter in enumerate(self._parameters):
            gradient = self._sums.get(place)
            parameter.grad = None if gradient is None else gradient.div_(parts)

"""What the optimizer is given: groups of parameters, and the learning rate of a step."""

from __future__ import annotations

from typing import Any

from torch import nn

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

"""What differs from step to step and phase to phase: drawn subsets, normalizations, the average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from perception.frame import subset_name, subsets_of
from perception.training.config import TrainConfig


def draw_subset(
    rng: np.random.Generator, available: Sequence[str], config: TrainConfig
) -> tuple[str, ...]:
    """The inputs that a batch is learned from.

    Args:
        rng: of the epoch.
        available: the inputs that the batch has.
        config: says how often each subset is drawn; where a batch lacks some of them, the shares of the
            others stay in proportion.
    """
    subsets = subsets_of(available)
    if len(subsets) == 1:
        return subsets[0]
    if config.subsets.probability:
        shares = np.array([_share(subset_name(s), config) for s in subsets])
        if not shares.any():
            return subsets[0]
        return subsets[int(rng.choice(len(subsets), p=shares / shares.sum()))]
    if rng.random() < config.full_set_probability:
        return subsets[0]
    return subsets[1 + int(rng.integers(len(subsets) - 1))]


def _share(subset: str, config: TrainConfig) -> float:
    given = config.subsets.probability
    if subset in given:
        return given[subset]
    others = len(subsets_of(config.preprocess.modalities)) - len(given)
    return max(0.0, 1 - sum(given.values())) / max(1, others)


def keep_statistics(model: nn.Module) -> None:
    """Let all normalizations use the statistics that they have and gather no new ones.

    Call it after `model.train()`; scales and shifts still learn.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def average_decay(config: TrainConfig, steps_per_epoch: int) -> float:
    """How much of the weights' moving average stays at each step."""
    spec = config.optimizer
    if spec.ema_share is None:
        return spec.ema_decay
    return 1 - 1 / max(1.0, spec.ema_share * config.epochs * steps_per_epoch)

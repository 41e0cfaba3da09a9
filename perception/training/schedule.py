"""What differs from step to step and phase to phase: drawn subsets, normalizations, the average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from perception.frame import subset_name, subsets_of
from perception.training.config import TrainConfig


def draw_subset(
    rng: np.random.Generator,
    available: Sequence[str],
    config: TrainConfig,
    gaps: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """The inputs that a batch is learned from.

    Args:
        rng: of the epoch.
        available: the inputs that the batch has.
        config: says how often each subset is drawn; where a batch lacks some of them, the shares of the
            others stay in proportion.
        gaps: of `measured_gaps`, where there are some.
    """
    subsets = subsets_of(available)
    if len(subsets) == 1:
        return subsets[0]
    if config.subsets.probability or gaps:
        names = [subset_name(s) for s in subsets]
        shares = np.array([_share(n, config, n == names[0], len(names)) for n in names])
        if gaps:
            shares *= [1 + config.subsets.by_gap * gaps.get(n, 0.0) for n in names]
        if not shares.any():
            return subsets[0]
        return subsets[int(rng.choice(len(subsets), p=shares / shares.sum()))]
    if rng.random() < config.full_set_probability:
        return subsets[0]
    return subsets[1 + int(rng.integers(len(subsets) - 1))]


def measured_gaps(
    log: Sequence[Mapping[str, float | None]], config: TrainConfig, keys: Sequence[str]
) -> dict[str, float]:
    """By subset, the part of the best subset's score that it lacked when validation last measured it, 0 to 1.

    It follows from the run's log alone, so that a resumed run draws as one that never stopped.

    Args:
        log: rows of the epochs, with scores as `<subset>/<key>`, or `<subset>@<tag>/<key>` where tags are
            judged apart.
        config: asks for them; nothing is measured where it does not.
        keys: of the scores that count, which are 0 to 1, the more the better.

    Returns:
        Nothing as long as nothing was measured; and no subset that could not be judged.
    """
    if not config.subsets.by_gap:
        return {}
    names = [subset_name(s) for s in subsets_of(config.preprocess.modalities)]
    tags = [f"@{tag}" for tag in config.data.judge_by] or [""]
    for row in reversed(log):
        scores: dict[str, float] = {}
        for name in names:
            each = [row.get(f"{name}{tag}/{key}") for tag in tags for key in keys]
            if known := [score for score in each if score is not None]:
                scores[name] = sum(known) / len(known)
        if scores:
            best = max(scores.values())
            return {n: (best - s) / best if best > 0 else 0.0 for n, s in scores.items()}
    return {}


def _share(subset: str, config: TrainConfig, full: bool, count: int) -> float:
    given = config.subsets.probability
    if not given:
        share = config.full_set_probability
        return share if full else (1 - share) / (count - 1)
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

"""Settings that change nothing in a run: accepted, as configurations are made of others, and told of."""

from __future__ import annotations

from collections.abc import Iterator

from perception.models.heads import half_of, trained_tasks
from perception.sensors.registry import kind_of
from perception.training.config import CorruptionSpec, LossSpec, TrainConfig


def without_effect(config: TrainConfig) -> list[str]:
    """What is to be said of settings that differ from their defaults, and that nothing in this run reads."""
    return [f"{setting} changes nothing: {why}" for setting, why in _idle(config)]


def _idle(config: TrainConfig) -> Iterator[tuple[str, str]]:
    if config.subsets.by_gap and config.validate_every >= config.epochs:
        yield "subsets.by_gap", "no gap is measured before the last epoch"
    yield from _idle_losses(config)
    if not any(kind_of(kind).layout == "points" for kind in config.preprocess.kinds.values()):
        for name in ("beam_reduction", "fewer_beams"):
            default = CorruptionSpec.model_fields[name].default
            # Written out without effect, as every saved configuration has it, is no mistake.
            if getattr(config.corruption, name) not in (0, default):
                yield f"corruption.{name}", "no input has beams"


def _idle_losses(config: TrainConfig) -> Iterator[tuple[str, str]]:
    loss = config.loss
    for task in loss.model_extra or {}:
        if task not in config.tasks:
            yield f"loss.{task}", "it is none of the tasks"
    read = {name for task in config.tasks for name in half_of(task).loss_weights}
    for name in sorted({name for task in trained_tasks() for name in half_of(task).loss_weights}):
        if name not in read and getattr(loss, name) not in (0, LossSpec.model_fields[name].default):
            able = " or ".join(t for t in trained_tasks() if name in half_of(t).loss_weights)
            yield f"loss.{name}", f"it is of {able}"
    if loss.alone and len(config.preprocess.modalities) < 2:
        yield "loss.alone", "there is one input"

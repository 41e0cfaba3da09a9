"""The mean of several runs' weights: one network, as fast as each of them.

Runs that go on from the same weights end in one basin of the loss, and the middle of it is often better than
where any of them stopped: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
improves accuracy without increasing inference time", ICML 2022.  Runs that began apart have nothing in common
to average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.errors import ConfigError
from perception.files.stopping import unstopped
from perception.training.building import describe_recording, recording_info
from perception.training.checkpoint import (
    BEST,
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from perception.training.config import MethodSpec, TrainConfig
from perception.training.loop import Trainer
from perception.training.origins import Origin, origins_in, told


@dataclass(frozen=True)
class Judged:
    """How good some weights are on the validation part of the training data.

    Attributes:
        name: the run, or `average`.
        quality: what training chooses its best epoch by; NaN where nothing can be judged.
        row: scores by `<subset>/<score>`, from 0 to 1; None where there is no truth.
    """

    name: str
    quality: float
    row: dict[str, Any]


AVERAGE = "average"


def average_runs(
    runs: Sequence[Path],
    out: Path,
    device: str = "cpu",
    *,
    command: str = "",
    tell: Callable[[Judged], None] = lambda judged: None,
) -> list[Judged]:
    """Judge each run and the mean of all, and write the mean as a run folder that `export` takes.

    Every run counts alike, with the weights that `export` would take of it.

    Args:
        runs: run folders or checkpoints of one model, trained for the same tasks, inputs and classes.
        out: the new run folder; gets `best.safetensors`.
        device: `cpu`, `cuda` or `auto`.
        command: that made it, for the bundle.
        tell: given each judgement as it is known.

    Returns:
        One for each run, in their order, then that of the average.

    Raises:
        ConfigError: there are fewer than two, or one is not of the model, tasks, inputs or classes of the
            first.
        DataError: a checkpoint is missing or damaged, or the recording cannot be read.
    """
    if len(runs) < 2:
        raise ConfigError("an average is of two runs or more", where=str(runs[0] if runs else out))
    if any(Path(run).resolve() == Path(out).resolve() for run in runs):
        raise ConfigError(
            "is one of the runs: the average needs a folder of its own", where=str(out)
        )
    checkpoints = [load_checkpoint(Path(run)) for run in runs]
    for run, other in zip(runs[1:], checkpoints[1:], strict=True):
        _require_same(checkpoints[0], other, str(runs[0]), str(run))
    config = checkpoints[0].config
    trainer = Trainer(_to_judge(config), out, device)
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        load_weights(trainer.model, checkpoint.ema, str(run))
    found = []
    states = [c.ema for c in checkpoints]
    for name, state in [*zip(map(str, runs), states, strict=True), (AVERAGE, mean_of(states))]:
        trainer.model.load_state_dict(state)
        quality, row, known = trainer.judge()
        found.append(Judged(name, quality, row))
        tell(found[-1])
    progress = {
        "epoch": max(int(c.progress.get("epoch", 0)) for c in checkpoints),
        "best": found[-1].quality,
        **known,
        "recording": describe_recording(recording_info(checkpoints[0].progress)),
        "averaged": [Path(run).name for run in runs],
        "command": command,
        **told(_origins(checkpoints)),
    }
    with unstopped():
        save_checkpoint(trainer.out / BEST, config, trainer.model, state, None, progress)
    return found


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, in its own dtype; counters are the first one's."""
    mean = dict(states[0])
    for key, first in mean.items():
        if first.is_floating_point():
            total = torch.stack([state[key].double() for state in states]).mean(0)
            mean[key] = total.to(first.dtype)
    return mean


def _to_judge(config: TrainConfig) -> TrainConfig:
    """The configuration without what only starts or teaches a training: its weights come from elsewhere."""
    model = config.model.model_copy(update={"start_from": [], "pretrained": False})
    return config.model_copy(update={"model": model, "method": MethodSpec(), "workers": 0})


def _require_same(first: Checkpoint, other: Checkpoint, name: str, where: str) -> None:
    own, theirs = first.config, other.config
    pairs: dict[str, tuple[object, object]] = {
        "model.name": (own.model.name, theirs.model.name),
        "model.options": (own.model.options, theirs.model.options),
        "tasks": (own.tasks, theirs.tasks),
        "preprocess": (own.preprocess, theirs.preprocess),
        "classes": (_classes(first), _classes(other)),
    }
    for what, (one, two) in pairs.items():
        if one != two:
            raise ConfigError(f"its {what} are not those of {name}", where=where)


def _classes(checkpoint: Checkpoint) -> object:
    info = recording_info(checkpoint.progress)
    return info.seg_classes, info.det_classes


def _origins(checkpoints: Sequence[Checkpoint]) -> list[Origin]:
    found = [origin for c in checkpoints for origin in origins_in(c.progress)]
    return list({origin.model_dump_json(): origin for origin in found}.values())

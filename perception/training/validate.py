"""Validation during training: a score for every subset, from the PyTorch model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from perception.errors import ConfigError, names_hint
from perception.frame import subset_name, subsets_of
from perception.models.heads import half_of
from perception.models.interface import FusionModel, ModelOutput
from perception.tasks.spec import TaskSpec
from perception.training.config import TrainConfig
from perception.training.dataset import FusionDataset, collate, network_inputs, on_device
from perception.training.distributed import ALONE, Ranks, here
from perception.training.precision import autocast

T = TypeVar("T")

EVERY = ""
"""Stands for all frames among those of a tag."""


class Judgement:
    """What a validation says of a model.

    Args:
        scores: of `validate_by`.
        keys: the scores that judge, higher is better.
        tags: those by which it is judged; none: by all frames.

    Attributes:
        quality: the mean, by which the best checkpoint is chosen; NaN where nothing can be said.
        row: what is to be logged.
        known: what the checkpoint is to tell.
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, Mapping[str, float]]],
        keys: Collection[str],
        tags: Sequence[str],
    ) -> None:
        # What could not be judged is null in files, not a number.
        plain = {
            tag: {
                name: {k: v if math.isfinite(v) else None for k, v in s.items()}
                for name, s in own.items()
            }
            for tag, own in scores.items()
        }
        judging = [s[k] for tag in tags or (EVERY,) for s in plain[tag].values() for k in keys]
        known = [score for score in judging if score is not None]
        self.quality = float(np.mean(known)) if known else math.nan
        self.row: dict[str, Any] = {
            f"{name}{'@' * bool(tag)}{tag}/{k}": v
            for tag, own in plain.items()
            for name, s in own.items()
            for k, v in s.items()
            if k != "frames"
        }
        apart = {"scores_by_tag": {tag: plain[tag] for tag in tags}} if tags else {}
        self.known: dict[str, Any] = {"scores": plain[EVERY]} | apart


def whole_frame(dataset: FusionDataset, index: int, device: torch.device) -> dict[str, Tensor]:
    """Network inputs (1, C, H, W) of a frame, unaugmented, by name."""
    inputs = collate([(network_inputs(dataset.raw(index), dataset.contract), {})]).inputs
    return on_device(inputs, device, memory_format=torch.channels_last)


@torch.no_grad()
def validate(
    model: FusionModel, dataset: FusionDataset, config: TrainConfig, device: torch.device
) -> dict[str, dict[str, float]]:
    """Scores of every task by subset name, such as `miou`, `ap50` and `ap`.

    Runs at the full resolution of the bundle's grid; `miou` is taken at half of it.  A subset
    is judged on the frames that have all of its sensors and truth: `frames`.  Scores of none are NaN.
    """
    return validate_by(model, dataset, config, device, ())[EVERY]


@torch.no_grad()
def validate_by(
    model: FusionModel,
    dataset: FusionDataset,
    config: TrainConfig,
    device: torch.device,
    tags: Sequence[str],
) -> dict[str, dict[str, dict[str, float]]]:
    """What `validate` gives, of all frames (`EVERY`) and of those that carry each tag.

    Processes that train together look at their share of the frames each, and all count the same.
    """
    model.eval()
    parts = (EVERY, *tags)
    meters = {
        subset: {part: Meters(dataset, model.tasks) for part in parts}
        for subset in subsets_of(config.preprocess.modalities)
    }
    looking = Meters(dataset, model.tasks)
    ranks = here() if looking.divide else ALONE

    def seen(index: int) -> dict[tuple[str, ...], dict[str, Any]]:
        inputs, found = whole_frame(dataset, index, device), {}
        with autocast(device, config.precision):
            features = model.features(inputs) if inputs else {}  # once, for all subsets
        for subset in (s for s in meters if set(s) <= inputs.keys()):
            with autocast(device, config.precision):
                output = model.answer({m: features[m] for m in subset})
            found[subset] = looking.look(index, output)
        return found

    for index, found in _by_all(ranks, len(dataset), seen):
        carried = {EVERY, *dataset.recording.tags(index)}
        for subset, answers in found.items():
            for part in carried & meters[subset].keys():
                meters[subset][part].count(index, answers)
    return {
        part: {subset_name(s): own[part].scores() for s, own in meters.items()} for part in parts
    }


def _by_all(ranks: Ranks, count: int, seen: Callable[[int], T]) -> Iterator[tuple[int, T]]:
    """What is seen in each of `count` frames, in their order, each of them looked at by one rank."""
    own = ((index, seen(index)) for index in ranks.share(count))
    if not ranks.several:
        yield from own
        return
    found = [pair for share in ranks.heard(list(own)) for pair in share]
    yield from sorted(found, key=lambda pair: pair[0])


def require_tags(dataset: FusionDataset, tags: Sequence[str]) -> None:
    """Refuse tags that no frame of validation carries.

    Raises:
        ConfigError: names the tag, and those that there are.
    """
    known = {tag for index in range(len(dataset)) for tag in dataset.recording.tags(index)}
    for tag in tags:
        if tag not in known:
            raise ConfigError(
                f"no validation frame is tagged '{tag[:80]}'",
                where="data.judge_by",
                hint=names_hint(tag, sorted(known)[:20]) if known else "there are no tags",
            )


class Meters:
    """Collects predictions against the truth of one subset.

    Args:
        dataset: holds the truth.
        tasks: what is scored, with the model's specs.
    """

    def __init__(self, dataset: FusionDataset, tasks: Mapping[str, TaskSpec]) -> None:
        self.dataset, self.frames = dataset, 0
        info = dataset.recording.info
        self.meters = {task: half_of(task).validation(spec, info) for task, spec in tasks.items()}

    def add(self, index: int, output: ModelOutput) -> None:
        """Count the output, of a batch of one, for frame `index`."""
        self.count(index, self.look(index, output))

    @property
    def divide(self) -> bool:
        """Whether frames may be looked at by several processes; else each looks at all."""
        return all(meter.divides() for meter in self.meters.values())

    def look(self, index: int, output: ModelOutput) -> dict[str, Any]:
        """By task, what is to be counted of the output, of a batch of one, for frame `index`."""
        truths = self.dataset.raw(index).truths
        known = sorted(self.meters.keys() & truths.keys())
        if not self.divide:
            return {task: output.values[task] for task in known}
        return {
            task: self.meters[task].look(output.values[task], truths[task], self._size)
            for task in known
        }

    def count(self, index: int, seen: Mapping[str, Any]) -> None:
        """Count what `look` gave of frame `index`."""
        truths, divide = self.dataset.raw(index).truths, self.divide
        self.frames += any(half_of(t).has_truth(truths.get(t)) for t in self.meters)
        for task, answer in seen.items():
            meter = self.meters[task]
            take = meter.count if divide else meter.add
            take(answer, truths[task], self._size)

    @property
    def _size(self) -> tuple[int, int]:
        grid = self.dataset.contract.grid
        return grid.height, grid.width

    def scores(self) -> dict[str, float]:
        """`frames`, those with truth, and the scores of each task; NaN where there is no truth."""
        found = {k: v for meter in self.meters.values() for k, v in meter.scores().items()}
        return {"frames": self.frames} | {k: np.nan if v is None else v for k, v in found.items()}

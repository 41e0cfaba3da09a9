"""How frames are loaded: which go into one batch, what is said of gaps, and by how many processes."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from perception.errors import ConfigError
from perception.frame import subset_name
from perception.models.heads import half_of
from perception.training.dataset import FusionDataset

_LONGEST_TMPDIR = 70
"""Bytes of a path in which a socket can be made: 103 (macOS; Linux 107) less `/pymp-*/listener-*`."""


def usable_workers(wanted: int) -> int:
    """How many processes may load frames: `wanted`, or 0 where they could not hand them over.

    They do so through a socket in the folder for temporary files.  Where its path is too long for one,
    every batch would be lost, and the training wait for it for ever.
    """
    folder = tempfile.gettempdir()
    if wanted and len(os.fsencode(folder)) > _LONGEST_TMPDIR:
        warnings.warn(
            f"TMPDIR ({folder}) is too long a path for worker processes: frames are loaded in this "
            f"process, which is slower; set TMPDIR to one of at most {_LONGEST_TMPDIR} bytes",
            stacklevel=2,
        )
        return 0
    return wanted


class SensorBatches(Sampler[list[int]]):
    """Shuffled batches of frames that have the same sensors, so that no step meets a gap.

    Where all frames have the same ones, what does not fill a batch is left for another epoch.  Where
    they differ, it makes a smaller batch, and a frame that is alone of its kind fills one of two with
    itself: a sensor that few frames have would never be learned otherwise.

    Args:
        sensors: of every frame; none may be empty.
        size: frames of a batch.
        generator: of the order.
    """

    def __init__(
        self, sensors: Sequence[tuple[str, ...]], size: int, generator: torch.Generator
    ) -> None:
        self.sensors, self.size, self.generator = sensors, size, generator

    def __len__(self) -> int:
        kinds = [self.sensors.count(kind) for kind in set(self.sensors)]
        if len(kinds) == 1:
            return kinds[0] // self.size
        return sum(-(-count // self.size) for count in kinds)

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[tuple[str, ...], list[int]] = {}
        for index in torch.randperm(len(self.sensors), generator=self.generator).tolist():
            batch = waiting.setdefault(self.sensors[index], [])
            batch.append(index)
            if len(batch) == self.size:
                yield batch
                waiting[self.sensors[index]] = []
        if len(waiting) > 1:
            for batch in filter(None, waiting.values()):
                yield batch if len(batch) > 1 else batch * 2


def sensor_notes(data: FusionDataset, what: str) -> list[str]:
    """Leave out the frames that have no sensor at all; what is to be said of these and of other gaps.

    Args:
        data: read as a whole.
        what: `training` or `validation`.
    """
    total = len(data)
    reasons: dict[str, str] = {}
    for index in range(total):
        for modality, reason in data.raw(index).unusable.items():
            reasons.setdefault(modality, reason)
    counts = {
        m: sum(m in data.modalities(index) for index in range(total))
        for m in data.contract.modalities
    }
    notes = [
        f"{modality} is in {count} of {total} {what} frames"
        + (f" ({reasons[modality]})" if modality in reasons else "")
        for modality, count in counts.items()
        if count < total
    ]
    bare = data.keep(lambda index: bool(data.modalities(index)))
    if bare:
        sensors = subset_name(data.contract.modalities)
        notes.append(f"{bare} {what} frames have nothing of {sensors}: left out")
    return notes


def require_sensors(data: FusionDataset, where: str) -> None:
    """Refuse training frames none of which has one of the contract's sensors.

    Raises:
        ConfigError: names the sensor, and the reason where its samples cannot be used.
    """
    raws = [data.raw(index) for index in range(len(data))]
    for modality in data.contract.modalities:
        if not any(modality in raw.sensors for raw in raws):
            reason = next((r.unusable[modality] for r in raws if modality in r.unusable), "")
            raise ConfigError(
                f"no training frame has {modality}"
                + (f" that can be used: {reason}" if reason else ""),
                where=where,
                hint=f"add it, or take {modality} out of preprocess",
            )


def labeled_frames(data: FusionDataset, task: str, *, to_judge: bool = False) -> int:
    """How many frames have truth of a task.

    Args:
        data: read as a whole.
        task: its name.
        to_judge: count only frames that tell good answers from bad ones.
    """
    half = half_of(task)
    has = half.can_judge if to_judge else half.has_truth
    return sum(has(data.raw(index).truths.get(task)) for index in range(len(data)))


def truth_notes(data: FusionDataset, tasks: Sequence[str], where: str) -> list[str]:
    """What is to be said of the truth of training frames.

    Raises:
        ConfigError: there is nothing to learn a task from.
    """
    counts, others = [], []
    for task in tasks:
        half, count = half_of(task), labeled_frames(data, task)
        needs, why = half.needs
        if not count:
            raise ConfigError(
                f"no training frame has {needs}: {why}",
                where=where,
                hint=f"label some, or take {task} out of tasks",
            )
        if count < len(data):
            counts.append(f"{count} of {len(data)} training frames have {needs}")
        truths = [data.raw(index).truths.get(task) for index in range(len(data))]
        others += half.notes(data.recording.info, truths)
    return counts + others

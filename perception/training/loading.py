"""The stream of training batches: one set of worker processes for all epochs, in an order that seeds fix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from perception.errors import ConfigError
from perception.training.batches import SensorBatches, usable_workers
from perception.training.config import TrainConfig
from perception.training.curriculum import ceiling
from perception.training.dataset import Batch, Draw, FusionDataset, collate
from perception.training.distributed import ALONE, Ranks
from perception.training.sharing import part_size, parts_of, share_of


class EpochBatches(Sampler[list[Draw]]):
    """What goes into each batch of some epochs, one epoch after the other.

    Of a batch that is computed in parts, each part comes by itself; each process gets its share of it.

    Args:
        sensors: of every frame.
        config: gives the seed, and the phase and batch size of an epoch.
        epochs: which.
        skip: batches of the first of them that are left out.
        ranks: that share them.
    """

    def __init__(
        self,
        sensors: Sequence[tuple[str, ...]],
        config: TrainConfig,
        epochs: range,
        skip: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        self.sensors, self.config, self.epochs, self.skip = sensors, config, epochs, skip
        self.ranks = ranks

    def of(self, epoch: int) -> SensorBatches:
        """The batches of one epoch, as indices of frames."""
        order = torch.Generator().manual_seed(self.config.seed * 100003 + epoch)
        # A `DataLoader` of this epoch alone would draw the seed of its workers first, and did once: without
        # this, runs from then would be resumed in another order.
        torch.empty((), dtype=torch.int64).random_(generator=order)
        return SensorBatches(self.sensors, self.config.phase(epoch).batch, order)

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch in self.epochs:
            phase = self.config.phase(epoch)
            severity = ceiling(self.config.curriculum, epoch, self.config.epochs)
            skip = self.skip if epoch == self.epochs.start else 0
            size = part_size(self.config, phase.batch)
            for batch in islice(self.of(epoch), skip, None):
                for part in parts_of(batch, size):
                    own = share_of(part, size, self.ranks)
                    yield [Draw(index, epoch, phase, severity) for index in own]


class BatchLoader:
    """Batches of a training's epochs.

    Workers are started once and go on from one epoch into the next, so that the first batches of an epoch
    are made while the one before ends and is validated.  Which frames come when, and what is made of them,
    is the same with any number of workers, and wherever the stream is taken up.

    Args:
        data: read as a whole, as workers get a copy of what is in memory; not changed any more.
        config: of the run.
        pinned: batches come in page-locked memory, see `Batch.pin_memory`.
        ranks: that share every batch.
    """

    def __init__(
        self,
        data: FusionDataset,
        config: TrainConfig,
        *,
        pinned: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.data, self.config, self.pinned, self.ranks = data, config, pinned, ranks
        self.sensors = [data.modalities(index) for index in range(len(data))]
        self._batches: Iterator[Batch] | None = None
        self._next = self._end = 0, 0

    def order(self, epoch: int) -> list[list[int]]:
        """The frames of each batch of an epoch."""
        return list(self._epochs(epoch, 0).of(epoch))

    def again(self, epoch: int, step: int) -> Batch:
        """The batch of one step as a whole, made here once more."""
        phase = self.config.phase(epoch)
        severity = ceiling(self.config.curriculum, epoch, self.config.epochs)
        order = self.order(epoch)[step]
        return collate([self.data[Draw(i, epoch, phase, severity)] for i in order])

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self._epochs(epoch, 0).of(epoch))

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without the first `skip`, or the parts that they are computed in.

        Raises:
            ConfigError: there are fewer frames than a batch has.
        """
        size = self.config.phase(epoch).batch
        if len(self.data) < size:
            raise ConfigError(
                f"{len(self.data)} training frames are fewer than a batch of {size}",
                where="resolution.batch",
            )
        if self._batches is None or self._next != (epoch, skip) or self._next >= self._end:
            self._open(epoch, skip)
        batches = self._batches
        assert batches is not None
        for step, batch in enumerate(self.order(epoch)[skip:], skip):
            parts = parts_of(batch, self._size(epoch))
            for number, part in enumerate(parts, 1):
                self._next = epoch, step + 1 if number == len(parts) else -1
                yield replace(next(batches), frames=len(part))
        self._next = epoch + 1, 0

    def by_step(self, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The parts of each step's batch; see `epoch`."""
        counts = [len(parts_of(b, self._size(epoch))) for b in self.order(epoch)[skip:]]
        stream = self.epoch(epoch, skip)
        for count in counts:
            yield list(islice(stream, count))
        next(stream, None)  # so that it comes to its end

    def _size(self, epoch: int) -> int:
        return part_size(self.config, self.config.phase(epoch).batch)

    def close(self) -> None:
        """End the workers."""
        self._batches = None

    def change(self, config: TrainConfig) -> None:
        """Go on under another configuration; what was made ahead is made anew."""
        self.close()
        self.config = config

    def _epochs(self, start: int, skip: int) -> EpochBatches:
        epochs = range(start, max(start + 1, self.config.epochs))
        return EpochBatches(self.sensors, self.config, epochs, skip, self.ranks)

    def _open(self, epoch: int, skip: int) -> None:
        self.close()  # first, so that there are never twice as many workers
        sampler = self._epochs(epoch, skip)
        workers = usable_workers(self.config.workers)
        loader: DataLoader[Any] = DataLoader(
            self.data,
            batch_sampler=sampler,
            generator=torch.Generator(),  # its own, as the global one is the model's
            collate_fn=partial(collate, share=self.ranks.several),
            num_workers=workers,
            worker_init_fn=_leave_group,
            pin_memory=self.pinned,
        )
        with _single_threaded() if workers else nullcontext():
            self._batches = iter(loader)
        self._next, self._end = (epoch, skip), (sampler.epochs.stop, 0)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """OpenCV works in one thread meanwhile, and in processes that are forked meanwhile for good.

    Workers are as many as there are cores; threads in each would only be in each other's way.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _leave_group(worker: int) -> None:
    """Signals to the whole group, such as Ctrl-C, are for the training: it ends its workers itself."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()

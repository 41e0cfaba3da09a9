"""A training that is to end in a given time: how many epochs fit, from what the first ones took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from perception.errors import ConfigError
from perception.training.config import TrainConfig

RESERVE = 0.05
"""Share of the time that is left which is not planned for: epochs differ, and the end takes some, too."""

MEASURED_SHARE = 0.1
"""An epoch that takes more of the time than this is measured alone; otherwise the first two are, and the
second counts: in the first one much is done that is never done again."""

MOST_EPOCHS = 10**6


@dataclass(frozen=True)
class Costs:
    """What was measured, in seconds.

    Attributes:
        epoch: one epoch.
        area: pixels of the crops of that epoch; one of larger crops takes longer in proportion.
        saving: writing what each epoch leaves.
        validation: judging the validation frames.
    """

    epoch: float
    area: int
    saving: float
    validation: float


class Budget:
    """The time that a training has.

    Args:
        minutes: from `started` on.
        started: by `time.monotonic`; None for now.
    """

    def __init__(self, minutes: float, started: float | None = None) -> None:
        self.minutes = minutes
        self.end = (time.monotonic() if started is None else started) + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds that are left; negative ones when it is over."""
        return self.end - time.monotonic()

    def measured(self, epochs: int, seconds: float) -> bool:
        """Whether so many epochs, of which the last one took `seconds`, say enough of the others."""
        return epochs > 1 or seconds > MEASURED_SHARE * 60 * self.minutes

    def epochs(self, config: TrainConfig, done: int, costs: Costs) -> int:
        """How many epochs there are to be in all: those that are done, and as many as fit."""
        left = self.left * (1 - RESERVE)

        def fits(epochs: int) -> bool:
            return time_of(config.lasting(epochs), done, costs) <= left

        low, high = done, done + 1
        while high < MOST_EPOCHS and fits(high):
            low, high = high, min(2 * high, MOST_EPOCHS)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def require_epoch(self, seconds: float, step: int, steps: int) -> None:
        """Refuse a budget that cannot hold the first epoch, of which `step` of `steps` took `seconds`.

        Raises:
            ConfigError: it does not.
        """
        whole = seconds / step * steps
        if whole - seconds > self.left:
            self.refuse(whole)

    def refuse(self, seconds: float) -> NoReturn:
        """Say that it is too short for one epoch, which takes `seconds`; 0 if that is not known."""
        needed = f", which takes {seconds / 60:.2g} minutes" if seconds else ""
        raise ConfigError(
            f"{self.minutes:g} minutes are too short for one epoch{needed}",
            where="--minutes",
            hint="more minutes, fewer frames or smaller crops",
        )


def time_of(config: TrainConfig, done: int, costs: Costs) -> float:
    """Seconds that the epochs of `config` after the first `done` take, with their validations."""
    changes = sorted({p.from_epoch for p in config.resolution if done < p.from_epoch})
    edges = [done, *(e for e in changes if e < config.epochs), config.epochs]
    seconds = 0.0
    for start, stop in pairwise(edges):
        height, width = config.phase(start).crop
        seconds += (stop - start) * costs.epoch * height * width / costs.area
    every = config.validate_every
    validations = config.epochs // every - done // every + bool(config.epochs % every)
    return seconds + (config.epochs - done) * costs.saving + validations * costs.validation

"""How far long work is, in a line from time to time, where no bar can be drawn."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 30.0
"""Seconds between two lines."""


class Pace:
    """Says from time to time how far something is.

    Args:
        what: is being done.
        total: steps that it takes.
        every_s: seconds between two lines; what is done sooner gets none.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        what: str,
        total: int,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._every_s, self._clock = what, total, every_s, clock
        self._start = self._last = clock()

    def line(self, done: int) -> str | None:
        """The line after `done` steps, such as `epoch 2: 120 of 800, 5 min left`; None while none is due."""
        now = self._clock()
        if now - self._last < self._every_s or not 0 < done < self._total:
            return None
        self._last = now
        left = (now - self._start) / done * (self._total - done)
        return f"{self._what}: {done} of {self._total}, {duration(left)} left"


def duration(seconds: float) -> str:
    """A length of time for people: seconds, from two minutes on minutes, from two hours on hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

"""How long each step took."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Stopwatch:
    """Milliseconds by step, and `total`.

    Args:
        before: steps that were timed earlier and elsewhere.

    Attributes:
        timings: by step; one that is taken several times is summed.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self.timings: dict[str, float] = dict(before or {})
        self._before = sum(self.timings.values())
        self._start = self._last = time.perf_counter_ns()

    def lap(self, step: str) -> None:
        """Put the time since the last lap, or the start, down to a step."""
        now = time.perf_counter_ns()
        self.timings[step] = self.timings.get(step, 0.0) + (now - self._last) / 1e6
        self._last = now

    def stop(self) -> dict[str, float]:
        """All steps, and `total`: the time since the start, and that of the steps before it."""
        self.timings["total"] = self._before + (time.perf_counter_ns() - self._start) / 1e6
        return self.timings

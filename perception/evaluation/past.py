"""What sensors saw some time ago: earlier frames of the same scene of a recording."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from itertools import pairwise

import numpy as np

from perception.data.base import Recording


class Past:
    """Finds earlier frames by stamp.

    Args:
        recording: a sequential one.
    """

    def __init__(self, recording: Recording) -> None:
        self._scene = [recording.scene(i) for i in range(len(recording))]
        self._stamp = [recording.stamp_ns(i) for i in range(len(recording))]
        self._runs: dict[str, list[tuple[int, int]]] = {}
        for index, (scene, stamp) in enumerate(zip(self._scene, self._stamp, strict=True)):
            self._runs.setdefault(scene, []).append((stamp, index))
        for run in self._runs.values():
            run.sort()

    @cached_property
    def step_s(self) -> float:
        """How far frames are apart, in seconds: the median; 0 where each scene has one only."""
        steps = [
            after[0] - before[0]
            for run in self._runs.values()
            for before, after in pairwise(run)
            if after[0] > before[0]
        ]
        return round(float(np.median(steps)) / 1e9, 3) if steps else 0.0

    def before(self, index: int, age_s: float) -> int | None:
        """The frame of the same scene that is older by that time, to half a step, if there is one."""
        run, stamp = self._runs[self._scene[index]], self._stamp[index]
        wanted = stamp - age_s * 1e9
        earlier = [(s, i) for s, i in self._around(run, wanted) if s < stamp]
        if not earlier:
            return None
        found, nearest = min(earlier, key=lambda entry: abs(entry[0] - wanted))
        near_enough = abs(found - wanted) <= self.step_s * 1e9 / 2 * (1 + 1e-6)
        return nearest if near_enough else None

    @staticmethod
    def _around(run: list[tuple[int, int]], wanted: float) -> list[tuple[int, int]]:
        at = bisect_left(run, (wanted, -1))
        return run[max(0, at - 1) : at + 1]

    def stamps_since(self, index: int, age_s: float) -> list[int]:
        """The stamps from the frame of `before` to frame `index`, both among them; empty where it is none."""
        start = self.before(index, age_s)
        if start is None:
            return []
        run, first, last = self._runs[self._scene[index]], self._stamp[start], self._stamp[index]
        return [stamp for stamp, _ in run if first <= stamp <= last]

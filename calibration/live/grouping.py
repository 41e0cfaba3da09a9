"""Samples of one moment, of sensors that do not speak at the same time: pairs by stamp, the newest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

_KEPT = 12
"""Samples of a sensor that wait for the others'; pictures are large."""


class Grouper:
    """Gathers what sensors sent into groups of one moment.

    Args:
        sensors: their names.
        wanted: those without which there is no group; the first of them leads.
        tolerance_ns: how far a stamp may lie from the leader's.
    """

    def __init__(self, sensors: Sequence[str], wanted: Collection[str], tolerance_ns: int) -> None:
        self.wanted = tuple(name for name in sensors if name in wanted)
        self._tolerance_ns = tolerance_ns
        self._waiting: dict[str, deque[tuple[int, Any]]] = {
            name: deque(maxlen=_KEPT) for name in sensors
        }
        self._last_ns: int | None = None

    def add(self, sensor: str, stamp_ns: int, payload: Any) -> None:
        """Take in a sample; one that is stamped before the newest of its sensor begins anew."""
        own = self._waiting[sensor]
        if own and stamp_ns < own[-1][0]:
            own.clear()
            if sensor == self.wanted[0]:
                self._last_ns = None
        own.append((stamp_ns, payload))

    def clear(self) -> None:
        """Forget all that waits."""
        for own in self._waiting.values():
            own.clear()

    def next(self) -> tuple[int, dict[str, Any]] | None:
        """The newest moment that was not given before: the leader's stamp, and payloads by sensor."""
        leader, *others = self.wanted
        for stamp_ns, payload in reversed(self._waiting[leader]):
            if self._last_ns is not None and stamp_ns <= self._last_ns:
                return None
            found = {leader: payload}
            for name in self._waiting:
                if name != leader and (near := self._nearest(name, stamp_ns)) is not None:
                    found[name] = near
            if all(name in found for name in others):
                self._last_ns = stamp_ns
                return stamp_ns, found
        return None

    def off_ns(self, sensor: str) -> int | None:
        """How far the nearest sample of a sensor is from the leader's newest; None before both have one."""
        leader = self._waiting[self.wanted[0]]
        if not leader or not self._waiting[sensor]:
            return None
        return min(abs(stamp_ns - leader[-1][0]) for stamp_ns, _ in self._waiting[sensor])

    def _nearest(self, sensor: str, stamp_ns: int) -> Any:
        near = [(abs(when - stamp_ns), i) for i, (when, _) in enumerate(self._waiting[sensor])]
        off, index = min(near, default=(self._tolerance_ns + 1, 0))
        return self._waiting[sensor][index][1] if off <= self._tolerance_ns else None

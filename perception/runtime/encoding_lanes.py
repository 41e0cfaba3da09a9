"""Threads that encode, one for each sensor of a stream, and for how long one of them is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, TimeoutError
from typing import Any

from perception.runtime.lane import Lane
from perception.runtime.result import SensorWarning
from perception.runtime.waiting import Found

PATIENCE_S = 5.0
"""How long an encoder on a thread of its own may take: longer, its sensor is stalled."""

USUAL = 20
"""Once it has answered, no longer than this many times as long, but at least for a second."""


class EncodingLanes:
    """One thread per sensor, so that its samples are checked and encoded in order.

    Args:
        sensors: those that have one; none where all is done on the caller's.
        answered: told of a sensor that was stalled and is not any longer.
    """

    def __init__(self, sensors: Iterable[str], answered: Callable[[str], object]) -> None:
        self._lanes = {sensor: Lane[Found](f"encode_{sensor}") for sensor in sensors}
        self._answered = answered
        self._usual_s: dict[str, float] = {}  # how long each encoder took
        self._stalled: dict[str, Future[Found]] = {}

    def __contains__(self, sensor: str) -> bool:
        return sensor in self._lanes

    def submit(
        self, sensor: str, call: Callable[..., Found], *arguments: Any, **named: Any
    ) -> Future[Found]:
        """Have `call` called on a sensor's thread when what came before is done."""
        return self._lanes[sensor].submit(call, *arguments, **named)

    def took(self, sensor: str, seconds: float) -> None:
        """Note how long a sensor's encoder took."""
        self._usual_s[sensor] = seconds

    def wait(self, sensor: str, pending: Future[Found]) -> Found:
        """What comes of a sensor's sample; a warning `stalled` where that takes too long.

        Raises:
            AnySenseError: what the call raised, or anything else that it did.
        """
        patience = min(PATIENCE_S, max(1.0, USUAL * self._usual_s.get(sensor, PATIENCE_S)))
        try:
            return pending.result(patience)
        except TimeoutError:
            self._stalled[sensor] = pending
            line = f"{sensor}: its encoder has not answered for {patience:.2g} s"
            return SensorWarning(sensor, "stalled", line)

    def is_stalled(self, sensor: str) -> bool:
        """Whether a sensor's encoder has yet to answer what was waited for too long."""
        pending = self._stalled.get(sensor)
        if pending is not None and pending.done():
            self._stalled.pop(sensor, None)
            self._answered(sensor)
            return False
        return pending is not None

    def close(self) -> None:
        """End the threads when their work is done; returns at once."""
        for lane in self._lanes.values():
            lane.close()

    def join(self) -> None:
        """Wait for their end, but for that of one that does not answer."""
        end = time.monotonic() + PATIENCE_S
        for sensor, lane in self._lanes.items():
            lane.join(0 if self.is_stalled(sensor) else end - time.monotonic())

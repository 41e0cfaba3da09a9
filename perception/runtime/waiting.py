"""A sample while it waits in a stream's core, and what is told of a sensor's samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from perception.frame import Sample
from perception.runtime.arrival import Arrival
from perception.runtime.collector import Collector
from perception.runtime.networks import Encoded
from perception.runtime.result import HealthState, SensorReport, SensorWarning

Found = Encoded | SensorWarning | None
"""What comes of checking and encoding a sample, see `Pipeline.encode`."""

_KEPT_APART = ("received", "used", "superseded")


@dataclass(eq=False)
class Waiting:
    """A sample while it waits, and what is known of it.

    Attributes:
        sample: with its stamp on the reference clock.
        encoded: its features, once they are known.
        pending: set while it is encoded on another thread.
        fate: as what it was counted; empty while that is open.
        unplaced: it is yet to be encoded, once the depth of its moment is there.
    """

    sample: Sample
    arrival: Arrival
    encoded: Encoded | None = None
    pending: Future[Found] | None = None
    fate: str = ""
    unplaced: bool = False

    @property
    def useful(self) -> bool:
        """Whether it is encoded, or about to be."""
        return self.encoded is not None or self.pending is not None


def settle(counts: Mapping[str, Counter[str]], waiting: Waiting, fate: str) -> None:
    """Count what became of a sample."""
    waiting.fate = fate
    counts[waiting.sample.sensor][fate] += 1


def supersede(counts: Mapping[str, Counter[str]], arrival: Arrival) -> None:
    """Count a sample that the collector let go of, unless it was counted as rejected before."""
    waiting: Waiting = arrival.payload
    if waiting.pending is not None:
        waiting.pending.cancel()  # unless it has begun
    if not waiting.fate:
        settle(counts, waiting, "superseded")


def of_one_moment(waiting: Waiting, collector: Collector) -> list[Waiting]:
    """What waits of other sensors in the same group as a sample, as far as stamps tell."""
    sensor, stamp = waiting.sample.sensor, waiting.arrival.stamp_ns
    timing = collector.sensors
    window = timing[sensor].window_ns
    return [
        held.payload
        for held in collector.waiting()
        if held.sensor != sensor
        and abs(held.payload.arrival.stamp_ns - stamp) <= max(window, timing[held.sensor].window_ns)
    ]


def reported(
    counts: Counter[str],
    *,
    health: HealthState,
    silent_ms: float,
    waiting: int,
    offset_ns: float | None,
    warning: SensorWarning | None,
) -> SensorReport:
    """The report on a sensor, given the fates of its samples; every other one is a rejection."""
    return SensorReport(
        health,
        silent_ms,
        counts["received"],
        counts["used"],
        counts["superseded"],
        sum(n for fate, n in counts.items() if fate not in _KEPT_APART),
        waiting,
        "" if warning is None else warning.text,
        math.nan if offset_ns is None else offset_ns / 1e6,
        warning is not None and warning.broken,
    )

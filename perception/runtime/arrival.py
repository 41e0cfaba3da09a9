"""Samples on their way through a collector, and what is expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from perception.errors import ConfigError
from perception.frame import Frame, Sample

Disposition = Literal["accepted", "duplicate", "late", "skewed", "foreign"]
"""What became of a pushed sample.  `accepted` ones end as used or superseded; the rest are rejected:
`duplicate` (same sensor, same stamp), `late` (its group, or a newer sample of its sensor, has left),
`skewed` (its stamp cannot be believed, see `SensorClocks`) and `foreign` (no such sensor here)."""


@dataclass(frozen=True)
class SensorTiming:
    """When to expect a sensor's samples.  All times in nanoseconds.

    Attributes:
        offset_ns: added to its stamps to bring them to the reference clock (as in `Rig`, whose
            `attach` does the same: use one of the two).
        window_ns: largest distance between its stamp and that of the sample that opened the group;
            of two sensors' windows the larger holds.
        timeout_ns: a sensor silent for longer is lost, and no group waits for it.  Nor does one for
            a sensor that repeats the same stamp for so long.
        weight: its share in `Group.coverage`.
    """

    offset_ns: int = 0
    window_ns: int = 25_000_000
    timeout_ns: int = 500_000_000
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.window_ns < 0 or self.timeout_ns <= 0 or not self.weight > 0:
            raise ConfigError(
                "window_ns must not be negative, timeout_ns and weight must be positive",
                where="collector",
            )


@dataclass(frozen=True)
class Arrival:
    """A sample on its way through the collector, which looks at its times alone.

    Attributes:
        sensor: its sensor.
        source_ns: its stamp as it came, on the sensor's own clock.
        stamp_ns: the same on the reference clock, with the sensor's offset.
        arrived_ns: when it arrived, on a clock that does not go back.
        payload: the sample, or whatever the caller keeps of it.
    """

    sensor: str
    source_ns: int
    stamp_ns: int
    arrived_ns: int
    payload: Any = None

    @staticmethod
    def of(sample: Sample, arrived_ns: int) -> Arrival:
        """A sample's; one without a stamp gets the time of its arrival."""
        stamp = arrived_ns if sample.stamp_ns is None else sample.stamp_ns
        return Arrival(sample.sensor, stamp, stamp, arrived_ns, sample)


@dataclass(frozen=True)
class Group:
    """Samples taken at about one time.

    Attributes:
        samples: by sensor.
        stamp_ns: stamp of the sample that opened the group; rises from group to group of an epoch.
        reason: `complete`, `deadline`, or `flush` (a newer group, a clock jump or the caller pushed
            it out).
        missing: sensors of this collector that are not in it, in canonical order.
        waited_ns: from its opening to its leaving.
        coverage: share in 0..1 of all sensors' weight that it holds.
        epoch: rises at every jump of the clock; at a change, forget what earlier groups led to.
        overdue: those of `missing` that it waited for in vain, and whose sample should have come even
            by the longest of their last steps.
    """

    samples: Mapping[str, Arrival]
    stamp_ns: int
    reason: Literal["complete", "deadline", "flush"]
    missing: tuple[str, ...]
    waited_ns: int
    coverage: float
    epoch: int
    overdue: tuple[str, ...] = ()

    @property
    def spread_ns(self) -> int:
        """Distance between the oldest and the newest sample."""
        stamps = [s.stamp_ns for s in self.samples.values()]
        return max(stamps) - min(stamps)

    @property
    def arrived_ns(self) -> int:
        """When the last of its samples arrived."""
        return max(a.arrived_ns for a in self.samples.values())

    def frame(self) -> Frame:
        """The group as a frame with the group's stamp, where the payloads are samples."""
        found = {n: replace(a.payload, stamp_ns=a.stamp_ns) for n, a in self.samples.items()}
        return Frame(found, self.stamp_ns)

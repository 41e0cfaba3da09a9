"""A schedule put on samples: recordings frame by frame, or a stream as samples come."""

from __future__ import annotations

import zlib
from dataclasses import replace

from perception.corruptions.content import corrupt, severity_of
from perception.corruptions.delivery import DELIVERY, Active, Channel
from perception.corruptions.schedule import Event, FaultSchedule
from perception.frame import Frame, Sample


class FaultInjector:
    """Samples in, and out as a robot with these faults would get them.

    A sample is spoilt first, then delivered.  Time is an argument throughout.

    Args:
        schedule: which faults; its sensors must have them, see `FaultSchedule.check`.
        start_ns: when the schedule begins; None: with the first sample.
    """

    def __init__(self, schedule: FaultSchedule, start_ns: int | None = None) -> None:
        self.schedule = schedule
        self.start_ns = start_ns
        self._channels: dict[str, Channel[Sample]] = {}
        self._counts: dict[str, int] = {}

    def push(self, sample: Sample, now_ns: int) -> None:
        """A sensor sends a sample at `now_ns`."""
        if self.start_ns is None:
            self.start_ns = now_ns
        name, time_s = sample.sensor, (now_ns - self.start_ns) / 1e9
        seed = (self.schedule.seed, zlib.crc32(name.encode()))
        if name not in self._channels:
            self._channels[name] = Channel(seed)
        number = self._counts[name] = self._counts.get(name, -1) + 1
        delivery = []
        for event in self.schedule.active(name, time_s):
            if event.fault in DELIVERY:
                delivery.append(self._met(event, time_s))
                continue
            severity = severity_of(sample.kind, event.fault)
            still = severity is not None and severity.still
            own = seed if still else (*seed, number)
            sample = corrupt(sample, event.fault, event.severity, own)
        self._channels[name].push(sample, sample.stamp_ns, now_ns, delivery)

    def poll(self, now_ns: int) -> list[tuple[Sample, int]]:
        """What has come by now and was not polled before, with the time of each, in the order of these."""
        found = [d for channel in self._channels.values() for d in channel.poll(now_ns)]
        found.sort(key=lambda d: d.arrived_ns)
        return [(_stamped(d.payload, d.stamp_ns), d.arrived_ns) for d in found]

    def next_ns(self) -> int | None:
        """When something comes next, if nothing more is pushed; None: nothing waits."""
        first = None
        for channel in self._channels.values():
            due = channel.next_ns()
            if due is not None and (first is None or due < first):
                first = due
        return first

    def frame(self, frame: Frame, now_ns: int) -> Frame:
        """The frame as it is seen at `now_ns`: of each sensor the newest sample that came since the last.

        What comes later is in a later frame, and a sensor of which nothing came is missing.
        """
        for sample in frame.values():
            self.push(sample, now_ns)
        newest = {sample.sensor: sample for sample, _ in self.poll(now_ns)}
        return Frame({n: newest[n] for n in frame if n in newest}, frame.stamp_ns)

    def _met(self, event: Event, time_s: float) -> Active:
        began = (self.start_ns or 0) + round(self.schedule.began_s(event, time_s) * 1e9)
        return Active(event.fault, event.delivery_amount, began)


def _stamped(sample: Sample, stamp_ns: int | None) -> Sample:
    """Itself where that is its stamp: a copy costs more than all else of a message without faults."""
    return sample if sample.stamp_ns == stamp_ns else replace(sample, stamp_ns=stamp_ns)

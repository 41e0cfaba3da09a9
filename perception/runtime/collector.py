"""Grouping samples of several sensors by the time they were taken.

Pure logic: no threads wait here and no clock is read.  The caller pushes samples as they arrive,
polls when it likes (at the latest at `next_deadline_ns`) and gets groups, oldest first.

Any sensor may anchor a group: a sample that fits no open group opens one, so that no single sensor
can silence the others.  A group leaves when every sensor that is alive has joined or can no longer
join, and at the latest `deadline_ns` after it was opened.  Example with a 30 Hz camera, a 10 Hz LiDAR
that takes 60 ms to deliver, window 20 ms, deadline 80 ms (stamps and arrivals in ms):

    camera  0 arrives at   5    opens group 0
    camera 33 arrives at  38    does not fit (33 > 20): opens group 33
    lidar   2 arrives at  62    joins group 0, which is complete and leaves at 62
    camera 66 arrives at  71    opens group 66; nothing says yet that group 33 gets no LiDAR ...
                  at     118    ... so it leaves at its deadline, 80 ms after it was opened

Once a sensor's rate is known, no group waits for it whose stamp lies further than the window before the
next one that is due: with clouds at 2, 102 and 202 heard, camera 233 leaves at once.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from perception.errors import ConfigError, InputError
from perception.frame import check_name, in_order
from perception.runtime.arrival import Arrival, Disposition, Group, SensorTiming
from perception.runtime.clocks import SensorClocks

__all__ = ["Arrival", "Collector", "Disposition", "Group", "SensorTiming"]

_STEPS = 8
_MAX_OPEN = 64
"""Most groups kept, both open and ready; with more, nobody polls, and the oldest are let go."""


@dataclass(order=True)
class _Open:
    """A group that still waits."""

    stamp_ns: int
    anchor: str = field(compare=False)
    opened_ns: int = field(compare=False)
    epoch: int = field(compare=False)
    samples: dict[str, Arrival] = field(compare=False)


class Collector:
    """Groups samples by stamp.  Safe to push to and poll from different threads.

    Args:
        sensors: timing by sensor.
        deadline_ns: longest wait of any accepted sample.
        jump_ns: a stamp that lies further than this behind its own sensor's newest is a clock that
            was set back (a bag that loops): waiting groups leave, and a new epoch begins.  So it
            does when a stamp lies that far behind the last group and no group has left for
            `deadline_ns`: that group's stamp was wrong.
        max_skew_ns: reject samples whose stamp is further than this from the receiver's clock, which
            is `clock_ns` of `push`, or `now_ns` where that is not given.  None does not.
        superseded: called with every accepted arrival that will be in no group, under the collector's
            lock.

    Attributes:
        spared: sensors that no group waits for, as their samples are left out for want of time.
        clocks: what is known about the sensors' clocks, where `push` is told the receiver's.
        counters: `received`, `used`, `superseded`, `rejected_<reason>`, `out_of_order`,
            `groups_<reason>` and `resets`.  At any time, received = used + superseded + rejected +
            `pending`.

    Raises:
        ConfigError: no sensors, or a time that makes no sense.
    """

    def __init__(
        self,
        sensors: Mapping[str, SensorTiming],
        deadline_ns: int,
        *,
        jump_ns: int = 1_000_000_000,
        max_skew_ns: int | None = None,
        superseded: Callable[[Arrival], None] = lambda arrival: None,
    ) -> None:
        if not sensors or deadline_ns <= 0 or jump_ns <= 0:
            raise ConfigError(
                "needs a sensor, and a positive deadline_ns and jump_ns", where="collector"
            )
        self.sensors = {check_name(m): sensors[m] for m in in_order(sensors)}
        self.deadline_ns, self.jump_ns = deadline_ns, jump_ns
        self.clocks = SensorClocks(max_skew_ns=max_skew_ns)
        self.counters: Counter[str] = Counter()
        self._on_superseded = superseded
        self.spared: frozenset[str] = frozenset()
        self.epoch = 0
        self._total_weight = sum(t.weight for t in self.sensors.values())
        self._open: list[_Open] = []
        self._expelled: list[_Open] = []
        self._steps: dict[str, deque[int]] = {}  # between each sensor's last stamps
        self._newest: dict[str, int] = {}  # stamp of each sensor's newest sample
        self._heard: dict[str, int] = {}  # arrival of each sensor's last message
        self._renewed: dict[str, int] = {}  # and of its last one with a new, likely stamp
        self._started_ns: int | None = None
        self._now_ns = -(1 << 62)
        # Of the groups that left in this epoch: the last one's stamp, when that was, and the last
        # stamp of each sensor.
        self._left_ns: int | None = None
        self._left_at_ns = self._now_ns
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()

    def push(
        self, arrival: Arrival, clock_ns: int | None = None, *, dated: bool = False
    ) -> Disposition:
        """Take in a sample.

        Args:
            arrival: it; `source_ns` counts.
            clock_ns: when it arrived, on the clock that stamps are expected to be on; None where there is
                no such clock, and all stamps are believed.
            dated: its stamp is that of its arrival, for want of another.

        Raises:
            InputError: the stamp is no whole number.
        """
        if not hasattr(arrival.source_ns, "__index__"):
            raise InputError(f"stamp {arrival.source_ns!r} is no integer", where=arrival.sensor)
        with self._lock:
            now = self._advance(arrival.arrived_ns)
            self.counters["received"] += 1
            if dated:
                self.clocks.skip(arrival.sensor)
            disposition = self._place(arrival, now, clock_ns, dated)
            if disposition != "accepted":
                self.counters[f"rejected_{disposition}"] += 1
            return disposition

    def hear(self, sensor: str, now_ns: int) -> None:
        """Note that a sensor speaks, whatever its message holds and whenever it is looked at."""
        with self._lock:
            self._heard[sensor] = max(self._heard.get(sensor, now_ns), now_ns)

    def poll(self, now_ns: int) -> list[Group]:
        """The groups that are complete or due, oldest first."""
        with self._lock:
            now = self._advance(now_ns)
            ready = [self._leave(g, now, "flush") for g in self._expelled]
            self._expelled.clear()
            reasons = [self._reason(g, now) for g in self._open]
            # Groups leave in order of stamp: a newer one that is ready takes the older along.
            count = max((i + 1 for i, r in enumerate(reasons) if r is not None), default=0)
            for group, reason in zip(self._open[:count], reasons[:count], strict=True):
                self._close(group, now)
                ready.append(self._leave(group, now, reason or "flush"))
            del self._open[:count]
            return ready

    def due(self, now_ns: int) -> bool:
        """Whether `poll` would give a group."""
        with self._lock:
            now = max(now_ns, self._now_ns)
            return bool(self._expelled) or any(self._reason(g, now) for g in self._open)

    def flush(self, now_ns: int) -> list[Group]:
        """All groups, ready or not, as at the end of a recording."""
        with self._lock:
            self._expel(self._advance(now_ns))
        return self.poll(now_ns)

    def next_deadline_ns(self) -> int | None:
        """When to poll at the latest; None while nothing waits."""
        with self._lock:
            if self._expelled:
                return self._now_ns
            return min((g.opened_ns + self.deadline_ns for g in self._open), default=None)

    def lost(self, now_ns: int) -> tuple[str, ...]:
        """The sensors silent for longer than their timeout, in canonical order."""
        with self._lock:
            now = max(now_ns, self._now_ns)
            return tuple(m for m in self.sensors if not self._recent(self._heard, m, now))

    def is_lost(self, sensor: str, now_ns: int) -> bool:
        """Whether one sensor is, see `lost`."""
        with self._lock:
            return not self._recent(self._heard, sensor, max(now_ns, self._now_ns))

    def idle(self, now_ns: int) -> tuple[str, ...]:
        """The sensors that no group waits for: lost, or without a new, likely stamp for so long."""
        with self._lock:
            now = max(now_ns, self._now_ns)
            return tuple(m for m in self.sensors if not self._recent(self._renewed, m, now))

    def retime(self, sensors: Mapping[str, SensorTiming], deadline_ns: int) -> None:
        """Change timings while running; what waits stays.

        Raises:
            ConfigError: other sensors than before, or a deadline that makes no sense.
        """
        if set(sensors) != set(self.sensors) or deadline_ns <= 0:
            raise ConfigError(
                "the sensors cannot change, the deadline must be positive", where="collector"
            )
        with self._lock:
            self.sensors = {m: sensors[m] for m in self.sensors}
            self.deadline_ns = deadline_ns
            self._total_weight = sum(t.weight for t in self.sensors.values())

    def waiting(self) -> list[Arrival]:
        """The accepted arrivals that wait in open groups."""
        with self._lock:
            return [s for g in (*self._expelled, *self._open) for s in g.samples.values()]

    def heard_ns(self, sensor: str) -> int | None:
        """Arrival of a sensor's last message; None when there was none."""
        with self._lock:
            return self._heard.get(sensor)

    @property
    def pending(self) -> int:
        """Number of accepted samples that wait in open groups."""
        return len(self.waiting())

    def reset(self) -> None:
        """Drop what waits and begin a new epoch.  What is dropped counts as superseded."""
        with self._lock:
            for group in (*self._open, *self._expelled):
                self._drop(*group.samples.values())
            self._open.clear()
            self._expelled.clear()
            self._begin_epoch()
            self._heard.clear()
            self._renewed.clear()
            self.clocks.reset()
            self._started_ns = None

    def _advance(self, now_ns: int) -> int:
        self._now_ns = max(self._now_ns, int(now_ns))
        return self._now_ns

    def _place(self, arrival: Arrival, now: int, clock_ns: int | None, dated: bool) -> Disposition:
        sensor = arrival.sensor
        timing = self.sensors.get(sensor)
        if timing is None:
            return "foreign"
        stamp = int(arrival.source_ns) + timing.offset_ns
        self._started_ns = now if self._started_ns is None else self._started_ns
        self._heard[sensor] = max(self._heard.get(sensor, now), now)
        if stamp == self._spent.get(sensor) or any(
            self._holds(g, sensor, stamp) for g in self._open
        ):
            return "duplicate"
        if not dated and not self._believed(sensor, stamp, now, clock_ns):
            return "skewed"
        self._renewed[sensor] = now
        self._note_order(sensor, stamp, now)
        if arrival.stamp_ns != stamp:
            arrival = replace(arrival, stamp_ns=stamp)
        spent = self._spent.get(sensor)
        if spent is not None and stamp < spent:
            return "late"
        group = self._nearest(sensor, stamp)
        if group is not None:
            if sensor in group.samples:
                self._drop(group.samples[sensor])
            group.samples[sensor] = arrival
            return "accepted"
        return self._open_group(arrival, now)

    def _believed(self, sensor: str, stamp: int, now: int, clock_ns: int | None) -> bool:
        if clock_ns is None:
            most = self.clocks.max_skew_ns
            return most is None or abs(stamp - now) <= most
        alive = [m for m in self.sensors if self._recent(self._heard, m, now)]
        return self.clocks.fits(sensor, stamp, clock_ns, alive)

    def _open_group(self, arrival: Arrival, now: int) -> Disposition:
        stamp, sensor = arrival.stamp_ns, arrival.sensor
        if self._left_ns is not None and stamp <= self._left_ns:
            return "late"
        if not self._in_order(sensor, stamp, stamp):
            return "late"
        insort(self._open, _Open(stamp, sensor, now, self.epoch, {sensor: arrival}))
        if len(self._open) > _MAX_OPEN:
            self._expel(now, 1)
        return "accepted"

    def _note_order(self, sensor: str, stamp: int, now: int) -> None:
        newest = behind = self._newest.get(sensor, stamp)
        starved = not self._open and now - self._left_at_ns > self.deadline_ns
        if starved and self._left_ns is not None:
            behind = max(behind, self._left_ns)
        if behind - stamp > self.jump_ns:
            self.counters["resets"] += 1
            self._expel(now)
            self._begin_epoch()
        elif stamp < newest:
            self.counters["out_of_order"] += 1
        before = self._newest.get(sensor)
        if before is not None and stamp > before:
            # The smallest of a few steps: where samples are missing, steps are too long.
            self._steps.setdefault(sensor, deque(maxlen=_STEPS)).append(stamp - before)
        self._newest[sensor] = stamp if before is None else max(stamp, before)

    @staticmethod
    def _holds(group: _Open, sensor: str, stamp: int) -> bool:
        held = group.samples.get(sensor)
        return held is not None and held.stamp_ns == stamp

    def _window(self, one: str, other: str) -> int:
        return max(self.sensors[one].window_ns, self.sensors[other].window_ns)

    def _nearest(self, sensor: str, stamp: int) -> _Open | None:
        """The open group that fits best; a place already taken falls to the nearer sample."""
        best: _Open | None = None
        for group in self._open:
            distance = abs(stamp - group.stamp_ns)
            if distance > self._window(sensor, group.anchor):
                continue
            held = group.samples.get(sensor)
            if held is not None and abs(held.stamp_ns - group.stamp_ns) <= distance:
                continue
            nearer = best is None or distance < abs(stamp - best.stamp_ns)
            if nearer and self._in_order(sensor, stamp, group.stamp_ns, group):
                best = group
        return best

    def _in_order(self, sensor: str, stamp: int, group_ns: int, own: _Open | None = None) -> bool:
        """Whether a sensor's stamps still rise from group to group with `stamp` at `group_ns`."""
        for group in self._open:
            if group is own:
                continue
            if group.stamp_ns == group_ns:
                return False
            held = group.samples.get(sensor)
            if held is not None and (group.stamp_ns < group_ns) != (held.stamp_ns < stamp):
                return False
        return True

    def _recent(self, when: Mapping[str, int], sensor: str, now: int) -> bool:
        # A sensor not heard yet is waited for as if it had spoken when the first one did.
        last = when.get(sensor, self._started_ns)
        return last is not None and now - last <= self.sensors[sensor].timeout_ns

    def _awaited(self, sensor: str, group: _Open, now: int) -> bool:
        if sensor in group.samples or sensor in self.clocks.out or sensor in self.spared:
            return False
        if not self._recent(self._renewed, sensor, now):
            return False
        newest = self._newest.get(sensor)
        if newest is None:
            return True
        window = self._window(sensor, group.anchor)
        steps = self._steps.get(sensor)
        # A slow sensor's next stamp, by its own rate, may lie beyond the group: no use to wait for it.
        expected = newest if steps is None else max(newest, newest + min(steps) - window)
        return expected <= group.stamp_ns + window

    def _reason(self, group: _Open, now: int) -> Literal["complete", "deadline"] | None:
        if not any(self._awaited(m, group, now) for m in self.sensors):
            return "complete"
        return "deadline" if now >= group.opened_ns + self.deadline_ns else None

    def _leave(
        self, group: _Open, now: int, reason: Literal["complete", "deadline", "flush"]
    ) -> Group:
        self.counters["used"] += len(group.samples)
        self.counters[f"groups_{reason}"] += 1
        held = {m: group.samples[m] for m in self.sensors if m in group.samples}
        return Group(
            samples=held,
            stamp_ns=group.stamp_ns,
            reason=reason,
            missing=tuple(m for m in self.sensors if m not in held),
            waited_ns=now - group.opened_ns,
            coverage=sum(self.sensors[m].weight for m in held) / self._total_weight,
            epoch=group.epoch,
            overdue=tuple(
                m for m in self.sensors if reason == "deadline" and self._overdue(m, group, now)
            ),
        )

    def _overdue(self, sensor: str, group: _Open, now: int) -> bool:
        steps = self._steps.get(sensor)
        if steps is None or not self._awaited(sensor, group, now):
            return False
        due = self._newest[sensor] + max(steps)
        return due <= group.stamp_ns + self._window(sensor, group.anchor)

    def _close(self, group: _Open, now: int) -> None:
        """Note what leaves, so that nothing older follows it."""
        self._left_ns, self._left_at_ns = group.stamp_ns, now
        for sensor, arrival in group.samples.items():
            self._spent[sensor] = arrival.stamp_ns

    def _expel(self, now: int, count: int | None = None) -> None:
        """Make the oldest `count` open groups, or all, leave at the next poll."""
        for group in self._open[:count]:
            self._close(group, now)
            self._expelled.append(group)
        del self._open[:count]
        for group in self._expelled[:-_MAX_OPEN]:
            self._drop(*group.samples.values())
        del self._expelled[:-_MAX_OPEN]

    def _drop(self, *arrivals: Arrival) -> None:
        self.counters["superseded"] += len(arrivals)
        for arrival in arrivals:
            self._on_superseded(arrival)

    def _begin_epoch(self) -> None:
        self.epoch += 1
        self._newest.clear()
        self._steps.clear()
        self._spent.clear()
        self._left_ns = None

"""From samples that arrive when they like to results: collector, encoders and fuser in one.

Pure logic like the `Collector` within: the caller pushes, polls, and brings the time.  Every sample is
encoded when it arrives, so that when a group leaves only the fuser has to run.  A sensor slower than
the others takes part in the groups between its samples with its last features, as long as the
policy's `max_age_ms` allows.  Where it is the one in whose pixels results are given, the groups between
its samples give no output of their own: what came in them takes part in the next.

`perception.Stream` puts threads and a clock around it; recordings are played through it as it is.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from perception.errors import AnySenseError, ConfigError, meant
from perception.frame import Sample
from perception.runtime.arrival import Arrival, Group, SensorTiming
from perception.runtime.arrival_health import ArrivalHealth
from perception.runtime.clocks import OutputStamps
from perception.runtime.collector import Collector
from perception.runtime.drift import DriftMonitor
from perception.runtime.encoding_lanes import EncodingLanes
from perception.runtime.heartbeat import Heartbeat
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result, SensorReport, SensorWarning
from perception.runtime.sensor_states import SensorStates
from perception.runtime.settings import StreamSettings
from perception.runtime.shedding import Shedder
from perception.runtime.waiting import Waiting, of_one_moment, settle, supersede

__all__ = ["StreamCore", "StreamSettings"]


class StreamCore:
    """Runs a pipeline on samples as they arrive.  To be used from one thread at a time.

    Args:
        pipeline: the pipeline; its `expected` sensors become those of the settings.
        settings: see `StreamSettings`.
        parallel: encode every sample on a thread of its sensor.  `push` then calls a sample accepted
            before it is known to be usable.  Needs `close` at the end.
        clock: the time of arrivals at any moment, by which results are late; without one it is the time
            that `poll` is told, and what has passed since.

    Attributes:
        counts: by sensor, the fates of its samples.
        looked_at: from when until when samples arrive whose results somebody looks at; None: always.  Of
            others no network runs, but for features that such a result uses.

    Raises:
        ConfigError: no sensor that the pipeline has, or one that it has not.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: StreamSettings,
        *,
        parallel: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> None:
        foreign = [m for m in settings.sensors if m not in pipeline.sensors]
        if foreign:
            raise ConfigError(
                f"the bundle takes {', '.join(pipeline.sensors)}, not {', '.join(foreign)}",
                where="inputs",
                hint=meant(foreign[0], pipeline.sensors),
            )
        self.pipeline = pipeline
        # No part refers to the whole: a ring would hold the last samples until Python looks for rings.
        self.counts: dict[str, Counter[str]] = {}
        self.looked_at: tuple[int, int] | None = None
        told = partial(supersede, self.counts)
        self.collector = Collector(settings.sensors, settings.wait_ns, superseded=told)
        self.shedder = Shedder(pipeline, self.collector)
        self._clock = clock
        self._polled = (0, 0)  # when, by the caller's clock and by that of the system
        self.arrivals = ArrivalHealth(self.collector)
        self.drift = DriftMonitor(settings.drift, background=parallel)
        self.heartbeat = Heartbeat(self.collector)
        self.configure(settings)
        self.counts.update((m, Counter()) for m in self.collector.sensors)
        pipeline.expected = tuple(self.collector.sensors)
        lanes = self.collector.sensors if parallel else ()
        said: dict[str, SensorWarning] = {}
        self._lanes = EncodingLanes(lanes, answered=lambda sensor: said.pop(sensor, None))
        self._states = SensorStates(
            pipeline, self.collector, self.arrivals, self.drift, self._lanes.is_stalled, said
        )
        self._kept: dict[str, Waiting] = {}
        self._epoch = self.collector.epoch
        self._last_group: tuple[int, int] | None = None  # its stamp, and when it left
        self._stamps = self._stamps_before = OutputStamps()  # of this epoch, and of the one before
        self._unsent: list[Result] = []  # computed before the backend failed on a later group

    def configure(self, settings: StreamSettings) -> None:
        """Take over other settings while running; what waits stays.

        Raises:
            ConfigError: other sensors than before, one required that is not there, or a time that
                makes no sense.
        """
        (settings.policy or self.pipeline.policy).check(settings.sensors)
        self.shedder.configure(settings.late)
        self.collector.retime(settings.sensors, settings.wait_ns)
        self.collector.jump_ns = settings.jump_ns
        self.collector.clocks.max_skew_ns = settings.max_skew_ns
        self.collector.clocks.max_lead_ns = settings.max_lead_ns
        self.heartbeat.every_ns = settings.heartbeat_ns
        self.drift.policy = settings.drift
        self.pipeline.policy = settings.policy or self.pipeline.policy
        self.pipeline.aligner.config = settings.alignment or self.pipeline.aligner.config
        self.pipeline.health.config = settings.health or self.pipeline.health.config

    def hear(self, sensor: str, now_ns: int) -> None:
        """Note that a message has arrived that is yet to be looked at; from any thread."""
        self.collector.hear(sensor, now_ns)

    def dated(self, sample: Sample, clock_ns: int, *, told: bool = True) -> Sample:
        """The sample, with its arrival for a stamp when it came without one; see `ArrivalHealth`."""
        return self.arrivals.dated(sample, clock_ns, told=told)

    def push(self, sample: Sample, now_ns: int, clock_ns: int | None = None) -> str:
        """Take in and encode a sample.

        Args:
            sample: a decoded sample of one of the sensors; one without a stamp gets `now_ns` for it.
            now_ns: when it arrived, on a clock that does not go back.
            clock_ns: the same on the clock that stamps are expected to be on; None where there is
                no such clock, and all stamps are believed.

        Returns:
            The collector's disposition, or `unusable` for a sample that its sensor's health or its
            content speaks against, `failed` for one that nobody can encode, or `shed` for one that is
            left out for want of time.

        Raises:
            EngineError: the backend failed.
        """
        sensor = sample.sensor
        counts = self.counts.setdefault(sensor, Counter())
        counts["received"] += 1
        sample = sample.stamped(now_ns)
        timing = self.collector.sensors.get(sensor, SensorTiming())
        stamp = sample.time_ns + timing.offset_ns
        waiting = Waiting(
            sample if not timing.offset_ns else replace(sample, stamp_ns=stamp),
            Arrival(sensor, sample.time_ns, stamp, now_ns),
        )
        if clock_ns is not None:
            self._stamps.ahead_ns = clock_ns - now_ns
        disposition = self.collector.push(
            replace(waiting.arrival, payload=waiting),
            clock_ns,
            dated=sensor in self.arrivals.unstamped,
        )
        if self.collector.epoch != self._epoch:
            self._begin_epoch()
        if disposition != "accepted":
            counts[disposition] += 1
            if self.arrivals.turned_away(sensor, disposition):
                self._forget(sensor)
            return disposition
        admit = self.arrivals.accepted(sensor, self.pipeline.health.config.recover_after)
        if sensor in self.shedder.sensors:
            self._settle_fate(waiting, "shed")
            return "shed"
        self.drift.note(waiting.sample)
        if sensor in self.drift.left_out:
            self._forget(sensor)
            self._settle_fate(waiting, "unusable")
            return "unusable"
        if admit and self._waits_for_range(waiting):
            return "accepted"
        begun = self._begin(waiting, admit)
        if self.pipeline.aligner.measures(sensor) and begun == "accepted":
            for other in of_one_moment(waiting, self.collector):
                if other.unplaced and not other.fate:
                    self._begin(other, True, (waiting.sample,))
        return begun

    def _begin(self, waiting: Waiting, admit: bool, others: tuple[Sample, ...] = ()) -> str:
        """Encode a sample, on the thread of its sensor where there is one."""
        sensor, waiting.unplaced = waiting.sample.sensor, False
        if sensor not in self._lanes:
            return self._encode(waiting, admit, others)
        if self._lanes.is_stalled(sensor):
            self._settle_fate(waiting, "failed")
            return "failed"
        encode = partial(self.pipeline.encode, later=self._unseen(waiting.arrival))
        waiting.pending = self._lanes.submit(
            sensor, encode, waiting.sample, admit=admit, others=others
        )
        return "accepted"

    def _unseen(self, of: Arrival | Group) -> bool:
        """Whether nobody looks at a result that is made when this is there."""
        span = self.looked_at
        return span is not None and not span[0] <= of.arrived_ns < span[1]

    def _waits_for_range(self, waiting: Waiting) -> bool:
        """Whether a sample is left for the depth of its moment, which says where its pixels lie.

        It is encoded when that arrives, else when its group leaves.
        """
        aligner, sensors = self.pipeline.aligner, self.collector.sensors
        measuring = [s for s in sensors if aligner.measures(s) and s not in self.shedder.sensors]
        if not measuring or not aligner.wants_range(waiting.sample):
            return False
        waiting.unplaced = True
        near = of_one_moment(waiting, self.collector)
        useful = (w.sample for w in near if w.sample.sensor in measuring and w.useful)
        if (other := next(useful, None)) is not None:
            self._begin(waiting, True, (other,))
        return True

    def _encode(self, waiting: Waiting, admit: bool = True, others: tuple[Sample, ...] = ()) -> str:
        """Note a sample's features, or why there are none."""
        sensor, pending = waiting.sample.sensor, waiting.pending
        waiting.pending, waiting.fate = None, "failed"
        try:
            if pending is None:
                later = self._unseen(waiting.arrival)
                found = self.pipeline.encode(
                    waiting.sample, admit=admit, others=others, later=later
                )
            else:
                found = self._lanes.wait(sensor, pending)
            if isinstance(found, Encoded):
                waiting.encoded, waiting.fate = found, ""
                self._lanes.took(sensor, sum(found.timings.values()) / 1e3)
            elif found is None or found.state != "stalled":
                waiting.fate = "unusable"
            self._states.say(sensor, found if isinstance(found, SensorWarning) else None)
        except AnySenseError:
            raise
        except Exception as error:  # one sensor's sample must not cost those of the others
            logging.getLogger("anysense.stream").error("%s", error, exc_info=error)
            waiting.fate, line = "unusable", f"{sensor}: {type(error).__name__}: {error}"
            self._states.say(
                sensor, self.pipeline.reject(sensor, "malformed", line.splitlines()[0])
            )
        finally:
            if waiting.fate:
                self._forget(sensor)
                self.counts[sensor][waiting.fate] += 1
        return waiting.fate or "accepted"

    def _begin_epoch(self) -> None:
        self._epoch = self.collector.epoch
        self.pipeline.reset()
        self.arrivals.reset()
        self.drift.forget()
        self._states.clear()
        for sensor in list(self._kept):
            self._forget(sensor)
        self._stamps_before, self._stamps = self._stamps, self._stamps.anew()

    def _forget(self, sensor: str) -> None:
        """Let go of a sensor's last sample; what was in no output counts as superseded."""
        kept = self._kept.pop(sensor, None)
        if kept is not None and not kept.fate:
            self._settle_fate(kept, "superseded")

    def _settle_fate(self, waiting: Waiting, fate: str) -> None:
        settle(self.counts, waiting, fate)

    def close(self) -> None:
        """End the threads that encode, but for one that does not answer."""
        self._lanes.close()
        self.drift.close()
        self._lanes.join()

    def reject(self, sensor: str, line: str, now_ns: int, broken: bool = False) -> None:
        """Count a message that could not be decoded: its sensor is malformed until it recovers.

        Args:
            sensor: its name.
            line: what is wrong with it; the sensor's name is put before it where it is not there.
            now_ns: when it arrived.
            broken: see `SensorWarning`.
        """
        line = line if line.startswith(sensor) else f"{sensor}: {line}"
        self.collector.hear(sensor, now_ns)
        self.counts[sensor].update(("received", "undecodable"))
        self._forget(sensor)
        self._states.say(sensor, self.pipeline.reject(sensor, "malformed", line, broken))

    def skip(self, sensor: str, count: int = 1) -> None:
        """Count messages that newer ones replaced before they were decoded."""
        self.counts[sensor].update({"received": count, "superseded": count})

    def refuse(self, sensor: str, reason: str, count: int = 1) -> None:
        """Count messages as rejected that nobody looked at, such as those before the start."""
        self.counts[sensor].update({"received": count, reason: count})

    def poll(self, now_ns: int) -> list[Result]:
        """The results that are due, oldest first.

        Raises:
            EngineError: the backend failed.
        """
        for sensor in self.arrivals.losses(now_ns):
            self._forget(sensor)
        self.drift.poll(now_ns)
        results, self._unsent = self._unsent, []
        self._polled = now_ns, time.monotonic_ns()
        self.shedder.follow(now_ns)
        groups = self.collector.poll(now_ns)
        while self.shedder.frames and len(groups) > 1:
            self._drop(groups.pop(0))
        for index, group in enumerate(groups):
            try:
                result = self._fuse(group, now_ns)
            except Exception:
                self._unsent = results
                for lost in groups[index:]:
                    self._fail(lost)
                raise
            if result is not None:
                results.append(result)
        if not results and self.heartbeat.due(now_ns) and self.heartbeat.silent(now_ns):
            results.append(self._beat(now_ns))
        self.heartbeat.note(now_ns, bool(results))
        return results

    def next_deadline_ns(self) -> int:
        """When to poll at the latest, given that it was polled before; may lie in the past."""
        beat, due = self.heartbeat.next_ns(), self.collector.next_deadline_ns()
        return beat if due is None else min(due, beat)

    def report(self, now_ns: int) -> dict[str, SensorReport]:
        """Every sensor's state and counts; from any thread."""
        held = [a.payload for a in self.collector.waiting()]
        waiting = Counter(w.sample.sensor for w in held if (w.useful or w.unplaced) and not w.fate)
        waiting.update(m for m, w in list(self._kept.items()) if not w.fate)
        return self._states.reports(now_ns, self.counts, waiting)

    def _now_ns(self) -> int:
        """The present time on the clock of arrivals."""
        if self._clock is not None:
            return self._clock()
        told, at = self._polled
        return told + time.monotonic_ns() - at

    def _drop(self, group: Group) -> None:
        """Let a frame go for want of time."""
        for arrival in group.samples.values():
            waiting: Waiting = arrival.payload
            if waiting.pending is not None:
                waiting.pending.cancel()  # unless it has begun
            if not waiting.fate:
                waiting.pending, waiting.encoded = None, None
                self._settle_fate(waiting, "shed")
        self.shedder.dropped()

    def _age_ns(self, group: Group) -> int:
        return self._now_ns() - group.arrived_ns

    def _is_stale(self, group: Group) -> bool:
        heard = [self.collector.heard_ns(m) or 0 for m in group.samples]
        return self.shedder.stale(self._age_ns(group), max(heard) > group.arrived_ns)

    def _fail(self, group: Group) -> None:
        """Count a group's samples as lost to the backend."""
        for sensor, arrival in group.samples.items():
            waiting = arrival.payload
            if self._kept.get(sensor) is waiting:
                del self._kept[sensor]
            if not waiting.fate:
                waiting.pending, waiting.encoded = None, None
                self._settle_fate(waiting, "failed")

    def _fuse(self, group: Group, now_ns: int) -> Result | None:
        fresh: dict[str, Waiting] = {m: a.payload for m, a in group.samples.items()}
        if all(w.fate == "shed" for w in fresh.values()):
            return None
        if self._is_stale(group):
            self._drop(group)
            return None
        for waiting in fresh.values():
            if waiting.pending is not None:
                self._encode(waiting)
        self._place(group, fresh)
        stale = self._is_stale(group)
        self.shedder.waited(self._age_ns(group))
        if stale:
            self._drop(group)
            return None
        last = self._last_group
        if group.epoch != self._epoch or (last is not None and group.stamp_ns < last[0]):
            self.pipeline.forget_last()
        self._last_group = (group.stamp_ns, now_ns)
        reusable = self._reusable(group)
        if not reusable and all(w.encoded is None for w in fresh.values()):
            self._trust(fresh)
        chosen = {m: w for m, w in fresh.items() if w.encoded is not None}
        for sensor, waiting in chosen.items():
            self._forget(sensor)
            self._kept[sensor] = waiting
        if not chosen and reusable:
            return None  # nothing new: the sensors that still see anchor groups of their own
        parts = {**reusable, **chosen}
        # A group that waited when the clock was set back is the last of its own epoch.
        stamps = self._stamps if group.epoch == self._epoch else self._stamps_before
        while (reference := self._shown_before(parts, stamps)) is not None:
            if reference not in group.overdue:
                return None  # its stamp and pixels are those of an output that was given
            del parts[reference]
        return self._result(group, parts, stamps, now_ns)

    def _place(self, group: Group, fresh: Mapping[str, Waiting]) -> None:
        """Encode what was left for depth that did not come, by the last that is young enough."""
        left = [w for w in fresh.values() if w.unplaced and not w.fate]
        if not left:
            return
        there = [w.sample for w in fresh.values() if w.encoded is not None]
        there += [w.sample for w in self._reusable(group).values()]
        for waiting in left:
            waiting.unplaced = False
            self._encode(waiting, True, tuple(there))

    def _shown_before(self, parts: Mapping[str, Waiting], stamps: OutputStamps) -> str | None:
        """The sensor in whose pixels an output would be that is no newer than the last one."""
        reference = self.pipeline.reference(tuple(parts))
        if reference is None or not self.pipeline.policy.enough(tuple(parts)):
            return None
        source_ns = parts[reference].arrival.source_ns
        return reference if stamps.passed(source_ns, self.collector.jump_ns) else None

    def _trust(self, fresh: Mapping[str, Waiting]) -> None:
        """Encode samples of sensors that have only just come back: better those than none."""
        for sensor, waiting in fresh.items():
            if not self._states.coming_back(sensor) or waiting.fate != "unusable":
                continue
            found = self.pipeline.encode(waiting.sample, trust=True)
            if isinstance(found, Encoded):
                waiting.encoded = found
                self.counts[sensor][waiting.fate] -= 1
                waiting.fate = ""
                self._states.say(sensor, None)

    def _reusable(self, group: Group) -> dict[str, Waiting]:
        """Last samples of the sensors that are not in the group, if they are young enough."""
        limit = self.pipeline.policy.max_age_ms * 1e6
        return {
            m: w
            for m, w in self._kept.items()
            if m not in group.samples and 0 <= group.stamp_ns - w.sample.time_ns <= limit
        }

    def _result(
        self, group: Group, parts: Mapping[str, Waiting], stamps: OutputStamps, now_ns: int
    ) -> Result:
        encoded = {m: w.encoded for m, w in parts.items() if w.encoded is not None}
        used = {m: parts[m] for m in self.pipeline.usable(encoded)}
        fresh = {m: w for m, w in parts.items() if not w.fate}
        weights = self.collector.sensors
        about = Result(
            present=tuple(group.samples),
            health=self._states.healths(now_ns),
            stamp_ns=group.stamp_ns,
            timings={k: v for m in fresh for k, v in encoded[m].timings.items()},
            warnings=self._states.warnings(now_ns),
            samples={m: w.sample for m, w in used.items()},
            output_ns=0 if used else self._present(now_ns),
            reason=group.reason,
            coverage=sum(weights[m].weight for m in used) / sum(t.weight for t in weights.values()),
            spread_ns=group.spread_ns,
            arrived_ns=group.arrived_ns,
            fresh=frozenset(m for m in fresh if m in used),
            source_ns={m: w.arrival.source_ns for m, w in used.items()},
            epoch=group.epoch,
        )
        result = self.pipeline.fuse(encoded, about, answered=not self._unseen(group))
        result = self.shedder.judged(result, self._now_ns())
        for sensor, waiting in fresh.items():
            if sensor in used:
                self._settle_fate(waiting, "used")
            elif sensor in group.samples:
                self._settle_fate(waiting, "superseded")
        if used:
            stamps.note(result.output_ns, now_ns)
        return result

    def _beat(self, now_ns: int) -> Result:
        last = self._last_group
        stamp = 0 if last is None else last[0] + now_ns - last[1]
        about = Result(
            health=self._states.healths(now_ns),
            stamp_ns=stamp,
            warnings=self._states.warnings(now_ns),
            output_ns=self._present(now_ns),
            reason="heartbeat",
            arrived_ns=now_ns,
            epoch=self.collector.epoch,
        )
        return self.pipeline.fuse({}, about)

    def _present(self, now_ns: int) -> int:
        return self._stamps.present_ns(now_ns, self.collector.clocks.base_ns)

"""From samples that arrive when they like to results: collector, encoders and fuser in one.

Pure logic like the `Collector` within: the caller pushes, polls, and brings the time.  Every sample is
encoded when it arrives, so that when a group leaves only the fuser has to run.  A sensor slower than
the others takes part in the groups between its samples with its last features, as long as the
policy's `max_age_ms` allows.  Where it is the one in whose pixels results are given, the groups between
its samples give no output of their own: what came in them takes part in the next.

    stream = Stream(pipeline, {"rgb": SensorTiming(), "lidar": SensorTiming()}, deadline_ns=80_000_000)
    stream.push(sample, time.monotonic_ns())
    for output in stream.poll(time.monotonic_ns()):
        output.result.used, output.result.state, output.stamp_ns
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace

from perception.errors import ConfigError
from perception.frame import MODALITIES, Modality, Sample
from perception.runtime.clocks import OutputStamps
from perception.runtime.collector import Collector, Group, SensorTiming
from perception.runtime.health import HealthState
from perception.runtime.networks import Encoded
from perception.runtime.output import Output, SensorReport
from perception.runtime.pipeline import Pipeline
from perception.runtime.waiting import Ticket, WaitingSample

__all__ = ["Output", "SensorReport", "Stream"]

_LATE_AFTER = 3
"""Late, or equally stamped, samples in a row that make a fault: now and then there is one of any."""


class Stream:
    """Runs a pipeline on samples as they arrive.  To be used from one thread at a time.

    Args:
        pipeline: the pipeline; its `expected` modalities become those of `sensors`.
        sensors: timing of each input.
        deadline_ns: longest wait of any sample for the others.
        heartbeat_ns: while no sensor gives anything to make an output of, a result in state hold or
            stop comes this often.
        jump_ns, max_skew_ns: as for `Collector`.
        parallel: encode samples that wait for others anyway on a thread of their sensor, while the
            one that completes the group is encoded by the caller.  `push` then calls a sample
            accepted before it is known to be usable.  Needs `close` at the end.

    Raises:
        ConfigError: no sensor that the bundle takes, or one that it does not take.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sensors: Mapping[Modality, SensorTiming],
        deadline_ns: int,
        *,
        heartbeat_ns: int = 200_000_000,
        jump_ns: int = 1_000_000_000,
        max_skew_ns: int | None = None,
        parallel: bool = False,
    ) -> None:
        foreign = [m for m in sensors if m not in pipeline.modalities]
        if foreign:
            raise ConfigError(
                f"the bundle takes {', '.join(pipeline.modalities)}, not {', '.join(foreign)}",
                where="inputs",
            )
        self.pipeline = pipeline
        self.collector = Collector(
            sensors,
            deadline_ns,
            jump_ns=jump_ns,
            max_skew_ns=max_skew_ns,
            superseded=self._supersede,
        )
        self.heartbeat_ns = heartbeat_ns
        self.counts: dict[Modality, Counter[str]] = {m: Counter() for m in self.collector.sensors}
        pipeline.expected = tuple(self.collector.sensors)
        # One thread per sensor, so that its samples are checked and encoded in order.
        self._threads = {
            m: ThreadPoolExecutor(1, f"encode_{m}")
            for m in (self.collector.sensors if parallel and len(sensors) > 1 else ())
        }
        self._under_way: dict[Modality, Future[Encoded | None]] = {}
        self._kept: dict[Modality, WaitingSample] = {}
        self._lates: Counter[Modality] = Counter()  # late samples in a row
        self._lost: set[Modality] = set()
        self._stuck: set[Modality] = set()  # those that repeat one stamp
        self._repeats: Counter[Modality] = Counter()  # how often in a row
        self._unstamped: dict[Modality, int] = {}  # the last stamp that was given to a sample
        self._epoch = self.collector.epoch
        self._beat_ns: int | None = None
        self._answered_ns: int | None = None  # when the last output or heartbeat was given
        self._last_group: tuple[int, int] | None = None  # its stamp, and when it left
        self._stamps = self._stamps_before = OutputStamps()  # of this epoch, and of the one before
        self._unsent: list[Output] = []  # computed before the backend failed on a later group

    def hear(self, modality: Modality, now_ns: int) -> None:
        """Note that a message has arrived that is yet to be looked at; from any thread."""
        self.collector.hear(modality, now_ns)

    def dated(self, sample: Sample, clock_ns: int) -> Sample:
        """The sample, with its arrival for a stamp when it came without one (stamp 0).

        Args:
            sample: a decoded sample of one of the inputs.
            clock_ns: when it arrived, on the clock that stamps are expected to be on.
        """
        modality = sample.modality
        if sample.stamp_ns:
            self._unstamped.pop(modality, None)
            return sample
        now = clock_ns + self.collector.clocks.base_ns
        # A simulated clock may stand between two messages; their stamps must differ all the same.
        stamp = max(now, self._unstamped.get(modality, now - 1) + 1)
        if stamp - now > self.collector.jump_ns:
            stamp = now  # the clock was set back
        self._unstamped[modality] = stamp
        return replace(sample, stamp_ns=stamp)

    def push(self, sample: Sample, now_ns: int, clock_ns: int | None = None) -> str:
        """Take in and encode a sample.

        Args:
            sample: a decoded sample of one of the inputs; one without a stamp gets `now_ns` for it.
            now_ns: when it arrived, on a clock that does not go back.
            clock_ns: the same on the clock that stamps are expected to be on; None where there is
                no such clock, and all stamps are believed.

        Returns:
            The collector's disposition, or `unusable` for a sample that its sensor's health or its
            content speaks against.

        Raises:
            EngineError: the backend failed.
        """
        modality = sample.modality
        counts = self.counts.setdefault(modality, Counter())
        counts["received"] += 1
        sample = sample.stamped(now_ns)
        values = {f.name: getattr(sample, f.name) for f in fields(Sample)}
        ticket = Ticket(now_ns, sample.time_ns)
        if clock_ns is not None:
            self._stamps.ahead_ns = clock_ns - now_ns
        disposition = self.collector.push(
            WaitingSample(**values, ticket=ticket),
            now_ns,
            clock_ns,
            dated=modality in self._unstamped,
        )
        if self.collector.epoch != self._epoch:
            self._begin_epoch()
        self._repeats[modality] = self._repeats[modality] + 1 if disposition == "duplicate" else 0
        if disposition != "accepted":
            counts[disposition] += 1
            self._turned_away(modality, disposition)
            return disposition
        del self._lates[modality]
        self._lost.discard(modality)
        self._stuck.discard(modality)
        offset = self.collector.sensors[modality].offset_ns
        stamped = replace(sample, stamp_ns=sample.time_ns + offset)
        thread, before = self._threads.get(modality), self._under_way.get(modality)
        idle = before is None or before.done()
        if thread is not None and not (idle and self.collector.due(now_ns)):
            ticket.pending = self._under_way[modality] = thread.submit(
                self.pipeline.encode, stamped
            )
            return "accepted"
        return self._encode(modality, ticket, lambda: self.pipeline.encode(stamped))

    def _encode(
        self, modality: Modality, ticket: Ticket, encode: Callable[[], Encoded | None]
    ) -> str:
        """Note a sample's features, or why there are none."""
        ticket.pending, ticket.fate = None, "failed"
        try:
            ticket.encoded = encode()
            ticket.fate = "" if ticket.encoded is not None else "unusable"
        finally:
            if ticket.fate:
                self._forget(modality)
                self.counts[modality][ticket.fate] += 1
        return ticket.fate or "accepted"

    def _begin_epoch(self) -> None:
        self._epoch = self.collector.epoch
        self.pipeline.reset()
        for modality in list(self._kept):
            self._forget(modality)
        self._stamps_before, self._stamps = self._stamps, self._stamps.anew()

    def _turned_away(self, modality: Modality, disposition: str) -> None:
        """Note what a sample that the collector did not take says about its sensor."""
        if disposition == "late":
            self._lates[modality] += 1
        elif disposition == "skewed" and modality in self.collector.clocks.out:
            self._lost.discard(modality)
            self._forget(modality)
            self.pipeline.reject(modality, "skewed", self.collector.clocks.line(modality))

    def _forget(self, modality: Modality) -> None:
        """Let go of a sensor's last sample; what was in no output counts as superseded."""
        kept = self._kept.pop(modality, None)
        if kept is not None and not kept.ticket.fate:
            self._settle_fate(kept, "superseded")

    def _settle_fate(self, sample: WaitingSample, fate: str) -> None:
        sample.ticket.fate = fate
        self.counts[sample.modality][fate] += 1

    def close(self) -> None:
        """End the threads that encode."""
        for thread in self._threads.values():
            thread.shutdown()

    def reject(self, modality: Modality, line: str, now_ns: int) -> None:
        """Count a message that could not be decoded: its sensor is malformed until it recovers.

        Args:
            modality: the sensor.
            line: what is wrong with it.
            now_ns: when it arrived.
        """
        self.collector.hear(modality, now_ns)
        self.counts[modality].update(("received", "undecodable"))
        self._forget(modality)
        self.pipeline.reject(modality, "malformed", line)

    def skip(self, modality: Modality) -> None:
        """Count a message that a newer one replaced before it was decoded."""
        self.counts[modality].update(("received", "superseded"))

    def refuse(self, modality: Modality, reason: str, count: int = 1) -> None:
        """Count messages as rejected that nobody looked at, such as those before the start."""
        self.counts[modality].update({"received": count, reason: count})

    def poll(self, now_ns: int) -> list[Output]:
        """The outputs that are due, oldest first.

        Raises:
            EngineError: the backend failed.
        """
        self._note_losses(now_ns)
        outputs, self._unsent = self._unsent, []
        groups = self.collector.poll(now_ns)
        for index, group in enumerate(groups):
            try:
                output = self._fuse(group, now_ns)
            except Exception:
                self._unsent = outputs
                for lost in groups[index:]:
                    self._fail(lost)
                raise
            if output is not None:
                outputs.append(output)
        due = self._beat_ns is not None and now_ns - self._beat_ns >= self.heartbeat_ns
        if due and not outputs and self._silent(now_ns):
            outputs.append(self._heartbeat(now_ns))
        if outputs or self._answered_ns is None:
            self._answered_ns = now_ns
        if due or outputs or self._beat_ns is None:
            self._beat_ns = now_ns
        return outputs

    def next_deadline_ns(self) -> int:
        """When to poll at the latest, given that it was polled before; may lie in the past."""
        beat = (self._beat_ns or 0) + self.heartbeat_ns
        due = self.collector.next_deadline_ns()
        return beat if due is None else min(due, beat)

    def report(self, now_ns: int) -> dict[Modality, SensorReport]:
        """Every input's state and counts, in canonical order."""
        health, lines = self._health(now_ns), self._lines(now_ns)
        waiting = Counter(
            s.modality
            for s in self.collector.waiting()
            if isinstance(s, WaitingSample) and s.ticket.usable and not s.ticket.fate
        )
        waiting.update(m for m, s in list(self._kept.items()) if not s.ticket.fate)
        reports: dict[Modality, SensorReport] = {}
        for modality in self.collector.sensors:
            heard = self.collector.heard_ns(modality)
            silent = math.nan if heard is None else max(0, now_ns - heard) / 1e6
            counts = Counter(dict(self.counts[modality]))  # another thread may be counting
            kept_apart = ("received", "used", "superseded")
            rejected = sum(n for reason, n in counts.items() if reason not in kept_apart)
            offset = self.collector.clocks.offset_ns(modality)
            reports[modality] = SensorReport(
                health[modality],
                silent,
                counts["received"],
                counts["used"],
                counts["superseded"],
                rejected,
                waiting[modality],
                lines.get(modality, ""),
                math.nan if offset is None else offset / 1e6,
            )
        return reports

    def _supersede(self, sample: Sample) -> None:
        """Count a sample that the collector let go of, unless it was counted as rejected before."""
        if isinstance(sample, WaitingSample) and not sample.ticket.fate:
            self._settle_fate(sample, "superseded")

    def _fail(self, group: Group) -> None:
        """Count a group's samples as lost to the backend."""
        for modality, sample in group.samples.items():
            if self._kept.get(modality) is sample:
                del self._kept[modality]
            if isinstance(sample, WaitingSample) and not sample.ticket.fate:
                sample.ticket.pending, sample.ticket.encoded = None, None
                self._settle_fate(sample, "failed")

    def _note_losses(self, now_ns: int) -> None:
        lost, idle = self.collector.lost(now_ns), self.collector.idle(now_ns)
        for modality in idle:
            if self.collector.heard_ns(modality) is None:
                continue
            timeout = self.collector.sensors[modality].timeout_ns / 1e6
            stuck = self._repeats[modality] >= _LATE_AFTER and modality not in self._stuck
            if modality in lost and modality not in self._lost:
                self._lost.add(modality)
                self._forget(modality)
                line = f"{modality}: no message for more than {timeout:.0f} ms"
                self.pipeline.reject(modality, "lost", line)
            elif modality not in lost and stuck:
                self._stuck.add(modality)
                self._forget(modality)
                line = f"{modality}: the same stamp again and again for more than {timeout:.0f} ms"
                self.pipeline.reject(modality, "frozen", line)

    def _silent(self, now_ns: int) -> bool:
        """Whether no sensor gives anything to make an output of."""
        sensors = self.collector.sensors
        longest = max(t.timeout_ns for t in sensors.values())
        mute = self._answered_ns is not None and now_ns - self._answered_ns >= longest
        return mute or len(self.collector.idle(now_ns)) == len(sensors)

    def _health(self, now_ns: int) -> dict[Modality, HealthState]:
        lost = self.collector.lost(now_ns)
        states: dict[Modality, HealthState] = {}
        for modality in self.collector.sensors:
            state = self.pipeline.health.state(modality)
            if modality in lost:
                state = "lost"
            elif self._lates[modality] >= _LATE_AFTER and state in ("ok", "lost"):
                state = "late"
            states[modality] = state
        return states

    def _lines(self, now_ns: int) -> dict[Modality, str]:
        """What there is to say about each sensor, when not all is well."""
        lines = self.pipeline.lines
        health = self._health(now_ns)
        for modality in self.collector.sensors:
            if health[modality] == "late" and modality not in lines:
                lines[modality] = (
                    f"{modality}: messages come when newer groups have left: longer on the way than "
                    "the deadline, or stamps that are behind"
                )
            elif modality in self._unstamped and modality not in lines:
                lines[modality] = f"{modality}: no stamps in its messages; arrival is taken"
            elif modality not in lines and (line := self.collector.clocks.line(modality)):
                lines[modality] = line
        return {m: lines[m] for m in self.collector.sensors if m in lines}

    def _settle(self, group: Group) -> None:
        """Wait for those of a group's samples that other threads encode."""
        for modality, sample in group.samples.items():
            if isinstance(sample, WaitingSample) and sample.ticket.pending is not None:
                self._encode(modality, sample.ticket, sample.ticket.pending.result)

    def _fuse(self, group: Group, now_ns: int) -> Output | None:
        self._settle(group)
        if group.epoch != self._epoch or (
            self._last_group is not None and group.stamp_ns < self._last_group[0]
        ):
            self.pipeline.forget_last()
        self._last_group = (group.stamp_ns, now_ns)
        chosen = {m: s for m, s in self._fresh(group).items() if s.ticket.encoded is not None}
        for modality, sample in chosen.items():
            self._forget(modality)
            self._kept[modality] = sample
        reusable = self._reusable(group)
        if not chosen and reusable:
            return None  # nothing new: the sensors that still see anchor groups of their own
        parts = {**reusable, **chosen}
        # A group that waited when the clock was set back is the last of its own epoch.
        stamps = self._stamps if group.epoch == self._epoch else self._stamps_before
        while (reference := self._shown_before(parts, stamps)) is not None:
            if reference not in group.overdue:
                return None  # its stamp and pixels are those of an output that was given
            del parts[reference]
        return self._output(group, parts, stamps, now_ns)

    def _shown_before(
        self, parts: Mapping[Modality, WaitingSample], stamps: OutputStamps
    ) -> Modality | None:
        """The modality in whose pixels an output would be that is no newer than the last one."""
        reference, last = _reference(parts), stamps.last_ns
        if reference is None or last is None or not self.pipeline.policy.enough(parts):
            return None
        # Further back is another clock: one that stays behind must not silence the output for good.
        behind = last - parts[reference].ticket.source_ns
        return reference if 0 <= behind <= self.collector.jump_ns else None

    def _fresh(self, group: Group) -> dict[Modality, WaitingSample]:
        fresh = {m: s for m, s in group.samples.items() if isinstance(s, WaitingSample)}
        if all(s.ticket.encoded is None for s in fresh.values()) and not self._reusable(group):
            # Better a sensor that has only just come back than none.
            for modality, sample in fresh.items():
                if self.pipeline.health.recovering(modality):
                    sample.ticket.encoded = self.pipeline.encode(sample, trust=True)
                    if sample.ticket.encoded is not None:
                        self.counts[modality][sample.ticket.fate] -= 1
                        sample.ticket.fate = ""
        return fresh

    def _reusable(self, group: Group) -> dict[Modality, WaitingSample]:
        """Last samples of the sensors that are not in the group, if they are young enough."""
        limit = self.pipeline.policy.max_age_ms * 1e6
        return {
            m: s
            for m, s in self._kept.items()
            if m not in group.samples and 0 <= group.stamp_ns - s.time_ns <= limit
        }

    def _output(
        self,
        group: Group,
        parts: Mapping[Modality, WaitingSample],
        stamps: OutputStamps,
        now_ns: int,
    ) -> Output:
        encoded = {m: s.ticket.encoded for m, s in parts.items() if s.ticket.encoded is not None}
        result = self.pipeline.fuse_encoded(encoded, group.samples, group.stamp_ns)
        used = {m: parts[m] for m in MODALITIES if m in result.used}
        fresh = {m: s for m, s in parts.items() if not s.ticket.fate}
        timings = {k: v for m in fresh for k, v in encoded[m].timings.items()}
        for modality, sample in fresh.items():
            if modality in used:
                self._settle_fate(sample, "used")
            elif modality in group.samples:
                self._settle_fate(sample, "superseded")
        total = sum(timings.values()) + result.timings.get("total", 0.0)
        result = replace(
            result,
            health=dict(self._health(now_ns)),
            timings={**timings, **result.timings, "total": total},
            warnings=tuple(self._lines(now_ns).values()),
        )
        reference = _reference(used)
        source = {m: s.ticket.source_ns for m, s in used.items()}
        arrivals = [
            s.ticket.arrived_ns for s in group.samples.values() if isinstance(s, WaitingSample)
        ]
        weights = self.collector.sensors
        return Output(
            result,
            used,
            reference,
            self._present(now_ns) if reference is None else stamps.note(source[reference], now_ns),
            group.reason,
            sum(weights[m].weight for m in used) / sum(t.weight for t in weights.values()),
            group.spread_ns,
            max(arrivals),
            frozenset(m for m in fresh if m in used),
            source,
            group.epoch,
        )

    def _heartbeat(self, now_ns: int) -> Output:
        stamp = 0
        if self._last_group is not None:
            stamp = self._last_group[0] + now_ns - self._last_group[1]
        result = self.pipeline.fuse_encoded({}, (), stamp)
        warnings = tuple(self._lines(now_ns).values())
        result = replace(result, health=dict(self._health(now_ns)), warnings=warnings)
        at, epoch = self._present(now_ns), self.collector.epoch
        return Output(result, {}, None, at, "heartbeat", 0.0, 0, now_ns, epoch=epoch)

    def _present(self, now_ns: int) -> int:
        return self._stamps.present_ns(now_ns, self.collector.clocks.base_ns)


def _reference(parts: Collection[Modality]) -> Modality | None:
    """The modality in whose pixels a result from these is given."""
    return "rgb" if "rgb" in parts else next((m for m in MODALITIES if m in parts), None)

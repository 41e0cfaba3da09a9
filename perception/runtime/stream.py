"""From samples that arrive when they like to results: collector, encoders and fuser in one.

Pure logic like the `Collector` within: the caller pushes, polls, and brings the time.  Every sample is
encoded when it arrives, so that when a group leaves only the fuser has to run.  A sensor slower than
the others takes part in the groups between its samples with its last features, as long as the
policy's `max_age_ms` allows.

    stream = Stream(pipeline, {"rgb": SensorTiming(), "lidar": SensorTiming()}, deadline_ns=80_000_000)
    stream.push(sample, time.monotonic_ns())
    for output in stream.poll(time.monotonic_ns()):
        output.result.used, output.result.state, output.stamp_ns
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

from perception.errors import ConfigError
from perception.frame import MODALITIES, Modality, Sample
from perception.runtime.collector import Collector, Group, SensorTiming
from perception.runtime.health import HealthState
from perception.runtime.pipeline import Encoded, Pipeline
from perception.runtime.result import Result


@dataclass
class _Ticket:
    """What belongs to a sample while it waits."""

    arrived_ns: int
    encoded: Encoded | None = None
    pending: Future[Encoded | None] | None = None  # being encoded on another thread
    refused: str = ""  # as what the sample was counted, when it cannot be used

    @property
    def usable(self) -> bool:
        """Whether the sample can be used, as far as is known."""
        return self.encoded is not None or self.pending is not None


@dataclass(frozen=True)
class _Waiting(Sample):
    """A sample with its ticket, which goes through the collector with it."""

    ticket: _Ticket = field(default_factory=lambda: _Ticket(0))


@dataclass(frozen=True)
class SensorReport:
    """A sensor's state and the fate of its samples.

    Attributes:
        health: `ok`, `late`, `lost`, `frozen`, `dark`, `saturated` or `malformed`.
        silent_ms: time since its last sample, NaN when there was none.
        received: all samples; received = used + superseded + rejected + waiting.
        used: samples that a result was computed from.
        superseded: samples that a newer one replaced, or whose group gave no result.
        rejected: late, duplicate, skewed, malformed, dark, frozen or otherwise unusable samples,
            and those that were lost to a failing engine.
        waiting: encoded samples in open groups.
    """

    health: HealthState
    silent_ms: float
    received: int
    used: int
    superseded: int
    rejected: int
    waiting: int


@dataclass(frozen=True)
class Output:
    """A result and what it came from.

    Attributes:
        result: the pipeline's answer; its `health` is the stream's, its `timings` include encoding,
            and its `ages_ns` are against `stamp_ns` of the newest sample used.
        samples: those used, by modality, with stamps on the reference clock.
        reference: the modality whose pixels the result is given in; None without output.
        stamp_ns: that sample's stamp on its own clock; without output the present time.
        reason: `complete`, `deadline`, `flush`, or `heartbeat` for a result without any sample.
        coverage: share of the sensors' weights in it.
        spread_ns: between the oldest and newest sample of the group.
        arrived_ns: when the last of its samples arrived, on the caller's clock.
    """

    result: Result
    samples: Mapping[Modality, Sample]
    reference: Modality | None
    stamp_ns: int
    reason: str
    coverage: float
    spread_ns: int
    arrived_ns: int


class Stream:
    """Runs a pipeline on samples as they arrive.  To be used from one thread at a time.

    Args:
        pipeline: the pipeline; its `expected` modalities become those of `sensors`.
        sensors: timing of each input.
        deadline_ns: longest wait of any sample for the others.
        heartbeat_ns: with every sensor lost, a result in state hold or stop comes this often.
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
        self._kept: dict[Modality, _Waiting] = {}
        self._late: set[Modality] = set()
        self._lost: set[Modality] = set()
        self._garbled: dict[Modality, int] = {}  # arrival of the last message without a sample
        self._epoch = self.collector.epoch
        self._beat_ns: int | None = None
        self._last_group: tuple[int, int] | None = None  # its stamp, and when it left
        self._unsent: list[Output] = []  # computed before the backend failed on a later group

    def push(self, sample: Sample, now_ns: int) -> str:
        """Take in and encode a sample.

        Args:
            sample: a decoded sample of one of the inputs.
            now_ns: when it arrived, on a clock that does not go back.

        Returns:
            The collector's disposition, or `unusable` for a sample that its sensor's health or its
            content speaks against.

        Raises:
            EngineError: the backend failed.
        """
        modality = sample.modality
        counts = self.counts.setdefault(modality, Counter())
        counts["received"] += 1
        values = {f.name: getattr(sample, f.name) for f in fields(Sample)}
        ticket = _Ticket(now_ns)
        disposition = self.collector.push(_Waiting(**values, ticket=ticket), now_ns)
        if self.collector.epoch != self._epoch:
            self._epoch = self.collector.epoch
            self.pipeline.reset()
            self._kept.clear()
            self._garbled.clear()
        if disposition != "accepted":
            counts[disposition] += 1
            if disposition == "late":
                self._late.add(modality)
            return disposition
        self._late.discard(modality)
        self._lost.discard(modality)
        offset = self.collector.sensors[modality].offset_ns
        stamped = replace(sample, stamp_ns=sample.stamp_ns + offset)
        thread, before = self._threads.get(modality), self._under_way.get(modality)
        idle = before is None or before.done()
        if thread is not None and not (idle and self.collector.due(now_ns)):
            ticket.pending = self._under_way[modality] = thread.submit(
                self.pipeline.encode, stamped
            )
            return "accepted"
        return self._encode(modality, ticket, lambda: self.pipeline.encode(stamped))

    def _encode(
        self, modality: Modality, ticket: _Ticket, encode: Callable[[], Encoded | None]
    ) -> str:
        """Note a sample's features, or why there are none."""
        ticket.pending, ticket.refused = None, "failed"
        try:
            ticket.encoded = encode()
            ticket.refused = "" if ticket.encoded is not None else "unusable"
        finally:
            if ticket.refused:
                self._kept.pop(modality, None)
                self.counts[modality][ticket.refused] += 1
        return ticket.refused or "accepted"

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
        self._garbled[modality] = now_ns
        self.counts[modality].update(("received", "undecodable"))
        self._kept.pop(modality, None)
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
        health = self._health(now_ns)
        waiting = Counter(
            s.modality
            for s in self.collector.waiting()
            if isinstance(s, _Waiting) and s.ticket.usable
        )
        reports: dict[Modality, SensorReport] = {}
        for modality in self.collector.sensors:
            heard = max(
                (t for t in (self.collector.heard_ns(modality), self._garbled.get(modality)) if t),
                default=None,
            )
            silent = math.nan if heard is None else max(0, now_ns - heard) / 1e6
            counts = Counter(dict(self.counts[modality]))  # another thread may be counting
            kept_apart = ("received", "used", "superseded")
            rejected = sum(n for reason, n in counts.items() if reason not in kept_apart)
            reports[modality] = SensorReport(
                health[modality],
                silent,
                counts["received"],
                counts["used"],
                counts["superseded"],
                rejected,
                waiting[modality],
            )
        return reports

    def _supersede(self, sample: Sample) -> None:
        """Count a sample that the collector let go of, unless it was counted as rejected before."""
        if isinstance(sample, _Waiting) and not sample.ticket.refused:
            self.counts[sample.modality]["superseded"] += 1

    def _fail(self, group: Group) -> None:
        """Count a group's samples as lost to the backend."""
        for modality, sample in group.samples.items():
            if isinstance(sample, _Waiting) and not sample.ticket.refused:
                sample.ticket.pending, sample.ticket.encoded = None, None
                sample.ticket.refused = "failed"
                self.counts[modality]["failed"] += 1

    def _note_losses(self, now_ns: int) -> None:
        for modality in self._gone(now_ns):
            if modality in self._lost or self.collector.heard_ns(modality) is None:
                continue
            self._lost.add(modality)
            self._kept.pop(modality, None)
            timeout = self.collector.sensors[modality].timeout_ns / 1e6
            line = f"{modality}: no message for more than {timeout:.0f} ms"
            self.pipeline.reject(modality, "lost", line)

    def _gone(self, now_ns: int) -> list[Modality]:
        """The sensors that say nothing: those that send what cannot be decoded are malformed."""
        return [
            m
            for m in self.collector.lost(now_ns)
            if m not in self._garbled
            or now_ns - self._garbled[m] > self.collector.sensors[m].timeout_ns
        ]

    def _silent(self, now_ns: int) -> bool:
        return len(self.collector.lost(now_ns)) == len(self.collector.sensors)

    def _health(self, now_ns: int) -> dict[Modality, HealthState]:
        lost = self._gone(now_ns)
        states: dict[Modality, HealthState] = {}
        for modality in self.collector.sensors:
            state = self.pipeline.health.state(modality)
            if modality in lost:
                state = "lost"
            elif modality in self._late and state in ("ok", "lost"):
                state = "late"
            states[modality] = state
        return states

    def _settle(self, group: Group) -> None:
        """Wait for those of a group's samples that other threads encode."""
        for modality, sample in group.samples.items():
            if isinstance(sample, _Waiting) and sample.ticket.pending is not None:
                self._encode(modality, sample.ticket, sample.ticket.pending.result)

    def _fuse(self, group: Group, now_ns: int) -> Output | None:
        self._settle(group)
        if group.epoch != self._epoch or (
            self._last_group is not None and group.stamp_ns < self._last_group[0]
        ):
            self.pipeline.forget_last()
        self._last_group = (group.stamp_ns, now_ns)
        chosen = {m: s for m, s in self._fresh(group).items() if s.ticket.encoded is not None}
        self._kept.update(chosen)
        if not chosen and self._reusable(group):
            return None  # nothing new: the sensors that still see anchor groups of their own
        return self._output(group, {**self._reusable(group), **chosen}, chosen, now_ns)

    def _fresh(self, group: Group) -> dict[Modality, _Waiting]:
        fresh = {m: s for m, s in group.samples.items() if isinstance(s, _Waiting)}
        if all(s.ticket.encoded is None for s in fresh.values()) and not self._reusable(group):
            # Better a sensor that has only just come back than none.
            for modality, sample in fresh.items():
                if self.pipeline.health.recovering(modality):
                    sample.ticket.encoded = self.pipeline.encode(sample, trust=True)
                    if sample.ticket.encoded is not None:
                        self.counts[modality][sample.ticket.refused] -= 1
                        sample.ticket.refused = ""
        return fresh

    def _reusable(self, group: Group) -> dict[Modality, _Waiting]:
        """Last samples of the sensors that are not in the group, if they are young enough."""
        limit = self.pipeline.policy.max_age_ms * 1e6
        return {
            m: s
            for m, s in self._kept.items()
            if m not in group.samples and 0 <= group.stamp_ns - s.stamp_ns <= limit
        }

    def _output(
        self,
        group: Group,
        chosen: Mapping[Modality, _Waiting],
        fresh: Mapping[Modality, _Waiting],
        now_ns: int,
    ) -> Output:
        encoded = {m: s.ticket.encoded for m, s in chosen.items() if s.ticket.encoded is not None}
        result = self.pipeline.fuse_encoded(encoded, group.samples, group.stamp_ns)
        for modality in fresh:
            self.counts[modality]["used" if modality in result.used else "superseded"] += 1
        timings = {k: v for m in fresh for k, v in encoded[m].timings.items()}
        total = sum(timings.values()) + result.timings.get("total", 0.0)
        result = replace(
            result,
            health=dict(self._health(now_ns)),
            timings={**timings, **result.timings, "total": total},
        )
        used = {m: chosen[m] for m in MODALITIES if m in result.used}
        reference: Modality | None = "rgb" if "rgb" in used else next(iter(used), None)
        stamp = result.stamp_ns
        if reference is not None:
            stamp = used[reference].stamp_ns - self.collector.sensors[reference].offset_ns
        arrivals = [s.ticket.arrived_ns for s in group.samples.values() if isinstance(s, _Waiting)]
        weights = self.collector.sensors
        return Output(
            result,
            used,
            reference,
            stamp,
            group.reason,
            sum(weights[m].weight for m in used) / sum(t.weight for t in weights.values()),
            group.spread_ns,
            max(arrivals),
        )

    def _heartbeat(self, now_ns: int) -> Output:
        stamp = 0
        if self._last_group is not None:
            stamp = self._last_group[0] + now_ns - self._last_group[1]
        result = self.pipeline.fuse_encoded({}, (), stamp)
        result = replace(result, health=dict(self._health(now_ns)))
        return Output(result, {}, None, result.stamp_ns, "heartbeat", 0.0, 0, now_ns)

"""The public stream: sensors push from any thread, results come when they are due.

    with perception.Stream.open("indoor-rgbd", sensors={"rgb": 30, "depth": 15}) as stream:
        stream.push("rgb", bgr, encoding="bgr8")
        stream.push("depth", depth_mm, encoding="16UC1")
        for result in stream:
            print(result.state, result.used)

A thread decodes, matches and fuses (`StreamCore`); each sensor has one that encodes.  `push` never
waits: a message that was not fetched before the next of its sensor gives way to it, and is counted.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections import Counter, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np

from perception.errors import AnySenseError, EngineError, InputError, meant
from perception.frame import Sample
from perception.plugins import PluginError
from perception.runtime.arrival import SensorTiming
from perception.runtime.bundle import Bundle
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.drift import DriftPolicy
from perception.runtime.engines.base import first_line
from perception.runtime.health import HealthConfig
from perception.runtime.inbox import Inbox
from perception.runtime.lateness import LatePolicy
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.recovery import Recovery
from perception.runtime.result import EngineEvent, Lateness, Result, SensorReport
from perception.runtime.timing import Clock, Moment, Rates, settings_for
from perception.sensors.samples import sample_of, to_sample

__all__ = ["Clock", "Listener", "Moment", "Stream", "StreamSettings"]

_LOG = logging.getLogger("anysense.stream")
_SIMULATED_STEP_S = 0.02
_ENDING_S = 10.0
T = TypeVar("T")
_Hinted = namedtuple("_Hinted", "data hints")


class Listener:
    """What a stream tells, on its own thread.  Subclass what you want to hear."""

    def result(self, result: Result) -> None:
        """A result, with or without output."""

    def waiting(self) -> None:
        """There is no pipeline yet, or none that runs; now and then while that is so."""

    def alive(self) -> None:
        """Before each piece of work, and several times a lease without any."""

    def wanted(self) -> frozenset[str] | None:
        """Which parts of results somebody listens to, of `Pipeline.parts`."""
        return None

    def event(self, event: EngineEvent) -> None:
        """Something happened to the engines."""
        if event.kind != "fallback":  # the engines' own logger has said that
            level = logging.ERROR if event.kind == "failed" else logging.WARNING
            _LOG.log(level, "%s", event.text)

    def lateness(self, lateness: Lateness) -> None:
        """Another step of the ladder is taken, or one taken back; see `LatePolicy`."""
        level = logging.WARNING if lateness.level else logging.INFO
        _LOG.log(level, "%s", lateness.line or "results are in time: nothing is left out")

    def problem(self, error: Exception) -> None:
        """Something went wrong with one message, or in one of these methods; the stream goes on."""
        _LOG.error("%s", error, exc_info=None if isinstance(error, AnySenseError) else error)


class _Collected(Listener):
    """Keeps results for whoever iterates, and hands them to a callback."""

    def __init__(self, kept: int, call: Callable[[Result], None] | None) -> None:
        self.results: deque[Result] = deque(maxlen=kept)
        self.changed = threading.Condition()
        self.dropped = 0
        self._call = call

    def result(self, result: Result) -> None:
        if self._call is not None:
            self._call(result)
            return
        with self.changed:
            self.dropped += len(self.results) == self.results.maxlen
            self.results.append(result)
            self.changed.notify()


class Stream:
    """Runs a pipeline on what sensors send.  Every method may be called from any thread.

    Use `Stream.open`; the constructor is for those who bring their own clock, decoder or listener, as
    the ROS 2 node does.

    Args:
        settings: timing of the sensors and the rest; see `StreamSettings`.
        pipeline: what runs; None where it comes later, with `use`.
        decode: makes a sample of what was pushed; by default arrays, messages and samples are taken.
        listener: told of results and events; by default results wait to be iterated over.
        clock: the time of arrivals and deadlines; the system's by default.
        lease_s: how often somebody must hear that the stream is alive.
        threads: CPU threads for engines that are loaded anew.
        rates: adapts the sensors' timeouts to how often they speak; None leaves them.
        kept: how many results wait for whoever iterates; older ones give way.

    Attributes:
        settings: those in force.
        counters: `received_<s>`, `dropped_<s>` (a newer one came before it was looked at), `early_<s>`
            (before there was a pipeline), `malformed_<s>`, `errors`, `engine_failures`,
            `engine_reloads`.
        core: what matches and fuses; None until there is a pipeline.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        pipeline: Pipeline | None = None,
        decode: Callable[[str, Any, Moment], Sample] | None = None,
        listener: Listener | None = None,
        clock: Clock | None = None,
        lease_s: float = math.inf,
        threads: int | None = None,
        rates: Rates | None = None,
        kept: int = 16,
        on_result: Callable[[Result], None] | None = None,
    ) -> None:
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.core: StreamCore | None = None
        self.clock = clock or Clock()
        self._inbox: Inbox[str, Moment] = Inbox()
        self._decode = decode or self._taken
        self._collected = _Collected(kept, on_result)
        self._listener = listener or self._collected
        self._lease_s, self._rates = lease_s, rates
        self._event = partial(self._safely, self._listener.event)
        self._recovery = Recovery(threads, self.counters, self._event)
        self._told = 0.0
        self._level = 0
        if pipeline is not None:
            self._begin(pipeline)
        self._thread = threading.Thread(target=self._run, name="perception", daemon=True)
        self._thread.start()
        _STREAMS.add(self)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        sensors: Mapping[str, float | SensorTiming | None] | None = None,
        *,
        inputs: Mapping[str, str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        policy: Policy | None = None,
        health: HealthConfig | None = None,
        on_result: Callable[[Result], None] | None = None,
        kept: int = 16,
        progress: Callable[[str], None] | None = None,
        deadline_s: float | LatePolicy | None = None,
        drift: DriftPolicy | None = None,
        **options: Any,
    ) -> Stream:
        """Load a bundle, warm its engines up, and begin.

        Args:
            bundle: folder or zip of a bundle, or the name of one that comes with AnySense; or one that is
                open already.
            sensors: those that there are, by name, each with how often it gives a sample (Hz), None
                where that is to be found out, or its `SensorTiming`.  Timeouts follow the rates that
                are observed.  By default all of the bundle's.
            inputs: by sensor, the bundle's input that it is for, where names differ.
            device, threads, progress: as for `Pipeline.load`.
            policy: which sensors must be there; by default any, and slower sensors' features are used
                for two and a half of their periods.
            health: thresholds of the content checks.
            on_result: called with every result, on the stream's thread, instead of iteration.
            kept: how many results wait for whoever iterates.
            deadline_s: longest time from the arrival of the newest sample to a result, or a `LatePolicy`;
                where results take longer, sensors, optional outputs and frames are left out, which
                `Result.lateness` tells.  None: nothing ever is.
            drift: how it is watched whether sensors still fit the rig; None: it is not.
            options: further ones of `Pipeline.load`, such as `engine_timeout_s`.

        Raises:
            BundleError, ConfigError, EngineError: as `Pipeline.load`; or a sensor is for no input.
        """
        pipeline = Pipeline.load(
            bundle, device, sensors=inputs, threads=threads, progress=progress, **options
        )
        settings, rates = settings_for(sensors or dict.fromkeys(pipeline.sensors), policy)
        pipeline.warm_up()
        return cls(
            replace(settings, health=health, late=LatePolicy.of(deadline_s), drift=drift),
            pipeline=pipeline,
            threads=threads,
            rates=rates,
            kept=kept,
            on_result=on_result,
        )

    # -- any thread --------------------------------------------------------------------------

    def push(self, sensor: str, data: Any, **hints: Any) -> None:
        """Hand in what a sensor gave.  Never waits, and refuses nothing that only content can tell.

        What cannot be decoded is counted, its sensor `malformed`, and told in `Result.warnings`.

        Args:
            sensor: its name.
            data: an array, which is copied; a ROS message or anything with its fields; or a `Sample`.
            hints: for arrays, what `perception.sample_of` takes besides (`encoding`, `unit`,
                `stamp_ns`, ...).  Without a stamp the time of this call is taken.

        Raises:
            InputError: there is no such sensor, or the stream is closed.
        """
        if sensor not in self.settings.sensors:
            known = ", ".join(self.settings.sensors)
            hint = f"{meant(sensor, self.settings.sensors)} it has {known}".lstrip()
            raise InputError(f"no sensor '{sensor}' in this stream", hint=hint)
        moment = self.clock.reading()
        if isinstance(data, np.ndarray):
            data = data.copy()  # drivers fill the same array again
        replaced = self._inbox.put(sensor, _Hinted(data, hints) if hints else data, moment)
        self.counters.update([f"received_{sensor}", f"dropped_{sensor}"][: 1 + replaced])
        core = self.core
        if core is not None:
            core.hear(sensor, moment.now_ns)

    def use(self, pipeline: Pipeline) -> None:
        """Begin to run a pipeline, or go over to it."""
        self._inbox.call(lambda: self._begin(pipeline))

    def configure(self, settings: StreamSettings) -> None:
        """Take over other settings between two messages."""
        self._inbox.call(lambda: self._configure(settings))

    def report(self) -> dict[str, SensorReport]:
        """Every sensor's state and counts; empty until there is a pipeline."""
        core = self.core
        return {} if core is None else core.report(self.clock.now_ns())

    @property
    def engine_error(self) -> str:
        """Why the engines rest; empty while they run."""
        return self._recovery.error

    @property
    def dropped_results(self) -> int:
        """How many results nobody fetched in time."""
        return self._collected.dropped

    def get(self, timeout_s: float | None = None) -> Result | None:
        """The next result; None when none came in time, or the stream has ended."""
        box = self._collected
        with box.changed:
            box.changed.wait_for(
                lambda: box.results or self._inbox.closed,
                timeout_s if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX),
            )
            return box.results.popleft() if box.results else None

    def __iter__(self) -> Iterator[Result]:
        """Results as they come, until the stream is closed."""
        while (result := self.get()) is not None:
            yield result

    def end(self) -> None:
        """Let the thread end after the message at hand; returns at once."""
        self._inbox.close()
        with self._collected.changed:
            self._collected.changed.notify_all()

    def close(self) -> None:
        """End after the message at hand; returns when all threads have."""
        self.end()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the stream's thread -----------------------------------------------------------------

    def _begin(self, pipeline: Pipeline) -> None:
        clock = self.clock.now_ns
        core = StreamCore(pipeline, self.settings, parallel=True, clock=clock)
        before = self.core
        if before is not None:  # one that does not fit has left it as it was
            before.close()
        pipeline.reset()
        pipeline.on_event(self._event)
        pipeline.on_problem = self._complain
        self._recovery.error = ""
        self._recovery.worked()
        self.core = core
        for sensor in self.core.collector.sensors:
            if early := self.counters[f"early_{sensor}"]:
                self.core.refuse(sensor, "early", early)

    def _configure(self, settings: StreamSettings) -> None:
        if self.core is not None:
            self.core.configure(settings)
        self.settings = settings

    def _run(self) -> None:
        try:
            while not self._inbox.closed:
                items, calls = self._inbox.take(min(self._patience(), self._lease_s / 4))
                now = self.clock.now_ns()
                for call in (self._listener.alive, *calls):
                    self._safely(call)
                self._safely(self._work, items, now)
        finally:  # however it ends, nobody must wait for results that cannot come
            self.end()
            for sensor, _, _, replaced in self._inbox.take(0)[0]:
                self._refuse(sensor, "closed", replaced)
            if self.core is not None:
                self.core.close()

    def _refuse(self, sensor: str, reason: str, replaced: int) -> None:
        """Count a message that nobody looks at, and those that it replaced."""
        if self.core is None:
            self.counters[f"early_{sensor}"] += 1 + replaced
        else:
            self.core.refuse(sensor, reason)
            self.core.skip(sensor, replaced)

    def _work(self, items: list[tuple[str, Any, Moment, int]], now_ns: int) -> None:
        """Take in what has arrived, then let leave what is due at `now_ns`.

        Deadlines are judged by the time before the work began: encoding may take longer than the
        deadline, and messages that arrived in time must not lose their group to that.
        """
        core = self.core
        if core is None or self._recovery.resting(core.pipeline):
            for sensor, _, _, replaced in items:
                self._refuse(sensor, "failed", replaced)
            self._tell_waiting()
            return
        for sensor, message, moment, replaced in items:
            if self._recovery.error:
                self._refuse(sensor, "failed", replaced)
            else:
                core.skip(sensor, replaced)
                self._take(core, sensor, message, moment)
        wanted = self._safely(self._listener.wanted)
        if wanted is not None:
            core.pipeline.wanted = wanted
        try:
            for result in core.poll(now_ns):
                if result.used:
                    self._recovery.worked()
                self._tell_lateness(result)
                self._safely(self._listener.result, result)
        except EngineError as error:
            self._recovery.failed(core.pipeline, error)
        if self._rates is not None and (adapted := self._rates.adapt(self.settings)) is not None:
            self._configure(adapted)

    def _take(self, core: StreamCore, sensor: str, message: Any, moment: Moment) -> None:
        """Decode and encode one message; whatever happens, it is counted."""
        if self._rates is not None:
            self._rates.note(sensor, moment.now_ns)
        try:
            sample = self._decode(sensor, message, moment)
        except Exception as error:
            if not isinstance(error, AnySenseError):
                self._complain(error)
            broken = isinstance(error, PluginError)
            core.reject(sensor, first_line(error), moment.now_ns, broken)
            self.counters[f"malformed_{sensor}"] += 1
            return
        try:
            # Nobody expects stamps of arrays; messages have a place for them.
            told = hasattr(message, "header")
            sample = core.dated(sample, moment.clock_ns, told=told)
            core.push(sample, moment.now_ns, moment.clock_ns)
        except EngineError as error:
            self._recovery.failed(core.pipeline, error)
        except Exception as error:  # the messages behind this one have done nothing wrong
            self._complain(error)

    def _tell_lateness(self, result: Result) -> None:
        """Say that something is left out for want of time, or taken up again."""
        lateness = result.lateness
        if lateness is not None and lateness.level != self._level:
            self._level = lateness.level
            self._safely(self._listener.lateness, lateness)

    def _taken(self, sensor: str, message: Any, moment: Moment) -> Sample:
        """A sample of an array, a message or a sample."""
        data, hints = message if isinstance(message, _Hinted) else (message, {})
        if isinstance(data, Sample):
            return replace(data.named(sensor), **hints)
        assert self.core is not None
        kind = self.core.pipeline.kinds[sensor]
        if isinstance(data, np.ndarray) or not hasattr(data, "data"):  # as all messages have
            return sample_of(kind, data, sensor=sensor, **hints)
        sample = to_sample(kind, data, sensor=sensor, **hints)
        return sample if sample.stamp_ns else replace(sample, stamp_ns=None)

    def _safely(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """What a call gives; what it raises is told: a robot must not go blind of that."""
        try:
            return call(*arguments)
        except Exception as error:
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        self.counters["errors"] += 1
        try:
            self._listener.problem(error)
        except Exception as other:
            _LOG.error("%s", other)

    def _tell_waiting(self) -> None:
        """Say that nothing runs, not more often than the heartbeat."""
        now = time.monotonic()
        if now - self._told >= self.settings.heartbeat_ns / 1e9:
            self._told = now
            self._safely(self._listener.waiting)

    def _patience(self) -> float:
        """Seconds until something is due without a message."""
        if self.core is None or self._recovery.error:
            return self.settings.heartbeat_ns / 1e9
        due = (self.core.next_deadline_ns() - self.clock.now_ns()) / 1e9
        return min(due, _SIMULATED_STEP_S) if self.clock.simulated else due


_STREAMS: WeakSet[Stream] = WeakSet()
os.register_at_fork(after_in_child=_STREAMS.clear)


@atexit.register
def _end_all() -> None:
    """End streams that nobody has closed: a thread that came back from a backend to a Python that is gone
    would be ended within C++, which aborts the process.
    """
    streams, end = list(_STREAMS), time.monotonic() + _ENDING_S
    for stream in streams:
        stream.end()
    for stream in streams:
        stream._thread.join(max(0.0, end - time.monotonic()))

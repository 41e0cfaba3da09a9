"""The thread that does the work: decodes, encodes, fuses and publishes."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError

from anysense_ros.calibration import Calibration
from anysense_ros.clocks import Arrival, ForwardClock
from anysense_ros.conversions import to_sample
from anysense_ros.inbox import Inbox
from anysense_ros.parameters import Settings
from perception.errors import AnySenseError, EngineError
from perception.frame import Modality
from perception.runtime.pipeline import Pipeline
from perception.runtime.stream import Output, Stream

_SIMULATED_STEP_S = 0.02
_MOST_FAILURES = 3
"""Failures in a row after which the engines rest before they are loaded again."""

_REST_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Worker:
    """Runs a stream on the messages of an inbox.

    Args:
        settings: the node's parameters; replaced with `update`.
        calibration: what is known about the sensors.
        clock: the time of arrivals and deadlines.
        publish: called with every output.
        waiting: called now and then while there is no pipeline, or none that runs.
        wanted: says which parts of results somebody listens to.
        alive: called before each piece of work, and several times a lease without any.
        log: called with level (`info`, `warn`, `error`) and a line.
        repeat: called with a subject, a level and a line that may come with every message.
    """

    def __init__(
        self,
        settings: Settings,
        calibration: Calibration,
        clock: ForwardClock,
        publish: Callable[[Output, Stream], None],
        waiting: Callable[[], None],
        wanted: Callable[[], frozenset[str]],
        alive: Callable[[], None],
        log: Callable[[str, str], None],
        repeat: Callable[[str, str, str], None],
    ) -> None:
        self.settings = settings
        self.calibration = calibration
        self.clock = clock
        self.inbox: Inbox[Modality, Arrival] = Inbox()
        self.counters: Counter[str] = Counter()
        self.stream: Stream | None = None
        self.engine_error = ""
        self._publish, self._waiting, self._wanted = publish, waiting, wanted
        self._alive, self._log, self._repeat = alive, log, repeat
        self._failures = 0
        self._rests = 0
        self._rest_until: float | None = None  # while the engines are down, on the monotonic clock
        self._told = 0.0
        self._lease_s = settings["qos.lease_ms"] / 1e3 or math.inf
        self._thread = threading.Thread(target=self._run, name="perception", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the message at hand; returns when the thread has."""
        self.inbox.close()
        if self._thread.is_alive():
            self._thread.join()
        if self.stream is not None:
            self.stream.close()

    def put(self, modality: Modality, message: Any) -> None:
        """Leave a message; called by the executor."""
        self.counters[f"received_{modality}"] += 1
        arrival = self.clock.reading()
        if self.stream is not None:
            self.stream.hear(modality, arrival.now_ns)
        if self.inbox.put(modality, message, arrival):
            self.counters[f"dropped_{modality}"] += 1
            self.inbox.call(lambda: self._skip(modality))

    def use(self, pipeline: Pipeline) -> None:
        """Begin to run a pipeline, when its engines are loaded."""
        self.inbox.call(lambda: self._begin(pipeline))

    def update(self, settings: Settings) -> None:
        """Take over changed parameters between two messages."""
        self.inbox.call(lambda: self._update(settings))

    def _begin(self, pipeline: Pipeline) -> None:
        s = self.settings
        if self.stream is not None:
            self.stream.close()
        pipeline.reset()
        pipeline.policy = s.policy
        pipeline.health.config = s.health
        skew = s.ns("sync.max_skew_ms") or None
        self.stream = Stream(
            pipeline,
            self._timing(s),
            s.ns("sync.deadline_ms"),
            heartbeat_ns=s.ns("sync.heartbeat_ms"),
            jump_ns=s.ns("sync.jump_ms"),
            max_skew_ns=skew,
            parallel=True,
        )
        self.stream.collector.clocks.max_lead_ns = s.ns("sync.max_lead_ms")
        for modality in self.stream.collector.sensors:
            if early := self.counters[f"early_{modality}"]:
                self.stream.refuse(modality, "early", early)

    def _timing(self, settings: Settings) -> dict[Modality, Any]:
        return {
            m: replace(t, offset_ns=t.offset_ns + self.calibration.offset_ns(m))
            for m, t in settings.timing.items()
        }

    def _update(self, settings: Settings) -> None:
        self.settings = settings
        if self.stream is None:
            return
        self.stream.pipeline.policy = settings.policy
        self.stream.pipeline.health.config = settings.health
        self.stream.heartbeat_ns = settings.ns("sync.heartbeat_ms")
        collector = self.stream.collector
        collector.retime(self._timing(settings), settings.ns("sync.deadline_ms"))
        collector.jump_ns = settings.ns("sync.jump_ms")
        collector.max_skew_ns = settings.ns("sync.max_skew_ms") or None
        collector.clocks.max_lead_ns = settings.ns("sync.max_lead_ms")

    def _skip(self, modality: Modality) -> None:
        if self.stream is None:
            self.counters[f"early_{modality}"] += 1
        else:
            self.stream.skip(modality)

    def _run(self) -> None:
        while not self.inbox.closed:
            items, calls = self.inbox.take(min(self._patience(), self._lease_s / 4))
            now = self.clock.now_ns()
            try:
                self._alive()
                for call in calls:
                    call()
                self._work(items, now)
            except RCLError as error:
                if not rclpy.ok():
                    return  # a signal has taken the topics from under us
                self._repeat("publishing", "error", f"cannot publish: {error}")
            except Exception as error:  # a robot's node must not die of one message
                self._complain(error)

    def _work(self, items: list[tuple[Modality, Any, Arrival]], now_ns: int) -> None:
        """Take in what has arrived, then let leave what is due at `now_ns`.

        Deadlines are judged by the time before the work began: encoding may take longer than the
        deadline, and messages that arrived in time must not lose their group to that.
        """
        stream = self.stream
        if stream is None or self._resting(stream):
            for modality, _, _ in items:
                if stream is None:
                    self.counters[f"early_{modality}"] += 1
                else:
                    stream.refuse(modality, "failed")
            self._tell_waiting()
            return
        for modality, message, arrived in items:
            if self._rest_until is None:
                self._take(stream, modality, message, arrived)
            else:
                stream.refuse(modality, "failed")
        stream.pipeline.wanted = self._wanted()
        try:
            for output in stream.poll(now_ns):
                if output.result.used:
                    self._failures = self._rests = 0
                self._publish(output, stream)
        except EngineError as error:
            self._recover(stream, error)

    def _take(self, stream: Stream, modality: Modality, message: Any, arrived: Arrival) -> None:
        """Decode and encode one message; whatever happens, it is counted."""
        try:
            sample = to_sample(
                modality,
                message,
                self.settings["thermal.unit"],
                least_range_m=self.settings["lidar.least_range_m"],
            )
            sample = self.calibration.attach(stream.dated(sample, arrived.clock_ns))
        except Exception as error:
            line = _line(error)
            if not isinstance(error, AnySenseError):
                self._complain(error)
            named = line if line.startswith(modality) else f"{modality}: {line}"
            stream.reject(modality, named, arrived.now_ns)
            self.counters[f"malformed_{modality}"] += 1
            return
        try:
            stream.push(sample, arrived.now_ns, arrived.clock_ns)
        except EngineError as error:
            self._recover(stream, error)
        except Exception as error:  # the messages behind this one have done nothing wrong
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        self.counters["errors"] += 1
        known = isinstance(error, AnySenseError)
        prefix = "" if known else f"unexpected {type(error).__name__}: "
        self._repeat(type(error).__name__, "error", prefix + _line(error))

    def _tell_waiting(self) -> None:
        """Say that there is no pipeline yet, not more often than the heartbeat."""
        now = time.monotonic()
        if now - self._told >= self.settings["sync.heartbeat_ms"] / 1e3:
            self._told = now
            self._waiting()

    def _patience(self) -> float:
        """Seconds until something is due without a message."""
        if self.stream is None or self._rest_until is not None:
            return self.settings["sync.heartbeat_ms"] / 1e3
        due = (self.stream.next_deadline_ns() - self.clock.now_ns()) / 1e9
        return min(due, _SIMULATED_STEP_S) if self.clock.simulated else due

    def _recover(self, stream: Stream, error: EngineError) -> None:
        """Load the graphs anew where they are most likely to run; when that is no use, rest."""
        self.counters["engine_failures"] += 1
        self._failures += 1
        self._log("error", str(error))
        if self._failures > _MOST_FAILURES:
            self._rest(error)
        else:
            self._reload(stream)

    def _reload(self, stream: Stream) -> None:
        try:
            stream.pipeline.use_device("cpu", self.settings["threads"] or None)
        except AnySenseError as error:
            self._log("error", str(error))
            self._rest(error)
        else:
            self._rest_until, self.engine_error = None, ""
            self.counters["engine_reloads"] += 1
            self._log("warn", f"engines loaded anew on {stream.pipeline.backend}")

    def _rest(self, error: Exception) -> None:
        """Wait before the next attempt, longer from time to time; the node stays up."""
        pause = _REST_S[min(self._rests, len(_REST_S) - 1)]
        self._rests += 1
        self._failures = _MOST_FAILURES  # one more failure after the attempt means rest again
        self._rest_until = time.monotonic() + pause
        self.engine_error = f"{_line(error)}; next attempt in {pause:.0f} s"

    def _resting(self, stream: Stream) -> bool:
        """Whether the engines are down; loads them when their rest is over."""
        if self._rest_until is not None and time.monotonic() >= self._rest_until:
            self._reload(stream)
        return self._rest_until is not None


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__

"""The thread that does the work: decodes, encodes, fuses and publishes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError

from anysense_ros.calibration import Calibration
from anysense_ros.clocks import ForwardClock
from anysense_ros.conversions import to_sample
from anysense_ros.inbox import Inbox
from anysense_ros.parameters import Settings
from perception.errors import AnySenseError, EngineError
from perception.frame import Modality
from perception.runtime.pipeline import Pipeline
from perception.runtime.stream import Output, Stream

_SIMULATED_STEP_S = 0.02
_MOST_FAILURES = 3


class Worker:
    """Runs a stream on the messages of an inbox.

    Args:
        settings: the node's parameters; replaced with `update`.
        calibration: what is known about the sensors.
        clock: the time of arrivals and deadlines.
        publish: called with every output.
        waiting: called now and then while there is no pipeline.
        log: called with level (`info`, `warn`, `error`) and a line.
    """

    def __init__(
        self,
        settings: Settings,
        calibration: Calibration,
        clock: ForwardClock,
        publish: Callable[[Output, Stream], None],
        waiting: Callable[[], None],
        log: Callable[[str, str], None],
    ) -> None:
        self.settings = settings
        self.calibration = calibration
        self.clock = clock
        self.inbox: Inbox[Modality] = Inbox()
        self.counters: Counter[str] = Counter()
        self.stream: Stream | None = None
        self.engine_error = ""
        self._publish, self._waiting, self._log = publish, waiting, log
        self._failures = 0
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="perception", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the message at hand; returns when the thread has."""
        self.inbox.close()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, modality: Modality, message: Any) -> None:
        """Leave a message; called by the executor."""
        self.counters[f"received_{modality}"] += 1
        if self.inbox.put(modality, message, self.clock.now_ns()):
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
        )

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

    def _skip(self, modality: Modality) -> None:
        if self.stream is not None:
            self.stream.skip(modality)

    def _run(self) -> None:
        while not self.inbox.closed:
            items, calls = self.inbox.take(self._patience())
            now = self.clock.now_ns()
            try:
                for call in calls:
                    call()
                if self.stream is None:
                    for modality, _, _ in items:
                        self.counters[f"early_{modality}"] += 1
                    self._tell_waiting()
                    continue
                self._step(self.stream, items, now)
                self._failures = 0
            except EngineError as error:
                self._recover(error)
            except AnySenseError as error:
                self.counters["errors"] += 1
                self._log("error", str(error))
            except RCLError as error:
                if not rclpy.ok():
                    return  # a signal has taken the topics from under us
                self._log("error", f"cannot publish: {error}")
            except Exception as error:  # a robot's node must not die of one message
                self.counters["errors"] += 1
                line = str(error).splitlines()[0] if str(error) else ""
                self._log("error", f"unexpected {type(error).__name__}: {line}")

    def _tell_waiting(self) -> None:
        """Say that there is no pipeline yet, not more often than the heartbeat."""
        now = time.monotonic()
        if now - self._told >= self.settings["sync.heartbeat_ms"] / 1e3:
            self._told = now
            self._waiting()

    def _patience(self) -> float:
        """Seconds until something is due without a message."""
        if self.stream is None:
            return self.settings["sync.heartbeat_ms"] / 1e3
        due = (self.stream.next_deadline_ns() - self.clock.now_ns()) / 1e9
        return min(due, _SIMULATED_STEP_S) if self.clock.simulated else due

    def _step(self, stream: Stream, items: list[tuple[Modality, Any, int]], now_ns: int) -> None:
        """Take in what has arrived, then let leave what is due at `now_ns`.

        Deadlines are judged by the time before the work began: encoding may take longer than the
        deadline, and messages that arrived in time must not lose their group to that.
        """
        for modality, message, arrived in items:
            try:
                sample = to_sample(modality, message, self.settings["thermal.unit"])
                sample = self.calibration.attach(sample)
            except AnySenseError as error:
                line = str(error)
                named = line if line.startswith(modality) else f"{modality}: {line}"
                stream.reject(modality, named, arrived)
                self.counters[f"malformed_{modality}"] += 1
                continue
            stream.push(sample, arrived)
        for output in stream.poll(now_ns):
            self._publish(output, stream)

    def _recover(self, error: EngineError) -> None:
        """Load the graphs anew where they are most likely to run."""
        self.counters["engine_failures"] += 1
        self._failures += 1
        self._log("error", str(error))
        if self.stream is None or self._failures > _MOST_FAILURES:
            self.stream, self.engine_error = None, str(error)
            return
        try:
            self.stream.pipeline.use_device("cpu", self.settings["threads"] or None)
        except AnySenseError as second:
            self.stream, self.engine_error = None, str(second)
            self._log("error", str(second))
        else:
            self._log("warn", f"engines loaded anew on {self.stream.pipeline.backend}")

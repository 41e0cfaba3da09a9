"""What the node says about itself: the log and /diagnostics, from outputs, sensors and engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node

from anysense_ros.calibration import Calibration
from anysense_ros.changes import ChangeLog, Standing
from anysense_ros.diagnostics import (
    ERROR,
    OK,
    STALE,
    WARN,
    Diagnostics,
    EngineLog,
    output_condition,
    sensor_condition,
)
from anysense_ros.missed import Missed
from perception.runtime.novelty import FarFromTraining
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result, SensorReport
from perception.runtime.stream import Stream

_NO_MOTION = "not known: samples stay where they were measured"


class Reporter:
    """Keeps log and /diagnostics true: called with every output, and on a timer.

    Args:
        node: the node that publishes.
        say: logs a line at a level.
    """

    def __init__(self, node: Node, say: Callable[[str, str], None]) -> None:
        self.diagnostics = Diagnostics(node)
        self.changes = ChangeLog(say)
        self.engine_log = EngineLog(partial(self.changes.repeat, "engine", "warn"))
        self.incompatible: dict[str, int] = {}
        self._standing = Standing()
        self._health: dict[str, str] = {}
        self._far = FarFromTraining()
        self._told_far: set[str] = set()
        self.unaligned: Mapping[str, str] = {}
        self.missed: Mapping[str, Missed] = {}
        self._placed: Mapping[str, str] = {}
        self._lock = threading.RLock()
        self.no_output("not configured")

    def no_output(self, line: str, level: bytes = WARN, state: str = "stop") -> None:
        """Say why there is no output."""
        values = {"state": state, "sensors": ""}
        self.diagnostics.set("output", level, line, values)
        self.diagnostics.flush()

    def missing(self) -> dict[str, str]:
        """By sensor, a line where much of what was sent never came."""
        now = time.monotonic_ns()
        lines = {name: missed.line(now) for name, missed in list(self.missed.items())}
        return {name: f"{name}: {line}" for name, line in lines.items() if line}

    def output(
        self, result: Result, reports: Mapping[str, SensorReport], stream: Stream, number: int
    ) -> None:
        """Note an output or heartbeat: what is sent from now on says what it was.

        Args:
            result: it.
            reports: on the sensors, at the time.
            stream: what it came from.
            number: its `sequence` in ~/status.
        """
        core = stream.core
        assert core is not None
        with self._lock:
            timeouts = {n: t.timeout_ns for n, t in core.collector.sensors.items()}
            self._far.note(result.novelty)
            self._placed = result.placed
            missing = self._standing.missing(result, reports, timeouts, stream.clock.now_ns())
            self._log(result, reports, missing, core.pipeline)
            values = {"sequence": number, **core.collector.counters, **core.pipeline.counters}
            found = output_condition(result, missing, values)
            # Of its words, those about slow sensors change with every output.
            self.diagnostics.set("output", found.level, found.message, found.values, words=False)
            self._set_sensors(reports, stream)
            self.diagnostics.flush()

    def _log(
        self,
        result: Result,
        reports: Mapping[str, SensorReport],
        missing: tuple[str, ...],
        pipeline: Pipeline,
    ) -> None:
        for name, report in reports.items():
            known, self._health[name] = self._health.get(name), report.health
            state = f"{report.health} {without_numbers(report.line)}"
            line = report.line or f"{name}: sensor is {report.health}"
            if report.health == "ok" and not report.line:
                line = f"{name}: back to ok" if known not in (None, "ok") else ""
            level = "warn" if report.line or report.health != "ok" else "info"
            self.changes.note(name, state, level, line)
            far = self._far.line(name)
            near = f"{name}: near to training again" if name in self._told_far else ""
            level = "warn" if far else "info"
            self.changes.note(f"{name} novelty", without_numbers(far), level, far or near)
            self._told_far |= {name} if far else set()
        used = ", ".join(result.used) or "nothing"
        standing, level, line = result.state, "warn", f"output is {result.state}, from {used}"
        if result.state == "full" or (result.state == "degraded" and not missing):
            standing, level = "full", "info"
            line = f"output is full, from {', '.join(reports)}"
        if self.changes.note("output", f"{standing} {missing}", level, line):
            pipeline.counters[f"changes_to_{standing}"] += 1

    def _set_sensors(self, reports: Mapping[str, SensorReport], stream: Stream) -> None:
        missing = self.missing()
        for name, report in reports.items():
            extra: dict[str, Any] = {
                "arrived": stream.counters[f"received_{name}"],
                "dropped": stream.counters[f"dropped_{name}"],
                "malformed": stream.counters[f"malformed_{name}"],
                "qos_incompatible": self.incompatible.get(name, 0),
            }
            missed = self.missed.get(name)
            if missed is not None and missed.count is not None:
                extra["missed"] = missed.count
            if (novelty := self._far.novelty(name)) is not None:
                extra["novelty"] = f"{novelty:.2f}"
            if placed := self._placed.get(name):
                extra["placed"] = placed
            condition = sensor_condition(name, report, extra)
            if condition.level == OK and (far := self._far.line(name)):
                condition.level, condition.message = WARN, far
            unaligned = self.unaligned.get(name)
            if unaligned and condition.level == OK:
                condition.level, condition.message = WARN, unaligned
            if condition.level == OK and (line := missing.get(name)):
                condition.level, condition.message = WARN, line
            if extra["qos_incompatible"] and not report.received:
                condition.message = f"{name}: publisher's QoS does not fit qos.reliability"
            self.diagnostics.set(name, condition.level, condition.message, condition.values)

    def sensors(self, stream: Stream) -> None:
        """Note how the sensors are now, with or without an output."""
        if stream.core is not None:
            with self._lock:
                self._set_sensors(stream.report(), stream)

    def inactive(self, sensors: Iterable[str]) -> None:
        """Say that nothing is listened to any more."""
        with self._lock:
            self.changes.forget()
            self._health.clear()
            self._far = FarFromTraining()
            self._standing = Standing()
            for name in sensors:
                self.diagnostics.set(name, STALE, "inactive: not listened to", {})
            self.no_output("inactive")
            self.diagnostics.publish()

    def ended(self) -> None:
        """Say that nothing is configured any more."""
        with self._lock:
            self.diagnostics.end("not configured")
            self.no_output("not configured")

    def calibration(self, calibration: Calibration, kinds: Mapping[str, str]) -> None:
        """Note where intrinsics and extrinsics come from, and what is wrong with them."""
        problems = {**calibration.problems, **calibration.unaligned}
        known = calibration.sources()
        if problems:
            level, line = WARN, next(iter(problems.values()))
        elif known:
            level, line = OK, f"ok: {', '.join(known)}"
        else:
            level = WARN if calibration.needs_tree(kinds) else OK
            line = "none: no camera_info, rig file or transform yet"
        values = dict(problems)
        if calibration.ground:
            values["motion"] = "odometry" if len(calibration.odometry) else _NO_MOTION
        self.diagnostics.set("calibration", level, line, values)
        # The same fault with other numbers is not said again.
        kind = without_numbers(line) if level == WARN else ""
        self.changes.note("calibration", kind, "warn" if kind else "info", f"calibration: {line}")

    def engine(self, counters: Mapping[str, int], error: str, pipeline: Pipeline | None) -> None:
        """Note what runs the graphs, and why the one before, or by `error` none, does not."""
        log = self.engine_log
        values: dict[str, Any] = {"fallbacks": log.count, **counters}
        if error:
            self.diagnostics.set("engine", ERROR, error, values)
        elif pipeline is not None:
            values["bundle"] = pipeline.manifest.name
            line = f"ready on {pipeline.backend}"
            if log.count:
                line += f", after: {log.last}"
            fallen = log.count or values.get("engine_failures", 0)
            self.diagnostics.set("engine", WARN if fallen else OK, line, values)
        self.diagnostics.flush()

    def publish(self) -> None:
        """Send everything, and say what had to wait."""
        self.changes.tick()
        self.diagnostics.publish()


def without_numbers(line: str) -> str:
    """A line's kind: the same fault with other numbers is the same."""
    return "".join(c for c in line if not c.isdigit())

"""What the node says about itself: the log and /diagnostics, from outputs, sensors and engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from perception.runtime.output import Output, SensorReport
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
from anysense_ros.worker import Worker
from perception.frame import Modality
from perception.runtime.pipeline import Pipeline
from perception.runtime.stream import Stream


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
        self._health: dict[Modality, str] = {}
        self._lock = threading.RLock()
        self.no_output("not configured")

    def no_output(self, line: str, level: bytes = WARN, state: str = "stop") -> None:
        """Say why there is no output."""
        values = {"state": state, "sensors": ""}
        self.diagnostics.set("output", level, line, values)
        self.diagnostics.flush()

    def output(
        self, output: Output, reports: Mapping[Modality, SensorReport], worker: Worker, number: int
    ) -> None:
        """Note an output or heartbeat: what is sent from now on says what it was.

        Args:
            output: it.
            reports: on the sensors, at the time.
            worker: what it came from.
            number: its `sequence` in ~/status.
        """
        stream = worker.stream
        assert stream is not None
        with self._lock:
            timeouts = {m: t.timeout_ns for m, t in stream.collector.sensors.items()}
            now = worker.clock.now_ns()
            missing = self._standing.missing(output, reports, timeouts, now)
            self._log(output, reports, missing, stream)
            values = {"sequence": number, **stream.collector.counters, **stream.pipeline.counters}
            found = output_condition(output, missing, values)
            # Of its words, those about slow sensors change with every output.
            self.diagnostics.set("output", found.level, found.message, found.values, words=False)
            self._set_sensors(reports, worker)
            self.diagnostics.flush()

    def _log(
        self,
        output: Output,
        reports: Mapping[Modality, SensorReport],
        missing: tuple[Modality, ...],
        stream: Stream,
    ) -> None:
        for modality, report in reports.items():
            known, self._health[modality] = self._health.get(modality), report.health
            state = f"{report.health} {without_numbers(report.line)}"
            line = report.line or f"{modality}: sensor is {report.health}"
            if report.health == "ok" and not report.line:
                line = f"{modality}: back to ok" if known not in (None, "ok") else ""
            level = "warn" if report.line or report.health != "ok" else "info"
            self.changes.note(modality, state, level, line)
        result = output.result
        used = ", ".join(result.used) or "nothing"
        standing, level, line = result.state, "warn", f"output is {result.state}, from {used}"
        if result.state == "full" or (result.state == "degraded" and not missing):
            standing, level = "full", "info"
            line = f"output is full, from {', '.join(reports)}"
        if self.changes.note("output", f"{standing} {missing}", level, line):
            stream.pipeline.counters[f"changes_to_{standing}"] += 1

    def _set_sensors(self, reports: Mapping[Modality, SensorReport], worker: Worker) -> None:
        for modality, report in reports.items():
            extra = {
                "arrived": worker.counters[f"received_{modality}"],
                "dropped": worker.counters[f"dropped_{modality}"],
                "malformed": worker.counters[f"malformed_{modality}"],
                "qos_incompatible": self.incompatible.get(modality, 0),
            }
            condition = sensor_condition(modality, report, extra)
            unaligned = worker.calibration.unaligned.get(modality)
            if unaligned and condition.level == OK:
                condition.level, condition.message = WARN, unaligned
            if extra["qos_incompatible"] and not report.received:
                condition.message = f"{modality}: publisher's QoS does not fit qos.reliability"
            self.diagnostics.set(modality, condition.level, condition.message, condition.values)

    def sensors(self, worker: Worker) -> None:
        """Note how the sensors are now, with or without an output."""
        if worker.stream is not None:
            with self._lock:
                self._set_sensors(worker.stream.report(worker.clock.now_ns()), worker)

    def inactive(self, inputs: Iterable[str]) -> None:
        """Say that nothing is listened to any more."""
        with self._lock:
            self.changes.forget()
            self._health.clear()
            self._standing = Standing()
            for modality in inputs:
                self.diagnostics.set(modality, STALE, "inactive: not listened to", {})
            self.no_output("inactive")
            self.diagnostics.publish()

    def ended(self) -> None:
        """Say that nothing is configured any more."""
        with self._lock:
            self.diagnostics.end("not configured")
            self.no_output("not configured")

    def calibration(self, calibration: Calibration, inputs: tuple[Modality, ...]) -> None:
        """Note where intrinsics and extrinsics come from, and what is wrong with them."""
        problems = {**calibration.problems, **calibration.unaligned}
        known = calibration.sources()
        if problems:
            level, line = WARN, next(iter(problems.values()))
        elif known:
            level, line = OK, f"ok: {', '.join(known)}"
        else:
            level = WARN if calibration.needs_tree(inputs) else OK
            line = "none: no camera_info, rig file or transform yet"
        self.diagnostics.set("calibration", level, line, problems)
        # The same fault with other numbers is not said again.
        kind = without_numbers(line) if level == WARN else ""
        self.changes.note("calibration", kind, "warn" if kind else "info", f"calibration: {line}")

    def engine(self, worker: Worker | None, pipeline: Pipeline | None) -> None:
        """Note what runs the graphs, and why the one before does not."""
        log = self.engine_log
        values: dict[str, Any] = {"fallbacks": log.count, **(worker.counters if worker else {})}
        if worker is not None and worker.engine_error:
            self.diagnostics.set("engine", ERROR, worker.engine_error, values)
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

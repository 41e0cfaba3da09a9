"""/diagnostics: the node's state, its engine, and every sensor."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node

from anysense_ros.changes import Allowance
from perception.runtime.result import Result, SensorReport

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
STALE = DiagnosticStatus.STALE

_STATE_LEVELS = {"full": OK, "degraded": WARN, "hold": WARN, "stop": ERROR}


@dataclass
class Condition:
    """What diagnostics say about one part."""

    level: bytes
    message: str
    values: dict[str, Any] = field(default_factory=dict)


class Diagnostics:
    """Publishes the conditions of all parts: on a timer, and at once when a level changes.

    What changes all the time would flood the topic: at once goes a handful, then one a second.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._parts: dict[str, Condition] = {}
        self._allowance = Allowance(burst=5, per_minute=60)
        self._changed = False
        self._lock = threading.RLock()

    def set(
        self, part: str, level: bytes, message: str, values: Mapping[str, Any], words: bool = True
    ) -> None:
        """Note a part's condition.

        Args:
            part: its name.
            level, message, values: of its `DiagnosticStatus`.
            words: whether another message under the same level is a change that `flush` sends.
        """
        with self._lock:
            before = self._parts.get(part)
            self._parts[part] = Condition(level, message, dict(values))
            if before is None or before.level != level or (words and before.message != message):
                self._changed = True

    def due(self) -> bool:
        """Whether `flush` would send something."""
        return self._changed and self._allowance.left

    def flush(self) -> None:
        """Send everything, if something has changed and not too much was sent at once before."""
        if self.due():
            self._allowance.take()
            self.publish()

    def end(self, message: str) -> None:
        """Say for the last time what all parts are, now that nobody looks after them any more."""
        with self._lock:
            for part, condition in self._parts.items():
                self._parts[part] = Condition(STALE, message, condition.values)
            self.publish()
            self._parts.clear()

    def publish(self) -> None:
        """Send everything."""
        message = DiagnosticArray()
        with self._lock:
            self._changed = False
            message.header.stamp = self._node.get_clock().now().to_msg()
            for part, condition in self._parts.items():
                message.status.append(
                    DiagnosticStatus(
                        level=condition.level,
                        name=f"{self._name}: {part}",
                        message=condition.message,
                        hardware_id=self._name,
                        values=[KeyValue(key=k, value=str(v)) for k, v in condition.values.items()],
                    )
                )
            try:
                self._publisher.publish(message)
            except RCLError:
                if self._node.context.ok():  # otherwise a signal has taken the topic from under us
                    raise


class EngineLog(logging.Handler):
    """Hears when a backend is passed over or another takes over from one that failed.

    Args:
        say: called with each line.

    Attributes:
        count: how often it happened since `reset`.
        last: the last line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self.count, self.last = 0, ""
        self._logger = logging.getLogger("anysense.engines")
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Count and pass on a line."""
        self.last = record.getMessage()
        self.count += 1
        self._say(self.last)

    def reset(self) -> None:
        """Begin to count anew."""
        self.count, self.last = 0, ""


def output_condition(
    result: Result, missing: Sequence[str], values: Mapping[str, Any]
) -> Condition:
    """The condition of the output as a whole.

    Args:
        result: the last output or heartbeat.
        missing: sensors that are not in it by a fault.
        values: what else to say.
    """
    message = f"{result.state}: {', '.join(result.used)}" if result.used else result.state
    level = _STATE_LEVELS[result.state]
    if result.state == "degraded" and not missing:
        level = OK  # a slow sensor between its messages
    lateness = result.lateness
    if lateness is not None and lateness.line:
        message, level = f"{message}; {lateness.line}", max(level, WARN)
    head = {
        "state": result.state,
        "sensors": ", ".join(result.used),
        "stamp": f"{result.output_ns / 1e9:.9f}",
        "reason": result.reason,
    }
    if lateness is not None:
        head["latency_ms"] = f"{lateness.latency_ms:.0f}"
        head["left_out"] = ", ".join((*lateness.sensors, *lateness.parts))
    return Condition(level, message, {**head, **values})


def sensor_condition(name: str, report: SensorReport, extra: Mapping[str, Any]) -> Condition:
    """The condition of one sensor."""
    values = {
        "health": report.health,
        "silent_ms": f"{report.silent_ms:.0f}",
        "clock_offset_ms": f"{report.offset_ms:.0f}",
        "received": report.received,
        "used": report.used,
        "superseded": report.superseded,
        "rejected": report.rejected,
        "waiting": report.waiting,
        **extra,
    }
    if report.health == "ok" and not report.line:
        return Condition(OK, "ok", values)
    level = ERROR if report.broken else WARN
    return Condition(level, report.line or f"{name}: sensor is {report.health}", values)

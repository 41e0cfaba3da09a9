"""/diagnostics: the node's state, its engine, and every sensor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node

from perception.frame import Modality
from perception.runtime.stream import SensorReport

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

_STATE_LEVELS = {"full": OK, "degraded": WARN, "hold": WARN, "stop": ERROR}


@dataclass
class Condition:
    """What diagnostics say about one part."""

    level: bytes
    message: str
    values: dict[str, Any] = field(default_factory=dict)


class Diagnostics:
    """Publishes the conditions of all parts, on a timer and at once when a level changes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._parts: dict[str, Condition] = {}

    def set(self, part: str, level: bytes, message: str, values: Mapping[str, Any]) -> None:
        """Note a part's condition; a change of level or words is sent at once."""
        before = self._parts.get(part)
        self._parts[part] = Condition(level, message, dict(values))
        if before is None or (before.level, before.message) != (level, message):
            self.publish()

    def clear(self) -> None:
        """Forget all parts."""
        self._parts.clear()

    def publish(self) -> None:
        """Send everything."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for part, condition in list(self._parts.items()):
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


def state_condition(state: str, used: tuple[str, ...], counters: Mapping[str, int]) -> Condition:
    """The condition of the output as a whole."""
    message = f"{state}: {', '.join(used)}" if used else state
    return Condition(_STATE_LEVELS[state], message, dict(counters))


def sensor_condition(
    modality: Modality, report: SensorReport, warning: str, extra: Mapping[str, Any]
) -> Condition:
    """The condition of one sensor."""
    values = {
        "health": report.health,
        "silent_ms": f"{report.silent_ms:.0f}",
        "received": report.received,
        "used": report.used,
        "superseded": report.superseded,
        "rejected": report.rejected,
        **extra,
    }
    if report.health == "ok":
        return Condition(OK, "ok", values)
    return Condition(WARN, warning or f"{modality}: sensor is {report.health}", values)

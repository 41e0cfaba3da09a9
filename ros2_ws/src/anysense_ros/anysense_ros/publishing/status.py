"""`~/status`: what the node says about an output, or while there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from anysense_msgs.msg import PerceptionStatus, SensorStatus
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from anysense_ros.parameters import Settings
from anysense_ros.publishing.topics import Topics
from perception.runtime.result import Result, SensorReport

TOPIC = "status"

STATES = {
    "full": PerceptionStatus.FULL,
    "degraded": PerceptionStatus.DEGRADED,
    "hold": PerceptionStatus.HOLD,
    "stop": PerceptionStatus.STOP,
}


class Status:
    """Publishes `~/status`.

    Attributes:
        sequence: of the last message.
    """

    def __init__(self, node: LifecycleNode, topics: Topics) -> None:
        self._node, self._topics = node, topics
        self.sequence = 0

    def output(
        self,
        head: Header,
        result: Result,
        reports: Mapping[str, SensorReport],
        settings: Settings,
        bundle: str,
        latency_ms: float,
        notes: Iterable[str] = (),
    ) -> None:
        """Publish ~/status for an output or a heartbeat; `notes` are warnings beside the result's."""
        self.sequence += 1
        message = PerceptionStatus(
            header=head,
            sequence=self.sequence,
            state=STATES[result.state],
            used=list(result.used),
            sensors=[_sensor(n, r, result, settings) for n, r in reports.items()],
            reason=result.reason,
            coverage=result.coverage,
            spread_ms=result.spread_ns / 1e6,
            latency_ms=latency_ms if result.used else math.nan,
            engine_ms=result.engine_ms,
            steps=list(result.timings),
            step_ms=list(result.timings.values()),
            bundle=bundle,
            backend=result.backend,
            warnings=[*result.lines, *notes],
        )
        self._topics.send(TOPIC, message)

    def waiting(self, reports: Mapping[str, SensorReport], settings: Settings, line: str) -> None:
        """Publish ~/status while there is no pipeline that runs; `line` says why."""
        self.sequence += 1
        nothing = Result()
        self._topics.send(
            TOPIC,
            PerceptionStatus(
                header=Header(stamp=self._node.get_clock().now().to_msg()),
                sequence=self.sequence,
                state=PerceptionStatus.STOP,
                sensors=[_sensor(n, r, nothing, settings) for n, r in reports.items()],
                reason="heartbeat",
                latency_ms=math.nan,
                bundle=settings["bundle"],
                warnings=[line],
            ),
        )


def _sensor(name: str, report: SensorReport, result: Result, settings: Settings) -> SensorStatus:
    used = name in result.used
    return SensorStatus(
        name=name,
        kind=settings.kinds[name],
        input=settings.inputs[name],
        health=report.health,
        used=used,
        age_ms=result.ages_ns.get(name, 0) / 1e6 if used else math.nan,
        silent_ms=report.silent_ms,
        received=report.received,
        taken=report.used,
        superseded=report.superseded,
        rejected=report.rejected,
        waiting=report.waiting,
        line=report.line or ("" if report.health == "ok" else f"{name}: sensor is {report.health}"),
    )

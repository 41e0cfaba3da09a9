"""Labeled points as a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensor_msgs.msg import PointCloud2

from anysense_ros.conversions import header, labeled_cloud
from anysense_ros.publishing.topics import Output, TaskPublisher
from perception.tasks.points import LabeledPoints

TOPIC = "points"


class PointsPublisher(TaskPublisher):
    """`~/points`, in the frame of the sensor that measured them, each cloud once."""

    def __init__(self, task: str, spec: Any) -> None:
        super().__init__(task, spec)
        self._epoch, self._stamp_ns = 0, None  # of the last one

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {TOPIC: PointCloud2}

    def publish(self, value: LabeledPoints | None, out: Output) -> None:
        """See `TaskPublisher`."""
        if value is not None and out.heard(TOPIC) and self._new(value.sensor, out):
            result = out.result
            frame = result.samples[value.sensor].frame_id
            head = header(result.source_ns[value.sensor], frame)
            cloud = labeled_cloud(value.points, value.labels, value.confidence, head)
            out.send(TOPIC, cloud)

    def _new(self, sensor: str, out: Output) -> bool:
        """Whether the topic has not had this sensor's sample, nor a newer one of another sensor."""
        result, stamp = out.result, out.result.source_ns[sensor]
        before = self._stamp_ns if result.epoch == self._epoch else None
        repeated = before is not None and 0 <= before - stamp <= out.settings.ns("sync.jump_ms")
        if repeated:
            return False
        self._epoch, self._stamp_ns = result.epoch, stamp
        return True

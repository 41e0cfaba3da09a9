"""Labeled points, and the obstacles among them, as clouds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from anysense_ros.conversions import header, labeled_cloud, organized_cloud
from anysense_ros.publishing.topics import Output, TaskPublisher
from perception.tasks.points import LabeledPoints

TOPIC, OBSTACLES = "points", "obstacles"


class PointsPublisher(TaskPublisher):
    """`~/points` and `~/obstacles`, in the frame of the sensor that measured them, each cloud once."""

    def __init__(self, task: str, spec: Any) -> None:
        super().__init__(task, spec)
        self._epoch, self._stamp_ns = 0, None  # of the last one

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {TOPIC: PointCloud2, OBSTACLES: PointCloud2}

    def publish(self, value: LabeledPoints | None, out: Output) -> None:
        """See `TaskPublisher`."""
        heard = [topic for topic in (TOPIC, OBSTACLES) if out.heard(topic)]
        if value is None or not heard or not self._new(value.sensor, out):
            return
        result = out.result
        head = header(result.source_ns[value.sensor], result.samples[value.sensor].frame_id)
        if TOPIC in heard:
            out.send(TOPIC, labeled_cloud(value.points, value.labels, value.confidence, head))
        if OBSTACLES in heard:
            out.send(OBSTACLES, _obstacles(value, out, head))

    def _new(self, sensor: str, out: Output) -> bool:
        """Whether the topic has not had this sensor's sample, nor a newer one of another sensor."""
        result, stamp = out.result, out.result.source_ns[sensor]
        before = self._stamp_ns if result.epoch == self._epoch else None
        repeated = before is not None and 0 <= before - stamp <= out.settings.ns("sync.jump_ms")
        if repeated:
            return False
        self._epoch, self._stamp_ns = result.epoch, stamp
        return True


def _obstacles(value: LabeledPoints, out: Output, head: Header) -> PointCloud2:
    """Also where there is none: whoever listens knows by it that somebody looked."""
    rules, labels = out.settings.obstacles, out.result.labels
    assert (
        rules is not None and labels is not None
    )  # of a node with a bundle, and points have labels
    found = rules.obstacles(value)
    columns = (found.points, found.labels, found.confidence)
    if not out.settings["obstacles.organized"]:
        return labeled_cloud(*columns, head)
    return organized_cloud(*columns, found.row, found.column, labels.shape, head)

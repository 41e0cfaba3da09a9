"""2D boxes as `vision_msgs/Detection2DArray`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from anysense_ros.publishing.topics import Output, TaskPublisher
from perception.tasks.detections import Detections
from perception.tasks.spec import class_name

TOPIC = "detections"


class Boxes2dPublisher(TaskPublisher):
    """`~/detections`, in the pixels of the result's reference."""

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {TOPIC: Detection2DArray}

    def publish(self, value: Detections | None, out: Output) -> None:
        """See `TaskPublisher`."""
        if value is None or not out.heard(TOPIC):
            return
        message = Detection2DArray(header=out.header)
        for box, score, kind in zip(value.xyxy, value.scores, value.class_ids, strict=True):
            left, top, right, bottom = (float(v) for v in box)
            found = hypothesis(self.spec, kind, score)
            one = Detection2D(header=out.header, results=[found])
            one.bbox.center.position.x = (left + right) / 2
            one.bbox.center.position.y = (top + bottom) / 2
            one.bbox.size_x, one.bbox.size_y = right - left, bottom - top
            message.detections.append(one)
        out.send(TOPIC, message)


def hypothesis(spec: Any, kind: Any, score: Any) -> ObjectHypothesisWithPose:
    """A class of a spec by id, with its score."""
    out = ObjectHypothesisWithPose()
    out.hypothesis.class_id = class_name(spec.classes, int(kind))
    out.hypothesis.score = float(score)
    return out

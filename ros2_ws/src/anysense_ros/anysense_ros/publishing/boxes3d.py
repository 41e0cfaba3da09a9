"""3D boxes as `vision_msgs/Detection3DArray`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import Pose, Vector3
from vision_msgs.msg import Detection3D, Detection3DArray

from anysense_ros.publishing.boxes2d import hypothesis
from anysense_ros.publishing.topics import Output, TaskPublisher
from perception.tasks.boxes3d import Boxes3d

TOPIC = "detections_3d"


class Boxes3dPublisher(TaskPublisher):
    """`~/detections_3d`, in the reference camera's optical frame."""

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {TOPIC: Detection3DArray}

    def publish(self, value: Boxes3d | None, out: Output) -> None:
        """See `TaskPublisher`."""
        if value is None or not out.heard(TOPIC):
            return
        message = Detection3DArray(header=out.header)
        rows = zip(value.center, value.size, value.class_ids, value.scores, strict=True)
        for center, size, kind, score in rows:
            pose = Pose()
            pose.position.x, pose.position.y, pose.position.z = (float(v) for v in center)
            found = hypothesis(self.spec, kind, score)
            found.pose.pose = pose
            one = Detection3D(header=out.header, results=[found])
            one.bbox.center = pose
            one.bbox.size = Vector3(**dict(zip("xyz", map(float, size), strict=True)))
            message.detections.append(one)
        out.send(TOPIC, message)

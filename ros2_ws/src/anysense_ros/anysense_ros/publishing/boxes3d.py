"""3D boxes as `vision_msgs/Detection3DArray`, and as markers that RViz and Foxglove show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Vector3
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import Detection3D, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from anysense_ros.parameters import Settings
from anysense_ros.publishing.boxes2d import hypothesis
from anysense_ros.publishing.topics import Output, TaskPublisher
from perception.tasks.boxes3d import Boxes3d
from perception.tasks.spec import class_name

TOPIC, MARKERS = "detections_3d", "markers_3d"

_SLOWEST = 0.3  # m/s: what is slower has no arrow
_ALPHA = 0.45
_TEXT_M = 0.5


class Boxes3dPublisher(TaskPublisher):
    """`~/detections_3d` and `~/markers_3d`: a network's in the vehicle's base frame, lifted ones in the
    reference camera's optical frame."""

    def __init__(self, task: str, spec: Any) -> None:
        super().__init__(task, spec)
        self._shown: dict[str, int] = {}
        """How many markers of each namespace were sent last."""

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {TOPIC: Detection3DArray, MARKERS: MarkerArray}

    def publish(self, value: Boxes3d | None, out: Output) -> None:
        """See `TaskPublisher`."""
        if value is None:
            return
        frame = value.frame_id if value.in_base else out.header.frame_id
        head = Header(stamp=out.header.stamp, frame_id=frame)
        if out.heard(TOPIC):
            out.send(TOPIC, self._detections(value, head))
        if out.heard(MARKERS):
            out.send(MARKERS, self._markers(value, head, out.settings))

    def _detections(self, value: Boxes3d, head: Header) -> Detection3DArray:
        message = Detection3DArray(header=head)
        for i in range(len(value)):
            found = hypothesis(self.spec, value.class_ids[i], value.scores[i])
            found.pose.pose = pose = _pose(value, i)
            one = Detection3D(header=head, results=[found])
            one.bbox.center = pose
            one.bbox.size = _vector(value.size[i])
            message.detections.append(one)
        return message

    def _markers(self, value: Boxes3d, head: Header, settings: Settings) -> MarkerArray:
        """Boxes, names and arrows; those of the array before that are not there any more are deleted."""
        seconds = settings["output.marker_lifetime_s"]
        whole = int(seconds)
        lifetime = Duration(sec=whole, nanosec=round((seconds - whole) * 1e9))
        message, shown = MarkerArray(), dict[str, int]()
        for marker in self._shapes(value):
            marker.header, marker.lifetime, marker.action = head, lifetime, Marker.ADD
            marker.id = shown.get(marker.ns, 0)
            shown[marker.ns] = marker.id + 1
            message.markers.append(marker)
        for name, count in self._shown.items():
            for number in range(shown.get(name, 0), count):
                gone = Marker(header=head, ns=name, id=number, action=Marker.DELETE)
                message.markers.append(gone)
        self._shown = shown
        return message

    def _shapes(self, value: Boxes3d) -> Iterator[Marker]:
        for i in range(len(value)):
            kind, pose = int(value.class_ids[i]), _pose(value, i)
            color = self._color(kind)
            color.a = _ALPHA
            yield Marker(
                ns="boxes", type=Marker.CUBE, pose=pose, scale=_vector(value.size[i]), color=color
            )
            label = Marker(ns="names", type=Marker.TEXT_VIEW_FACING, color=self._color(kind))
            label.text = (
                f"{class_name(self.spec.classes, kind)} {100 * float(value.scores[i]):.0f} %"
            )
            label.scale.z = _TEXT_M
            x, y, z = map(float, value.center[i])
            raised = float(value.size[i, 2]) / 2 + _TEXT_M if value.in_base else 0.0
            label.pose.position = Point(x=x, y=y, z=z + raised)
            label.pose.orientation.w = 1.0
            yield label
            speed = math.hypot(*map(float, value.velocity[i]))
            if _SLOWEST <= speed < math.inf:  # False for NaN
                dx, dy = map(float, value.velocity[i])
                arrow = Marker(ns="velocity", type=Marker.ARROW, color=self._color(kind))
                arrow.points = [Point(x=x, y=y, z=z), Point(x=x + dx, y=y + dy, z=z)]
                arrow.scale = Vector3(x=0.1, y=0.25, z=0.3)  # shaft, head and its length
                arrow.pose.orientation.w = 1.0
                yield arrow

    def _color(self, kind: int) -> ColorRGBA:
        classes = self.spec.classes
        shown = classes[kind].color if kind < len(classes) else (160, 160, 160)
        r, g, b = (c / 255 for c in shown)
        return ColorRGBA(r=r, g=g, b=b, a=1.0)


def _pose(value: Boxes3d, i: int) -> Pose:
    pose, yaw = Pose(), float(value.yaw[i])
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in value.center[i])
    pose.orientation.z, pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return pose


def _vector(values: Any) -> Vector3:
    return Vector3(**dict(zip("xyz", map(float, values), strict=True)))

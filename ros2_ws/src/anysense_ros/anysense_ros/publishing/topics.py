"""Topics under `~/`, and what publishes a task on them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, String

from anysense_ros.conversions import from_camera
from anysense_ros.parameters import Settings
from anysense_ros.qos_events import QosEvents
from perception.runtime.result import Result
from perception.tasks.registry import TASKS

_ASKED_EVERY_S = 0.02
"""A dozen publishers are asked in a tenth of a millisecond: not several times for each result."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Topics:
    """Publishers by name under `~/`.

    Args:
        node: that publishes.
        events: callbacks for incompatible subscribers, None where rclpy has none.
        watch: hears of the events.
    """

    def __init__(self, node: LifecycleNode, events: Any, watch: QosEvents) -> None:
        self._node, self._events, self._watch = node, events, watch
        self._publishers: dict[str, Any] = {}
        self._watched: list[Any] = []
        self._heard: frozenset[str] = frozenset()
        self._ask_at = 0.0

    def add(self, name: str, kind: Any, qos: QoSProfile) -> None:
        """Put up a topic.

        Args:
            name: under `~/`.
            kind: message type.
            qos: `LATCHED` for what is said once; whoever listens may watch the others' liveliness.
        """
        made = self._node.create_lifecycle_publisher(
            kind, f"~/{name}", qos, event_callbacks=self._events
        )
        self._watch.watch(made)
        self._publishers[name] = made
        if qos is not LATCHED:
            self._watched.append(made)

    def heard(self, name: str) -> bool:
        """Whether somebody listens, or did a moment ago."""
        if (now := time.monotonic()) >= self._ask_at:
            listened = (n for n, p in self._publishers.items() if p.get_subscription_count())
            self._heard, self._ask_at = frozenset(listened), now + _ASKED_EVERY_S
        return name in self._heard

    def send(self, name: str, message: Any) -> None:
        """Publish a message."""
        self._publishers[name].publish(message)

    def assert_liveliness(self) -> None:
        """Say that whoever makes the outputs is at work."""
        for publisher in self._watched:
            publisher.assert_liveliness()

    def destroy(self) -> None:
        """Take all down."""
        for publisher in self._publishers.values():
            self._watch.release(publisher)
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._watched.clear()
        self._heard = frozenset()


@dataclass(frozen=True)
class Output:
    """A result while it is published.

    Attributes:
        result: with output.
        header: of what is in the pixels or the frame of the result's reference.
        settings: the node's parameters.
        topics: to send on.
    """

    result: Result
    header: Header
    settings: Settings
    topics: Topics

    @property
    def camera_info(self) -> CameraInfo | None:
        """The intrinsics of the pixels that the result is in, where they are known."""
        camera = self.result.samples[self.result.reference].camera
        if camera is None:
            return None
        message = from_camera(camera, 0, "")
        message.header = self.header
        return message

    def heard(self, name: str) -> bool:
        """Whether somebody listens to a topic."""
        return self.topics.heard(name)

    def send(self, name: str, message: Any) -> None:
        """Publish a message."""
        self.topics.send(name, message)


class TaskPublisher:
    """Publishes one task: as it is, the task's JSON (`Task.to_dict`) on `~/<task>`.

    A subclass that `Task.publisher` names says other topics and messages.

    Args:
        task: its name.
        spec: what the bundle says of it.
    """

    def __init__(self, task: str, spec: Any) -> None:
        self.task, self.spec = task, spec

    @property
    def topics(self) -> Mapping[str, Any]:
        """Message types by name of the topic under `~/`."""
        return {self.task: String}

    @property
    def latched(self) -> Mapping[str, Any]:
        """The same of topics on which `announce` says what holds for all results."""
        return {}

    def parts(self, heard: frozenset[str], settings: Settings) -> frozenset[str]:
        """The parts of tasks that results must hold for those of its topics that are heard."""
        return frozenset(TASKS[self.task].parts) if heard else frozenset()

    def announce(self, topics: Topics, settings: Settings) -> None:
        """Publish what holds for all results."""

    def publish(self, value: Any, out: Output) -> None:
        """Publish a value on those of its topics that are heard.

        Args:
            value: the task's; None where the result has none.
            out: the result that it is of.
        """
        if value is not None and out.heard(self.task):
            about = {"stamp_ns": out.result.output_ns, "frame_id": out.header.frame_id}
            content = {**about, **TASKS[self.task].to_dict(value, self.spec)}
            out.send(self.task, String(data=json.dumps(content, allow_nan=False)))

"""Everything that the pipeline gives, on topics that are listened to."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from anysense_msgs.msg import PerceptionStatus
from rclpy._rclpy_pybind11 import RCLError
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from anysense_ros.conversions import header, image
from anysense_ros.parameters import Settings
from anysense_ros.publishing.status import TOPIC, Status
from anysense_ros.publishing.topics import LATCHED, Output, TaskPublisher, Topics
from anysense_ros.qos_events import QosEvents
from perception.frame import Frame, Sample
from perception.plugins import PluginError
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.sensors.registry import kind_of
from perception.tasks.registry import TASKS, drawn
from perception.viz.overlay import draw_result

OVERLAY, CAMERA = "overlay", "camera_info"


class Outputs:
    """Publishers of everything the pipeline gives.

    Args:
        node: the node that publishes.
        manifest: the bundle's, whose tasks say which topics there are.
        settings: the node's parameters, for the QoS.
        events: callbacks for incompatible subscribers, None where rclpy has none.
        watch: hears of the events, away from the node's executor.

    Attributes:
        status: publishes ~/status.

    Raises:
        PluginError: a plug-in's publisher cannot be made, or wants a topic that there is.
    """

    def __init__(
        self,
        node: LifecycleNode,
        manifest: BundleManifest,
        settings: Settings,
        events: Any,
        watch: QosEvents,
    ) -> None:
        self._node, self._manifest = node, manifest
        self._topics = Topics(node, events, watch)
        qos = _watched(settings, 1, ReliabilityPolicy[settings["qos.outputs"].upper()])
        reliable = _watched(settings, 10, ReliabilityPolicy.RELIABLE)
        topics: dict[str, tuple[Any, QoSProfile]] = {
            OVERLAY: (Image, qos),
            CAMERA: (CameraInfo, qos),
            TOPIC: (PerceptionStatus, reliable),
        }
        self._tasks: dict[str, TaskPublisher] = {}
        for name, spec in manifest.tasks.every.items():
            with TASKS.guarding(name):
                self._tasks[name] = made = _publisher(name, spec)
                own = {t: (kind, qos) for t, kind in made.topics.items()}
                own |= {t: (kind, LATCHED) for t, kind in made.latched.items()}
            if taken := own.keys() & {*topics, "input"}:
                raise PluginError(f"topic ~/{min(taken)} is another's", where=TASKS.place(name))
            topics |= own
        for topic, (kind, of) in topics.items():
            self._topics.add(topic, kind, of)
        self.status = Status(node, self._topics)
        self._lease_s = settings["qos.lease_ms"] / 1e3
        self._alive_at = 0.0
        self._header = Header()

    def destroy(self) -> None:
        """Take the topics down."""
        self._topics.destroy()

    def assert_alive(self) -> None:
        """Say, often enough for the lease, that whoever makes the outputs is at work."""
        now = time.monotonic()
        if self._lease_s and now - self._alive_at >= self._lease_s / 4:
            self._alive_at = now
            self._topics.assert_liveliness()

    def announce(self, settings: Settings) -> None:
        """Publish what holds for all results, such as the classes of the mask."""
        for publisher in self._tasks.values():
            publisher.announce(self._topics, settings)

    def publish(self, result: Result, settings: Settings) -> Header:
        """Publish what the result holds on every topic that is listened to."""
        if result.reference is None:
            # In state hold the last output goes on to hold: whoever listens has it.
            return header(result.output_ns, self._header.frame_id)
        self._header = header(result.output_ns, _frame_id(result.samples[result.reference]))
        out = Output(result, self._header, settings, self._topics)
        if out.heard(CAMERA) and (camera := out.camera_info) is not None:
            out.send(CAMERA, camera)
        if out.heard(OVERLAY):
            opacity = settings["output.overlay_opacity"]
            picture = draw_result(self._manifest, Frame(result.samples), result, opacity)
            out.send(OVERLAY, image(picture, self._header, "rgb8"))
        for name, publisher in self._tasks.items():
            try:
                publisher.publish(result.values.get(name), out)
            except RCLError:
                raise
            except Exception as error:  # a plug-in's may raise anything: the others go on
                self._node.problem(error)
        return self._header

    def needed(self, settings: Settings) -> frozenset[str]:
        """What results must hold for those who listen, of `Pipeline.parts`."""
        parts = (
            drawn({n: p.spec for n, p in self._tasks.items()})
            if self._topics.heard(OVERLAY)
            else frozenset()
        )
        for publisher in self._tasks.values():
            heard = frozenset(name for name in publisher.topics if self._topics.heard(name))
            parts |= publisher.parts(heard, settings)
        return parts


def _publisher(name: str, spec: Any) -> TaskPublisher:
    module, _, attribute = (TASKS[name].publisher or "").partition(":")
    if not module:
        return TaskPublisher(name, spec)
    try:
        made: TaskPublisher = getattr(import_module(module), attribute)(name, spec)
    except ImportError as error:
        raise PluginError(f"its publisher: {error}", where=TASKS.place(name)) from error
    return made


def _frame_id(sample: Sample) -> str:
    """The frame of the picture that a result is in: points are seen from their camera."""
    camera = None if kind_of(sample.kind).has_picture else sample.camera
    return camera.frame_id if camera is not None else sample.frame_id


def _watched(settings: Settings, depth: int, reliability: ReliabilityPolicy) -> QoSProfile:
    """QoS by which a subscriber can notice that outputs stop, or that the node hangs or is dead."""
    qos = QoSProfile(depth=depth, reliability=reliability)
    if settings["qos.deadline_ms"]:
        qos.deadline = Duration(nanoseconds=settings.ns("qos.deadline_ms"))
    if settings["qos.lease_ms"]:
        # By topic: the middleware's own threads would speak for a node that hangs.
        qos.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
        qos.liveliness_lease_duration = Duration(nanoseconds=settings.ns("qos.lease_ms"))
    return qos

"""Drivers of four sensors for the ROS benchmarks: each with a rhythm, a clock and faults of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from anysense_ros.conversions import cloud, from_camera, from_transform, header, image, to_stamp
from anysense_ros.faults import Fault, FaultySensor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from perception.frame import KINDS
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

_INPUTS = "/perception_node/input"
HEIGHT, WIDTH = 240, 320
CAMERA = CameraModel(WIDTH, HEIGHT, 250.0, 250.0, 159.5, 119.5, frame_id="camera_optical")
# LiDAR axes (x forward, y left, z up) to optical ones (z forward, x right, y down).
TO_OPTICAL = RigidTransform(
    np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.array([0.0, -0.1, 0.0])
)
FRAMES = {m: "lidar" if m == "lidar" else "camera_optical" for m in KINDS}


@dataclass(frozen=True)
class Pattern:
    """How a driver publishes.

    Attributes:
        hz: its rate.
        phase_s: its first message comes so much later than the others'.
        jitter_s: each message comes up to so much later than it is due.
        latency_s: its stamps are so much older than their messages.
        ahead_s: its clock is ahead by so much.
        stamped: whether it stamps at all.
    """

    hz: float
    phase_s: float = 0.0
    jitter_s: float = 0.0
    latency_s: float = 0.005
    ahead_s: float = 0.0
    stamped: bool = True


class Drivers:
    """Publishes to a perception node's inputs, each sensor from a thread of its own.

    Args:
        node: publishes, and is spun elsewhere.
        patterns: by sensor.
    """

    def __init__(self, node: Node, patterns: dict[str, Pattern]) -> None:
        self.patterns = patterns
        self._faults: dict[str, tuple[Fault, FaultySensor, Callable[[float], None]]] = {}
        self._ended = threading.Event()
        self._base = np.random.default_rng(5).integers(20, 230, (HEIGHT, WIDTH, 3), np.uint8)
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers = {
            m: node.create_publisher(
                PointCloud2 if m == "lidar" else Image, f"{_INPUTS}/{m}", reliable
            )
            for m in patterns
        }
        self._infos = {
            m: node.create_publisher(CameraInfo, f"{_INPUTS}/{m}/camera_info", reliable)
            for m in patterns
            if m != "lidar"
        }
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = node.create_publisher(TFMessage, "/tf_static", latched)
        mount = from_transform(TO_OPTICAL, "camera_optical", "lidar", 0)
        self._tf.publish(TFMessage(transforms=[mount]))
        self._threads = [
            threading.Thread(target=self._run, args=(m,), daemon=True) for m in patterns
        ]

    def start(self) -> None:
        """Begin to publish."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop publishing."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def fail(self, fault: Fault, on_first: Callable[[float], None]) -> None:
        """Let a sensor fail from its next message on.

        Args:
            fault: how; `stamp_jump` is a clock that is ahead.
            on_first: called with the monotonic time at which that message is sent, or would be.
        """
        self._faults[fault.sensor] = (fault, FaultySensor(), on_first)

    def mend(self, sensor: str) -> None:
        """End a sensor's fault."""
        self._faults.pop(sensor, None)

    def _run(self, sensor: str) -> None:
        pattern = self.patterns[sensor]
        random = np.random.default_rng(list(KINDS).index(sensor))
        start, count = time.monotonic() + pattern.phase_s, 0
        frozen_since: FaultySensor | None = None
        while True:
            due = start + count / pattern.hz + random.uniform(0, pattern.jitter_s)
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            stamp = time.time_ns() + round((pattern.ahead_s - pattern.latency_s) * 1e9)
            message = self._message(sensor, stamp if pattern.stamped else 0, count)
            found = self._faults.get(sensor)
            if found is None:
                frozen_since = None
                self._send(sensor, message)
            else:
                fault, faulty, on_first = found
                if faulty is not frozen_since:
                    frozen_since = faulty
                    on_first(time.monotonic())
                self._send_faulty(sensor, message, fault, faulty)
            count = max(count + 1, int((time.monotonic() - start) * pattern.hz))

    def _send_faulty(self, sensor: str, message: Any, fault: Fault, faulty: FaultySensor) -> None:
        faulty.push(message, time.monotonic_ns(), fault)
        while (due := faulty.next_ns()) is not None:
            late = (due - time.monotonic_ns()) / 1e9
            for changed, _ in faulty.poll(due):
                if late <= 0:
                    self._send(sensor, changed)
                    continue
                timer = threading.Timer(late, self._send, (sensor, changed))
                timer.daemon = True
                timer.start()

    def _send(self, sensor: str, message: Any) -> None:
        if self._ended.is_set():
            return
        if sensor in self._infos:
            info = from_camera(CAMERA, 0, FRAMES[sensor])
            info.header.stamp = message.header.stamp
            self._infos[sensor].publish(info)
        self._publishers[sensor].publish(message)

    def _message(self, sensor: str, stamp_ns: int, count: int) -> Any:
        """A message of a scene that moves a little with every count."""
        head = header(0, FRAMES[sensor])
        head.stamp = to_stamp(stamp_ns)
        picture = np.roll(self._base, 4 * count, axis=1)
        if sensor == "rgb":
            return image(picture, head, "rgb8")
        if sensor == "depth":
            return image((2 + picture[..., 0] / 50).astype(np.float32), head)
        if sensor == "thermal":
            return image(picture[..., 1].astype(np.uint16) * 100, head, "mono16")
        y, z = np.meshgrid(np.linspace(-3, 3, 80), np.linspace(-2, 2, 60))
        x = 8 + picture[:60, :80, 2] / 100
        points = np.stack([x, y, z, np.full_like(x, 0.5)], axis=-1).reshape(-1, 4)
        return cloud(points.astype(np.float32), head)

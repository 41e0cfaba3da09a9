"""A bench: drivers of sensors that publish real messages, and ears for what the node says."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rclpy
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import (
    cloud,
    from_camera,
    from_transform,
    header,
    image,
    to_ns,
    to_stamp,
)
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import PATIENCE_S, wait_until
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from perception.frame import KINDS
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

HEIGHT, WIDTH = 96, 128
CAMERA = CameraModel(WIDTH, HEIGHT, 100.0, 100.0, 63.5, 47.5, frame_id="camera_optical")
# LiDAR axes (x forward, y left, z up) to optical ones (z forward, x right, y down).
TO_OPTICAL = RigidTransform(
    np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.array([0.0, -0.1, 0.0])
)
FRAMES = {k: "lidar" if k == "lidar" else "camera_optical" for k in KINDS}

Change = Callable[[Any, int], Any]
"""Takes a message and its stamp; gives what is published instead, None for nothing."""

_MATCHING_S = 0.2
"""A client knows of a server before the server knows of it, and until then an answer is lost."""


class Bench:
    """The robot around the node under test.

    `changes[sensor]` may alter or drop that sensor's messages, `delay_s[sensor]` hold them back,
    `jitter_ns[sensor]` is added to every other stamp, `repeat[sensor]` multiplies the rate.  All
    sensors are driven together, but for those that `pace` gives a rhythm of their own.  `camera` is what
    camera_info says.  `kinds` says of
    which kind sensors are that are not called so, `topics` where they publish (`front`, `front/camera_info`)
    if not where the node listens.  `placed` says over /tf_static where the LiDAR sits.
    """

    def __init__(
        self,
        domain: int,
        node: str = "perception_node",
        rate_hz: float = 5.0,
        sensors: Sequence[str] = KINDS,
        kinds: Mapping[str, str] | None = None,
        topics: Mapping[str, str] | None = None,
        placed: bool = True,
    ) -> None:
        self._topics, self._placed = topics or {}, placed
        self.sensors = list(sensors)
        self.kinds = {**{k: k for k in KINDS}, **(kinds or {})}
        self.period_s = 1 / rate_hz
        self.changes: dict[str, Change] = {}
        self.delay_s: dict[str, float] = {}
        self.jitter_ns: dict[str, int] = {}
        self.repeat: dict[str, int] = {}
        self.stamp_shift_ns = 0
        self.camera = CAMERA
        self.sent: dict[str, int] = dict.fromkeys(self.kinds, 0)
        self.statuses: list[PerceptionStatus] = []
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self.reports: list[dict[str, DiagnosticStatus]] = []  # each /diagnostics of the node
        self.log: list[str] = []  # the node's lines in /rosout
        self.stamps: dict[str, list[int]] = {s: [] for s in self.kinds}  # of what was sent
        self.now_ns: Callable[[], int] = time.time_ns  # the clock that drivers stamp with
        self.heard: dict[str, list[Any]] = {}
        self.name = node
        self.alive: Callable[[], bool] = lambda: True
        self._random = np.random.default_rng(5)
        self._base = self._random.integers(20, 230, (HEIGHT, WIDTH, 3), np.uint8)
        self._clients: dict[str, Any] = {}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("bench", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._make_topics()
        self._stop = threading.Event()
        self._drive = threading.Event()
        self._threads = [
            threading.Thread(target=self._spin, daemon=True),
            threading.Thread(target=self._publish_all, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _make_topics(self) -> None:
        node, sensor = self.node, QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        root = f"/{self.name}"
        self._publishers = {
            name: node.create_publisher(
                PointCloud2 if kind == "lidar" else Image, self._topic(name), sensor
            )
            for name, kind in self.kinds.items()
        }
        self._infos = {
            name: node.create_publisher(CameraInfo, self._topic(f"{name}/camera_info"), sensor)
            for name, kind in self.kinds.items()
            if kind != "lidar"
        }
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = node.create_publisher(TFMessage, "/tf_static", latched)
        if self._placed:
            self.place_lidar(TO_OPTICAL)
        node.create_subscription(PerceptionStatus, f"{root}/status", self.statuses.append, 50)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        rosout = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(Log, "/rosout", self._on_log, rosout)

    def _topic(self, name: str) -> str:
        return self._topics.get(name, f"/{self.name}/input/{name}")

    def place_lidar(self, mount: RigidTransform) -> None:
        """Say over /tf_static where the LiDAR sits in the camera's frame."""
        message = from_transform(mount, "camera_optical", "lidar", 0)
        self._tf.publish(TFMessage(transforms=[message]))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        parts = {s.name.split(": ")[-1]: s for s in message.status if s.name.startswith(self.name)}
        self.diagnostics.update({s.name.split(": ")[-1]: s for s in message.status})
        if parts:
            self.reports.append(parts)

    def _on_log(self, message: Log) -> None:
        if message.name == self.name:
            self.log.append(message.msg)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _publish_all(self) -> None:
        count = 0
        while not self._stop.is_set():
            self._drive.wait(0.1)
            if not self._drive.is_set():
                continue
            start = time.monotonic()
            most = max([1, *self.repeat.values()])
            for step in range(most):
                stamp = self.now_ns() + self.stamp_shift_ns
                for name in self.sensors:
                    if step < self.repeat.get(name, 1):
                        self._publish(name, stamp, count)
                        count += 1
                rest = start + self.period_s * (step + 1) / most - time.monotonic()
                self._stop.wait(max(0.0, rest))

    def _publish(self, name: str, stamp: int, count: int) -> None:
        stamp += self.jitter_ns.get(name, 0) * (count // 4 % 2)
        message = self.changes.get(name, _same)(self.message(name, stamp, count), stamp)
        if message is None:
            return
        if name in self._infos:
            self._infos[name].publish(from_camera(self.camera, stamp, "camera_optical"))
        self.sent[name] += 1
        self.stamps[name].append(to_ns(message.header.stamp))
        publisher, delay = self._publishers[name], self.delay_s.get(name, 0.0)
        if delay:
            timer = threading.Timer(delay, publisher.publish, [message])
            timer.daemon = True
            timer.start()
        else:
            publisher.publish(message)

    def message(self, name: str, stamp: int, count: int) -> Any:
        """A message of a scene that moves a little with every count, and never is the same twice."""
        kind = self.kinds[name]
        head = header(stamp, FRAMES[kind])
        picture = np.roll(self._base, count, axis=1)
        # Rolled round it would be: a busy node that drops messages might see the same one for long.
        picture[0, :4] = np.array([[count >> shift & 255] for shift in (0, 8, 16, 24)], np.uint8)
        if kind == "rgb":
            return image(picture, head, "rgb8")
        if kind == "depth":
            return image((2 + picture[..., 0] / 50).astype(np.float32), head)
        if kind == "thermal":
            return image(picture[..., 1].astype(np.uint16) * 100, head, "mono16")
        y, z = np.meshgrid(np.linspace(-3, 3, 60), np.linspace(-2, 2, 40))
        x = 8 + picture[:40, :60, 2] / 100
        points = np.stack([x, y, z, np.full_like(x, 0.5)], axis=-1).reshape(-1, 4)
        return cloud(points.astype(np.float32), head)

    def pace(self, name: str, hz: float, phase_s: float = 0.0, jitter_s: float = 0.0) -> None:
        """Drive a sensor by itself from now on, not in step with the others."""
        if name in self.sensors:
            self.sensors.remove(name)
        random = np.random.default_rng(len(self._threads))

        def publish() -> None:
            start, count = time.monotonic() + phase_s, 0
            while not self._stop.wait(max(0.0, start + count / hz - time.monotonic())):
                if self._drive.is_set():
                    self._publish(name, self.now_ns() + self.stamp_shift_ns, 4 * count)
                count = max(count + 1, int((time.monotonic() - start) * hz))
                self._stop.wait(random.uniform(0, jitter_s))

        self._threads.append(threading.Thread(target=publish, daemon=True))
        self._threads[-1].start()

    def drive(self, on: bool = True) -> None:
        """Start or stop all drivers."""
        self._drive.set() if on else self._drive.clear()

    def mend(self) -> None:
        """Undo all changes."""
        self.changes.clear()
        self.delay_s.clear()
        self.jitter_ns.clear()
        self.repeat.clear()

    def wait_status(
        self,
        condition: Callable[[PerceptionStatus], bool],
        what: str,
        timeout_s: float = PATIENCE_S,
    ) -> PerceptionStatus:
        """The first status from now on for which a condition holds."""
        start = len(self.statuses)

        def found() -> PerceptionStatus | None:
            assert self.alive(), f"the node ended while waiting for {what}"
            return next((s for s in self.statuses[start:] if condition(s)), None)

        try:
            return wait_until(found, what, timeout_s)
        except AssertionError as error:
            last = self.statuses[-1:] if len(self.statuses) > start else "no status"
            raise AssertionError(f"{error}; last: {last}") from None

    def wait_full(self, count: int = 4) -> PerceptionStatus:
        """Wait until that many sensors are used and all are well."""
        return self.wait_status(
            lambda s: len(s.used) == count and all(x.health == "ok" for x in s.sensors),
            f"an output from {count} sensors",
        )

    def wait_diagnostic(
        self, part: str, condition: Callable[[DiagnosticStatus], bool], what: str
    ) -> DiagnosticStatus:
        """The state of a part when a condition holds."""

        def found() -> DiagnosticStatus | None:
            status = self.diagnostics.get(part)
            return status if status is not None and condition(status) else None

        return wait_until(found, f"{what}; have {self.diagnostics.get(part)}")

    def listen(self, kind: Any, topic: str, qos: Any = 5) -> list[Any]:
        """Subscribe to a topic of the node and return the growing list of messages."""
        if topic not in self.heard:
            heard: list[Any] = []
            self.node.create_subscription(kind, f"/{self.name}/{topic}", heard.append, qos)
            self.heard[topic] = heard
        return self.heard[topic]

    def call(self, kind: Any, name: str, request: Any, node: str = "") -> Any:
        """Call a service of the node."""
        service = f"/{node or self.name}/{name}"
        client = self._clients.get(service)
        if client is None:
            client = self._clients[service] = self.node.create_client(kind, service)
            wait_until(client.service_is_ready, f"service {name}")
            time.sleep(_MATCHING_S)
        wait_until(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def transition(self, label: str) -> bool:
        """Take the node through a lifecycle transition, such as `configure`."""
        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "change_state", request).success)

    def state(self) -> str:
        """The node's lifecycle state."""
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter and return the result."""
        message = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def close(self) -> None:
        """Stop everything."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


class SimulatedTime:
    """Publishes /clock in steps, and is what drivers stamp with while it runs."""

    def __init__(self, bench: Bench, step_s: float) -> None:
        self._start = time.monotonic()
        bench.now_ns = self.now_ns
        self._publisher = bench.node.create_publisher(Clock, "/clock", 10)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(step_s,), daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        """What a simulated driver stamps with."""
        return round((100 + time.monotonic() - self._start) * 1e9)

    def _run(self, step_s: float) -> None:
        while not self._ended.wait(step_s):
            self._publisher.publish(Clock(clock=to_stamp(self.now_ns())))

    def close(self) -> None:
        """Stop the time."""
        self._ended.set()
        self._thread.join()


def _same(message: Any, stamp: int) -> Any:
    return message


def drop(message: Any, stamp: int) -> None:
    """Nothing is published."""


def null(message: Any, stamp: int) -> Any:
    """A message of the right type with nothing in it."""
    empty = type(message)()
    empty.header = message.header
    return empty


def wrong_encoding(message: Any, stamp: int) -> Any:
    """An encoding that nobody knows, or a cloud without x."""
    if isinstance(message, PointCloud2):
        message.fields[0].name = "azimuth"
    else:
        message.encoding = "jpeg2000"
    return message


def cut_off(message: Any, stamp: int) -> Any:
    """Fewer bytes than the size promises."""
    message.data = array("B", message.data[: len(message.data) // 2])
    return message


def black(message: Any, stamp: int) -> Any:
    """What a covered sensor gives."""
    if isinstance(message, PointCloud2):
        message.width, message.row_step, message.data = 0, 0, array("B")
    else:
        message.data = array("B", bytes(len(message.data)))
    return message


def shifted(seconds: float) -> Change:
    """What a driver sends whose clock is ahead."""

    def change(message: Any, stamp: int) -> Any:
        message.header.stamp = to_stamp(stamp + round(seconds * 1e9))
        return message

    return change


def unstamped(message: Any, stamp: int) -> Any:
    """What a driver sends that leaves the stamp out."""
    message.header.stamp = to_stamp(0)
    return message


class Frozen:
    """The first message again and again, with new stamps."""

    def __init__(self) -> None:
        self._kept: Any = None

    def __call__(self, message: Any, stamp: int) -> Any:
        if self._kept is None:
            self._kept = message
        self._kept.header = message.header
        return self._kept

"""Drivers of cameras and LiDARs before which a board is held, and ears for what the node `calibrate` says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
from anysense_ros.conversions import cloud, from_camera, header, image
from board_scenes import picture_of, pose_at
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from processes import PATIENCE_S, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from calibration.boards import Board
from calibration.fitting import project_view
from calibration.joint import middle_of
from perception.geometry.camera import CameraModel

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RATE_HZ = 10.0

Show = Callable[[int], Any]
"""Gives a message's content for the number of the moment: an array, or a message; None for nothing."""


class BoardBench:
    """Publishes what `show` holds by topic, all of one stamp, and hears the node.

    Args:
        domain: the ROS domain.
        node: the node's name.
    """

    def __init__(self, domain: int, node: str = "calibrate") -> None:
        self.name = node
        self.show: dict[str, Show] = {}
        self.shift_ns: dict[str, int] = {}
        self.infos: dict[str, CameraModel] = {}
        self.feedback: list[dict[str, Any]] = []
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self.transforms: list[TFMessage] = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("board_bench", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._outs: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        own = self.node
        own.create_subscription(String, f"/{node}/feedback", self._on_feedback, LATCHED)
        own.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        own.create_subscription(TFMessage, "/tf_static", self.transforms.append, LATCHED)
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._spin, daemon=True),
            threading.Thread(target=self._drive, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop everything."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _drive(self) -> None:
        moment = 0
        while not self._ended.wait(1 / RATE_HZ):
            moment += 1
            stamp = time.time_ns()
            for topic, show in list(self.show.items()):
                content = show(moment)
                if content is not None:
                    self._send(topic, content, stamp + self.shift_ns.get(topic, 0))
            for topic, camera in list(self.infos.items()):
                self._publish(topic, from_camera(camera, stamp, camera.frame_id))

    def _send(self, topic: str, content: Any, stamp: int) -> None:
        head = header(stamp, f"{topic.strip('/').split('/')[-1]}_optical")
        if not isinstance(content, np.ndarray):
            content.header = head
        elif content.dtype == np.float32 and content.shape[1] == 4:
            content = cloud(content, header(stamp, "velodyne"))
        else:
            content = image(content, head, "" if content.ndim == 2 else "rgb8")
        self._publish(topic, content)

    def _publish(self, topic: str, message: Any) -> None:
        if topic not in self._outs:
            self._outs[topic] = self.node.create_publisher(type(message), topic, 5)
        self._outs[topic].publish(message)

    def _on_feedback(self, message: String) -> None:
        self.feedback.append(json.loads(message.data))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name, _, part = status.name.partition(": ")
            if name == self.name:
                self.diagnostics[part] = status

    def wait_feedback(
        self, good: Callable[[dict[str, Any]], Any], what: str, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The first feedback from now on that is as wanted."""
        start = len(self.feedback)
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [one for one in self.feedback[start:] if good(one)]
            return bool(found)

        try:
            wait_until(there, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {self.feedback[-1:]}") from None
        return found[0]

    def wait_diagnostic(
        self, part: str, good: Callable[[DiagnosticStatus], Any], what: str
    ) -> DiagnosticStatus:
        """A part's condition, once it is as wanted."""

        def found() -> DiagnosticStatus | None:
            status = self.diagnostics.get(part)
            return status if status is not None and good(status) else None

        return wait_until(found, f"{what}; have {self.diagnostics.get(part)}")

    def call(self, service: str) -> Any:
        """The answer of one of the node's services."""
        if service not in self._clients:
            client = self.node.create_client(Trigger, f"/{self.name}/{service}")
            wait_until(client.service_is_ready, service)
            time.sleep(0.2)  # until the server knows the client, an answer is lost
            self._clients[service] = client
        answer = self._clients[service].call_async(Trigger.Request())
        wait_until(answer.done, f"the answer of {service}")
        return answer.result()

    def hear(self, kind: Any, topic: str, qos: Any = LATCHED) -> list[Any]:
        """What comes on a topic from now on."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, qos)
        return heard


def still(content: Any) -> Show:
    """The same at every moment."""
    return lambda moment: content


def lit(board: Board, camera: CameraModel, pose: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) what a camera without distortion sees of a board in room light."""
    gray = (picture_of(board, camera, pose) * 0.8).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def apart(
    board: Board, camera: CameraModel, poses: Sequence[NDArray[Any]], pose: NDArray[Any]
) -> bool:
    """Whether a pose is clearly unlike others: by what is true of it, and more than the node asks for."""

    def true(one: NDArray[Any]) -> tuple[NDArray[Any], float, NDArray[Any]]:
        turn = cv2.Rodrigues(one[:3])[0]
        middle = turn @ middle_of(board) + one[3:]
        at = camera.project(middle[None])[0][0] / [camera.width, camera.height]
        return at, float(middle[2]), turn[:, 2]

    at, far, normal = true(pose)
    for other in poses:
        its_at, its_far, its_normal = true(other)
        turned = np.degrees(np.arccos(np.clip(normal @ its_normal, -1, 1)))
        shifted = np.abs(at - its_at).max()
        if not (shifted > 0.15 or max(far / its_far, its_far / far) > 1.35 or turned > 25):
            return False
    return True


def poses_of(
    board: Board, camera: CameraModel, count: int, seed: int, margin: float = 12.0
) -> list[NDArray[Any]]:
    """(6,) poses, wholly in the picture and all unlike each other."""
    rng, found = np.random.default_rng(seed), list[NDArray[Any]]()
    while len(found) < count:
        pose = pose_at(board, rng, camera)
        pixels = project_view(camera, pose, board.points)
        far = np.array([camera.width, camera.height]) - margin
        inside = (pixels > margin).all() and (pixels < far).all()
        if inside and apart(board, camera, found, pose):
            found.append(pose)
    return found


__all__ = ["CameraInfo", "CompressedImage", "Image", "PointCloud2"]

"""A rig as topics: camera_info of each camera, and /tf_static."""

from __future__ import annotations

from functools import partial
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from anysense_ros.conversions import from_camera, from_transform
from anysense_ros.library import published
from perception.geometry.rig import Rig

TF_TOPIC = "/tf_static"


class RigTopics:
    """Publishes a rig: latched, and camera_info time and again for those who do not ask for what is latched.

    Args:
        node: on whose `~/<sensor>/camera_info` it goes.
        period_s: of camera_info.
        tf: whether /tf_static is published.
    """

    def __init__(self, node: Node, period_s: float, tf: bool) -> None:
        self._node = node
        self._latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._infos: dict[str, tuple[Any, Any]] = {}
        self._tf = node.create_publisher(TFMessage, TF_TOPIC, self._latched) if tf else None
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period_s, self._repeat, clock=steady)

    def publish(self, rig: Rig) -> list[str]:
        """Publish a rig from now on; from the executor's thread.

        Returns:
            A line for each thing that the topics cannot say.
        """
        cameras, links, lines = published(rig)
        for name in set(self._infos) - set(cameras):
            self._node.destroy_publisher(self._infos.pop(name)[0])
        for name, camera in cameras.items():
            known = self._infos.get(name)
            topic = f"~/{name}/camera_info"
            out = (
                known[0] if known else self._node.create_publisher(CameraInfo, topic, self._latched)
            )
            self._infos[name] = out, partial(from_camera, camera, frame_id=camera.frame_id)
        self._repeat()
        if self._tf is not None and links:
            now = self._node.get_clock().now().nanoseconds
            steps = [from_transform(one.transform, one.parent, one.child, now) for one in links]
            self._tf.publish(TFMessage(transforms=steps))
        return lines

    def _repeat(self) -> None:
        now = self._node.get_clock().now().nanoseconds
        try:
            for publisher, message in self._infos.values():
                publisher.publish(message(stamp_ns=now))
        except RCLError:
            if self._node.context.ok():  # otherwise a signal has taken the topics from under us
                raise

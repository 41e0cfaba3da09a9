"""What the ROS benchmarks share: a node that spins beside them, and where the workspace's nodes are."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor


class SpinningNode:
    """A node whose callbacks come from a thread of its own until `close`.

    Attributes:
        node: to subscribe, publish and call services with.
    """

    def __init__(self, name: str) -> None:
        rclpy.init()
        self.node = rclpy.create_node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self) -> None:
        """Begin to spin."""
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Stop spinning and leave ROS."""
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown()


def node_program(name: str) -> Path:
    """The executable of a node of `anysense_ros`, in the workspace that the environment names."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    found = [p for p in (Path(x) / "lib/anysense_ros" / name for x in prefixes) if p.is_file()]
    if not found:
        raise SystemExit("the workspace is not built: make ros, then source ros2_ws/env.sh")
    return found[0]

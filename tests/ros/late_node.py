"""A node whose callback is interrupted by a signal, and publishes after that."""

from __future__ import annotations

import os
import signal
import sys
import time

import rclpy
from anysense_ros import processes
from rclpy.node import Node
from std_msgs.msg import Header


class LateNode(Node):  # type: ignore[misc]
    """Signals itself once, waits until that has ended ROS, and goes on."""

    def __init__(self) -> None:
        super().__init__("late_node")
        self._signal = self.declare_parameter("signal", int(signal.SIGTERM)).value
        self._publisher = self.create_publisher(Header, "late", 1)
        self.create_timer(0.1, self._on_timer)

    def _on_timer(self) -> None:
        os.kill(os.getpid(), self._signal)
        end = time.monotonic() + 30
        while rclpy.ok() and time.monotonic() < end:
            time.sleep(0.01)
        sys.stdout.write("publishes\n")
        self._publisher.publish(Header())


if __name__ == "__main__":
    sys.exit(processes.run(LateNode, lambda node: None))

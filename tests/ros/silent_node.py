"""A node to which nothing comes, and whose context ends without waking the executor."""

from __future__ import annotations

import sys
import threading

from anysense_ros import processes
from rclpy.node import Node


def end_in_a_second(node: Node) -> None:
    """End the node's context as a signal does that meets the executor between two waits."""
    end = node.context.handle.shutdown  # the context's own would wake the executor
    threading.Timer(1, end).start()


if __name__ == "__main__":
    sys.exit(processes.run(lambda: Node("silent_node"), lambda node: None, end_in_a_second))

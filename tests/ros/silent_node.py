"""A node to which nothing comes, and whose context ends without waking the executor."""

from __future__ import annotations

import sys
import threading
import time

from anysense_ros import processes
from rclpy.node import Node


class SilentNode(Node):  # type: ignore[misc]
    """Ends its context as a signal does that meets the executor between two waits."""

    def __init__(self) -> None:
        super().__init__("silent_node")

    def start(self) -> None:
        """End the context in a second."""
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        time.sleep(1)
        self.context.handle.shutdown()  # the context itself would wake the executor


if __name__ == "__main__":
    sys.exit(processes.run(SilentNode, lambda node: None, lambda node: node.start()))

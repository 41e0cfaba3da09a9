"""The time that samples are matched on."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node


class ForwardClock:
    """Nanoseconds that never go back: the monotonic clock, or with use_sim_time what /clock adds up to.

    When /clock jumps back, as when a bag loops, time stands still for that message and then goes on.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._lock = threading.Lock()
        self._last = 0
        self._sum = 0

    @property
    def simulated(self) -> bool:
        """Whether time follows /clock, at another pace than the monotonic clock's."""
        return self._simulated

    def now_ns(self) -> int:
        """The present time."""
        if not self._simulated:
            return time.monotonic_ns()
        with self._lock:  # the executor and the worker both ask
            now = self._node.get_clock().now().nanoseconds
            # The first reading may be far from zero; what counts are differences.
            if self._last:
                self._sum += max(0, now - self._last)
            self._last = now
            return self._sum

"""The times of messages: one that samples are matched on, and one that stamps are compared with."""

from __future__ import annotations

import threading
import time
from collections import deque

from rclpy.node import Node

from perception.runtime.stream import Clock, Moment

_MOST_STEP_NS = 1_000_000_000


class ForwardClock(Clock):
    """Nanoseconds that never go back: the monotonic clock, or with use_sim_time what /clock adds up to.

    When /clock jumps back, as when a bag loops, time stands still for that message and then goes on.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._lock = threading.Lock()
        self._last = 0
        self._sum = 0
        self._steps: deque[int] = deque(maxlen=16)

    @property
    def simulated(self) -> bool:
        """Whether time follows /clock, at another pace than the monotonic clock's."""
        return self._simulated

    def now_ns(self) -> int:
        """The present time."""
        return time.monotonic_ns() if not self._simulated else self.reading().now_ns

    def reading(self) -> Moment:
        """The present time on both clocks.

        /clock goes on in steps, and a message stamped within a step may come before its end: what
        is given is the end.
        """
        if not self._simulated:
            return Moment(time.monotonic_ns(), time.time_ns())
        with self._lock:  # the executor and the stream both ask
            now = self._node.get_clock().now().nanoseconds
            # The first reading may be far from zero; what counts are differences.
            if self._last and now > self._last:
                self._sum += now - self._last
                self._steps.append(now - self._last)
            self._last = now
            step = min(self._steps, default=0)
            return Moment(self._sum, now + min(step, _MOST_STEP_NS))

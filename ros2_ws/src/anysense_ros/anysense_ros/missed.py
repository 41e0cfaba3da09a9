"""What was sent and never came to the node: lost on the way, or replaced in the middleware's own queue.

The middleware's event for lost messages says nothing of what a full queue replaces (Fast DDS: none of 17
that it replaced of 20).  The numbers that publishers give their messages tell of both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

_WINDOW_NS = 10_000_000_000
_LEAST = 10
"""So many must be missing within the window before it is worth a warning."""
_SHARE = 1 / 3
_PUBLISHERS = 16
"""More than that are not told apart: what was not heard for longest is forgotten."""


class Missed:
    """Counts the messages of one topic that never came, from the numbers of those that do.

    Numbers rise by one with each message of a publisher.  What a publisher sent before its first message that
    came is not counted: the node may not have been there yet.

    Args:
        publishers: how many there are; asked where messages do not say whose they are (Jazzy), as their
            numbers tell something only while there is one.

    Attributes:
        count: how many never came; None until a message bears a number (Humble's do not).
    """

    def __init__(self, publishers: Callable[[], int] = lambda: 1) -> None:
        self.count: int | None = None
        self._publishers = publishers
        self._last: dict[bytes | None, int] = {}
        self._lately: deque[tuple[int, int]] = deque()  # when one came, how many before it did not
        self._missing = 0  # of those
        self._lock = threading.Lock()

    def note(self, info: Mapping[str, Any], now_ns: int) -> None:
        """A message came, of which the middleware says this, at a time of a steady clock."""
        number = info.get("publication_sequence_number")
        if number is None:
            return
        whose = (info.get("publisher_gid") or {}).get("data")
        before = self._last.pop(whose, None)
        self._last[whose] = number
        if len(self._last) > _PUBLISHERS:
            del self._last[next(iter(self._last))]
        # Numbers that go back are a new publisher's.
        gap = 0 if before is None or number <= before else number - before - 1
        if gap and whose is None and self._publishers() != 1:
            gap = 0
        with self._lock:
            self.count = (self.count or 0) + gap
            self._lately.append((now_ns, gap))
            self._missing += gap
            self._forget(now_ns)

    def line(self, now_ns: int) -> str:
        """What is worth a warning: that a third of the last ten seconds' messages never came; else empty.

        Args:
            now_ns: on the clock of `note`.
        """
        with self._lock:
            self._forget(now_ns)
            missing, sent = self._missing, self._missing + len(self._lately)
        if missing < _LEAST or missing < _SHARE * sent:
            return ""
        return f"{missing} of the {sent} messages of the last 10 s never came to the node"

    def _forget(self, now_ns: int) -> None:
        while self._lately and self._lately[0][0] < now_ns - _WINDOW_NS:
            self._missing -= self._lately.popleft()[1]

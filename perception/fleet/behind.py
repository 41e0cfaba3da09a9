"""Calls that a thread of its own makes while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

_AHEAD = 8
"""Calls that wait at most: a slow disk holds the caller up, and fills no memory."""


class Behind:
    """Makes calls in order, one at a time; they are waited for at the end of each `with` that uses this.

    What one raises is raised by `do` of a later one or at that end, and those behind it are not made.
    It is one thread for all: each new one would leave memory in other pieces.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            left = [call for call in self._waiting if not call.cancel()]
            self._waiting.clear()
            wait(left)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def do(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have a call made."""
        self._wait(_AHEAD)
        self._waiting.append(self._thread.submit(call, *arguments))

    def _wait(self, most: int) -> None:
        """Until so many are left to be made."""
        while len(self._waiting) > most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

"""Where threads of sensors leave messages for the one that works: the latest of each, in order of arrival."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from perception.errors import InputError

Key = TypeVar("Key")
Time = TypeVar("Time", bound=Any)
"""When a message arrived, in any form that can be ordered."""


class Inbox(Generic[Key, Time]):
    """One place per sensor; a message that was not fetched in time gives way to the next.

    Any thread puts; one takes.
    """

    def __init__(self) -> None:
        self._items: dict[Key, tuple[Time, Any, int]] = {}
        self._calls: list[Callable[[], None]] = []
        self._closed = False
        self._changed = threading.Condition()

    def put(self, key: Key, message: Any, arrived: Time) -> bool:
        """Leave a message; True when it replaced one.

        Raises:
            InputError: it is closed.
        """
        with self._changed:
            if self._closed:
                raise InputError("the stream is closed", where=str(key))
            before = self._items.pop(key, None)
            self._items[key] = (arrived, message, 0 if before is None else before[2] + 1)
            self._changed.notify()
            return before is not None

    def call(self, work: Callable[[], None]) -> None:
        """Have the worker call something between messages."""
        with self._changed:
            self._calls.append(work)
            self._changed.notify()

    def take(
        self, timeout_s: float
    ) -> tuple[list[tuple[Key, Any, Time, int]], list[Callable[[], None]]]:
        """All messages, oldest first, each with how many it replaced, and calls.

        Empty lists when none came within the timeout.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._calls or self._closed,
                min(max(0.0, timeout_s), threading.TIMEOUT_MAX),
            )
            items = [(k, m, t, n) for k, (t, m, n) in self._items.items()]
            calls, self._calls = self._calls, []
            self._items.clear()
        return sorted(items, key=lambda item: item[2]), calls

    def close(self) -> None:
        """Let the worker go; `closed` is True from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

"""Making things in a thread while those before are used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

MOST, MOST_BYTES = 64, 64 << 20
"""How many things wait at most, and how many bytes they have; always one, however large it is."""


def ahead(
    made: Iterator[T],
    size: Callable[[T], int] = lambda thing: 0,
    *,
    most: int = MOST,
    most_bytes: int = MOST_BYTES,
) -> Generator[T, None, None]:
    """The same things in the same order, made by a thread of their own some time before they are asked for.

    What making one raises is raised when it is its turn.  The thread has ended when this is closed, or has
    come to its end.

    Args:
        made: what the thread makes; nobody else may use it.
        size: bytes of a thing.
        most: things that wait.
        most_bytes: what they have together.
    """
    line = _Line[T](most, most_bytes)
    thread = threading.Thread(target=line.fill, args=(made, size), name="ahead", daemon=True)
    thread.start()
    try:
        while (found := line.next()) is not None:
            yield found[0]
    finally:
        line.leave()
        thread.join()


class _Line(Generic[T]):
    """What waits between the thread that makes and the one that uses."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._waiting: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended = self._left = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def fill(self, made: Iterator[T], size: Callable[[T], int]) -> None:
        """Make one after the other, until there is no more or nobody wants more."""
        try:
            for thing in made:
                if not self._put(thing, size(thing)):
                    break
            if isinstance(made, Generator):
                made.close()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, thing: T, size: int) -> bool:
        with self._changed:
            if self._waiting and (
                len(self._waiting) >= self._most or self._bytes + size > self._most_bytes
            ):
                # Until half of it is used: threads that take turns for each thing hinder one another.
                self._changed.wait_for(lambda: self._left or self._has_room(size))
            if self._left:
                return False
            self._waiting.append((thing, size))
            self._bytes += size
            self._changed.notify_all()
        return True

    def _has_room(self, size: int) -> bool:
        some = len(self._waiting) <= self._most // 2
        return not self._waiting or (
            some and self._bytes + size <= max(self._most_bytes // 2, size)
        )

    def next(self) -> tuple[T] | None:
        """The next thing, None behind the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None
            thing, size = self._waiting.popleft()
            self._bytes -= size
            self._changed.notify_all()
        return (thing,)

    def leave(self) -> None:
        """Nobody wants more."""
        with self._changed:
            self._left = True
            self._waiting.clear()
            self._changed.notify_all()

"""Memory that a peak has left: freed, but not given back.

The settings for large messages (`config/large_messages.sh`) keep freed buffers, as faulting their pages in
anew takes longer than what is done with them.  So a process stays as large as its largest moment: a burst
that filled every queue, an engine that was loaded beside others.  What is used all the time is kept here
too; only what is beyond goes back to the system.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from perception.runtime.free_memory import trimmer

_SETTLES_S = 10.0
"""After this, what is used all the time is there again."""

_PAUSE_S = 60.0
_BEYOND = 1.01
_ADOPTED = 0.1
"""Of what is more than usual after a trim, so much becomes usual: it may be what another peak has left."""


def private_bytes() -> int:
    """Memory of this process that no other shares; 0 where the system does not say."""
    try:
        _, all_pages, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(all_pages) - int(shared)) * resource.getpagesize()


class Heap:
    """Gives back what a peak has left, at most once a minute.

    Args:
        size: gives the memory in use, in bytes.
        trim: gives back what is free; by default glibc's, with another C library nothing.
        clock: seconds, steady.

    Attributes:
        trims: how often something was given back.
    """

    def __init__(
        self,
        size: Callable[[], int] = private_bytes,
        trim: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size, self._clock = size, clock
        self._trim = trim if trim is not None else trimmer()
        self._since = clock()
        self._least: int | None = None  # when all that was free had been given back
        self._beside: float | None = None  # what is used all the time, and free at some moments
        self._settled = False
        self.trims = 0

    def look(self) -> None:
        """Called now and then: give back what there is beyond what is usual."""
        passed = self._clock() - self._since
        if self._trim is None or passed < _SETTLES_S:
            return
        size = self._size()
        if not self._settled:
            self._settled = True
            self._note(size)
        elif passed >= _PAUSE_S and size > _BEYOND * ((self._least or 0) + (self._beside or 0.0)):
            self.give_back()

    def give_back(self) -> None:
        """Give back what is free, whatever is usual."""
        if self._trim is not None:
            self._trim()
            self.trims += 1
        self._since, self._settled, self._least = self._clock(), False, self._size()

    def _note(self, size: int) -> None:
        """Learn what is usual from the size some time after a trim, or after the start."""
        if self._least is None:
            self._least = size
            return
        if size < self._least:  # given back at a moment at which more than usual was in use
            self._least = size - round(self._beside or 0.0)
        found, known = size - self._least, self._beside
        more = known is not None and found > known
        self._beside = known + _ADOPTED * (found - known) if more else float(found)

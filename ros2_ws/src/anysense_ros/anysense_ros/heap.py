"""Memory that a peak has left: freed, but not given back.

The settings for large messages (`config/large_messages.sh`) keep freed buffers, as faulting their pages in
anew takes longer than what is done with them.  So a process stays as large as its largest moment, and free
pages in pieces between what is used add up for hours.  What is free goes back every ten seconds (some 2 ms):
a rule that tells what is usual from what is left over cannot see growth as slow as that, and in a minute
what comes and goes has been in pages that it was not in before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from perception.runtime.free_memory import give_back

_PAUSE_S = 10.0


class Heap:
    """Gives back what is free, at most every ten seconds.

    Args:
        trim: gives back what is free.
        clock: seconds, steady.

    Attributes:
        trims: how often something was given back.
    """

    def __init__(
        self,
        trim: Callable[[], object] = give_back,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._since = clock, clock()
        self._trim, self.trims = trim, 0

    def look(self) -> None:
        """Called now and then: give back what is free where ten seconds have passed."""
        if self._clock() - self._since >= _PAUSE_S:
            self.give_back()

    def give_back(self) -> None:
        """Give back what is free, now."""
        self._since = self._clock()
        self._trim()
        self.trims += 1

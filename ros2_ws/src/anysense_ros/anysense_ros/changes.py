"""Changes of state: which to say at once, and which only to count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perception.runtime.result import Result, SensorReport

BURST, PER_MINUTE = 4, 1.0
"""Lines about one subject: so many at once, and then so many a minute."""

ALL_BURST, ALL_PER_MINUTE = 16, 4.0
"""The same about all subjects together."""

Clock = Callable[[], float]


class Allowance:
    """So many at once, and then so many a minute."""

    def __init__(self, burst: int, per_minute: float, clock: Clock = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, per_minute / 60, clock
        self._left, self._at = float(burst), clock()

    @property
    def left(self) -> bool:
        """Whether there is one now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left >= 1

    def take(self) -> bool:
        """Use one up, if there is one."""
        if not self.left:
            return False
        self._left -= 1
        return True


@dataclass
class _Subject:
    """The present state of one thing, and what was not said of it."""

    allowance: Allowance
    state: str | None = None
    level: str = "info"
    line: str = ""
    unsaid: int = 0
    since: float = 0.0


class ChangeLog:
    """Says a change at once; of what goes back and forth, a line now and then that counts the rest.

    Args:
        say: called with level and line.
        clock: seconds that do not go back.
    """

    def __init__(self, say: Callable[[str, str], None], clock: Clock = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._subjects: dict[str, _Subject] = {}
        self._all = Allowance(ALL_BURST, ALL_PER_MINUTE, clock)
        self._lock = threading.Lock()

    def note(self, subject: str, state: str, level: str, line: str) -> bool:
        """Note the present state of something.

        Args:
            subject: what it is about.
            state: there is something to say when it differs from the one before.
            level, line: what to say; an empty line is not said.

        Returns:
            Whether the state has changed.
        """
        with self._lock:
            known = self._subject(subject)
            changed = state != known.state
            known.state, known.level, known.line = state, level, line
            if changed and line:
                self._speak(known, 1)
            return changed

    def repeat(self, subject: str, level: str, line: str) -> None:
        """Say a line that may come with every message."""
        with self._lock:
            known = self._subject(subject)
            known.level, known.line = level, line
            self._speak(known, 1)

    def tick(self) -> None:
        """Say what had to wait; to be called now and then."""
        with self._lock:
            for known in self._subjects.values():
                if known.unsaid:
                    self._speak(known, 0)

    def forget(self) -> None:
        """Take all states for unknown, without allowing more lines for it."""
        with self._lock:
            for known in self._subjects.values():
                known.state, known.unsaid = None, 0

    def _subject(self, name: str) -> _Subject:
        if name not in self._subjects:
            self._subjects[name] = _Subject(Allowance(BURST, PER_MINUTE, self._clock))
        return self._subjects[name]

    def _speak(self, known: _Subject, more: int) -> None:
        if not known.unsaid:
            known.since = self._clock()
        known.unsaid += more
        if not (known.allowance.left and self._all.take()):
            return
        known.allowance.take()
        line, count = known.line, known.unsaid
        if count > 1:
            line += f" ({count} times in {self._clock() - known.since:.0f} s)"
        known.unsaid = 0
        if line:
            self._say(known.level, line)


class Standing:
    """Which sensors the output lacks by a fault: a slow one is none between its messages."""

    def __init__(self) -> None:
        self._used_ns: dict[str, int] = {}

    def missing(
        self,
        result: Result,
        reports: Mapping[str, SensorReport],
        timeouts_ns: Mapping[str, int],
        now_ns: int,
    ) -> tuple[str, ...]:
        """Those that are not in a result and not well, or were in none for their timeout."""
        used = result.used
        self._used_ns.update(dict.fromkeys(used, now_ns))

        def recent(name: str) -> bool:
            last = self._used_ns.get(name)
            return last is not None and now_ns - last <= timeouts_ns[name]

        return tuple(
            n for n, r in reports.items() if n not in used and not (r.health == "ok" and recent(n))
        )

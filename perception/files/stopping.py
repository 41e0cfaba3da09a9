"""Ending in order when told to stop: signals unwind the program, so that what is half made goes.

A program that dies of SIGTERM or SIGHUP where it stands leaves what it was writing.  In `stoppable()` these
raise in the main thread instead, as Ctrl-C does; in `unstopped()`, which is for cleaning up, they wait.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_GRACE_S = 10.0
"""Signals within so many seconds of the first are the same wish; a later one says that it was not heard."""

_AGAIN_S = 0.02


class Stopped(BaseException):
    """A signal ended the program.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number) or f"signal {number}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status by which shells know what happened."""
        return 128 + self.number


class _State:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.heard: float | None = None
        self.waiting: int | None = None
        self.shields = 0


_state = _State()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and SIGINT unwind what runs inside.

    Only in the main thread, and only those that nobody has set to anything else (`nohup`, a test).

    Raises:
        Stopped: SIGTERM or SIGHUP came.
        KeyboardInterrupt: SIGINT came.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken: dict[signal.Signals, Any] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
        signal.SIGALRM: signal.SIG_DFL,  # see `_unraisable`
    }
    taken = {number: old for number, old in taken.items() if signal.getsignal(number) == old}
    if signal.SIGALRM not in taken or len(taken) == 1:
        yield
        return
    _state = _State()
    before = sys.unraisablehook
    sys.unraisablehook = lambda found: _unraisable(found, before)
    for number in taken:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in taken.items():
            signal.signal(number, old)
        sys.unraisablehook = before


@contextmanager
def unstopped() -> Iterator[None]:
    """Put off what a signal would raise until the end of the block; for what must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    state = _state
    state.shields += 1
    try:
        yield
    finally:
        state.shields -= 1
        if state.waiting is not None and not state.shields:
            number, state.waiting = state.waiting, None
            stop(number)


def waiting() -> int | None:
    """The signal that waits for the end of `unstopped`, by its number."""
    return _state.waiting


def stop(number: int) -> NoReturn:
    """Raise what a signal raises.

    Raises:
        Stopped: for SIGTERM or SIGHUP.
        KeyboardInterrupt: for SIGINT.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(number)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a worker that was forked: nothing here is its own
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if number == signal.SIGALRM:
        if _state.waiting is None or _state.shields:
            return
        number, _state.waiting = _state.waiting, None
    else:
        now = time.monotonic()
        if _state.heard is not None and now - _state.heard < _GRACE_S:
            return
        _state.heard = now
    if _state.shields:
        _state.waiting = number
    else:
        stop(number)


def _unraisable(found: Any, before: Any) -> None:
    """Raise once more what came in a place that raises nothing, such as a finalizer."""
    error = found.exc_value
    if not isinstance(error, Stopped | KeyboardInterrupt):
        before(found)
        return
    _state.waiting = error.number if isinstance(error, Stopped) else signal.SIGINT
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

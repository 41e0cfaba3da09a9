"""Calls that may never come back, whose caller waits no longer than allowed.

A graph is a program: one with a loop of 2^62 steps loads like any other, and no backend ends it by
itself.  `limited` makes a call on a thread kept for that; when its time is over it is asked to end, and
one that does not listen, such as a single operator that computes for hours, is left to itself: its
thread goes on until the process ends, and the caller is free.  `watched` makes it on the caller's own
thread, which costs 0.004 ms where another thread's cold caches may cost a tenth of an inference, and a
watchdog asks it to end: for calls that are known to listen.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

LOAD_TIMEOUT_S = 30.0
"""How long loading a graph on the CPU may take unless somebody says otherwise, and its first run."""

GRACE_S = 0.5
"""How long a call that was asked to end may take for it."""

MOST_STUCK = 4
"""With so many calls that go on for ever the process is beyond help: nothing is loaded any more."""

_local = threading.local()
_left: list[Call] = []  # those that nobody waits for any more
_idle: list[_Worker] = []  # append and pop are atomic


def _without_threads() -> None:
    global _watchdog
    _idle.clear()
    _left.clear()
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_without_threads)  # they stay with the parent


class Call:
    """A call under way.

    Attributes:
        interrupt: asks it to end; set by what is called, which may be able to.
        asked: it was asked to end.
        ended: it has come back, however.
    """

    def __init__(self, made: Callable[[], Any]) -> None:
        self.interrupt: Callable[[], object] | None = None
        self.ended = self.asked = False
        self._made: Callable[[], Any] | None = made
        self._value: Any = None
        self._error: BaseException | None = None

    def make(self) -> None:
        """Make it; what comes of it is kept for `result`."""
        assert self._made is not None
        try:
            self._value = self._made()
        except BaseException as error:
            self._error = error
        self._made = self.interrupt = None  # samples and sessions are large
        self.ended = True

    def result(self) -> Any:
        """What it gave; or it raises that."""
        if self._error is not None:
            raise self._error
        return self._value

    def ask(self) -> None:
        """Ask it to end."""
        self.asked = True
        if (interrupt := self.interrupt) is not None:
            interrupt()


class Overrun(Exception):
    """A call took longer than allowed.

    Attributes:
        call: it.
        allowed_s: how long it was allowed to take.
        stuck: it did not end when it was asked to, and goes on.
    """

    def __init__(self, call: Call, allowed_s: float) -> None:
        super().__init__("took longer than allowed")
        self.call, self.allowed_s, self.stuck = call, allowed_s, not call.ended


class _Worker:
    """A thread that makes one call after the other."""

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._call: Call | None = None
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            call, self._call = self._call, None
            if call is None:
                return
            _local.call = call
            call.make()
            _local.call = call = None
            self._done.release()

    def begin(self, call: Call) -> None:
        self._call = call
        self._go.release()

    def wait(self, timeout_s: float) -> bool:
        return self._done.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))

    def dismiss(self) -> None:
        """Have the thread end when its call comes back, if ever."""
        self._go.release()


def limited(made: Callable[[], T], timeout_s: float | None) -> T:
    """What a call gives.

    Args:
        made: the call; it may find itself with `underway` and say how it is interrupted.
        timeout_s: how long it may take; None for as long as it takes, on the caller's own thread.

    Raises:
        Overrun: it took longer.
        Exception: what it raises.
    """
    if timeout_s is None:
        return made()
    call = Call(made)
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.begin(call)
    try:
        in_time = worker.wait(timeout_s)
        if not in_time:
            call.ask()
            if not worker.wait(GRACE_S):
                worker.dismiss()
                left(call)
                raise Overrun(call, timeout_s)
    except Overrun:
        raise
    except BaseException:  # a signal's, as of Ctrl-C: the caller does not wait any longer
        call.ask()
        worker.dismiss()
        raise
    _idle.append(worker)
    if not in_time:
        raise Overrun(call, timeout_s)
    result: T = call.result()
    return result


class _Watchdog:
    """Asks calls to end whose time is over: one thread for all of them, started with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Call, tuple[float, Callable[[], None]]] = {}
        self._wakes = 0.0  # when the thread looks next, if it is not told to before
        self._least_s = 1.0
        self._thread: threading.Thread | None = None

    def begin(self, call: Call, timeout_s: float, on_stuck: Callable[[], None]) -> None:
        due = time.monotonic() + timeout_s
        with self._changed:
            self._due[call] = due, on_stuck
            if self._thread is None:
                self._least_s, self._wakes = timeout_s, due
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif due < self._wakes:
                self._least_s = min(self._least_s, timeout_s)
                self._changed.notify()

    def end(self, call: Call) -> None:
        with self._changed:
            self._due.pop(call, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                over = [(c, told) for c, (due, told) in self._due.items() if due <= now]
                for call, told in over:
                    if call.asked:
                        del self._due[call]
                    else:
                        self._due[call] = now + GRACE_S, told
                # While nothing runs it looks as often as if something did: to be woken by each call
                # would cost more.
                self._wakes = min((d for d, _ in self._due.values()), default=now + self._least_s)
                if not over:
                    self._changed.wait(min(self._wakes - now, threading.TIMEOUT_MAX))
            for call, told in over:  # with no lock held
                told() if call.asked else call.ask()


_watchdog = _Watchdog()


def watched(
    made: Callable[[], T], timeout_s: float | None, on_stuck: Callable[[], None] = lambda: None
) -> T:
    """What a call gives, made on this thread; it says by `underway` how it is interrupted.

    Args:
        made: the call.
        timeout_s: how long it may take; None for as long as it takes.
        on_stuck: called on another thread when it does not end though it was asked to.

    Raises:
        Overrun: it took longer, and has ended.
        Exception: what it raises.
    """
    if timeout_s is None:
        return made()
    call, before = Call(made), underway()
    _local.call = call
    _watchdog.begin(call, timeout_s, on_stuck)
    try:
        call.make()
    finally:
        _watchdog.end(call)
        _local.call = before
    if call.asked:
        raise Overrun(call, timeout_s)
    result: T = call.result()
    return result


def left(call: Call) -> None:
    """Count a call that nobody waits for any more, and keep what it needs."""
    _left.append(call)


def stuck_calls() -> int:
    """How many calls still go on that nobody waits for."""
    _left[:] = [call for call in _left if not call.ended]
    return len(_left)


def underway() -> Call | None:
    """The call that this thread is making for somebody who does not wait for ever; None for no such."""
    return getattr(_local, "call", None)


def load_timeout_s() -> float | None:
    """How long what this thread loads may take; None for as long as it takes."""
    found: float | None = getattr(_local, "load_timeout_s", LOAD_TIMEOUT_S)
    return found


@contextmanager
def loading_within(timeout_s: float | None) -> Iterator[None]:
    """Have `load_timeout_s` say so on this thread meanwhile."""
    before = load_timeout_s()
    _local.load_timeout_s = timeout_s
    try:
        yield
    finally:
        _local.load_timeout_s = before

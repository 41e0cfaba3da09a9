"""A thread that does one piece of work after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """Like an executor of one thread, but what hangs in it does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[..., T], *arguments: Any, **named: Any) -> Future[T]:
        """Have `call` called when what came before is done."""
        future: Future[T] = Future()
        self._work.put((future, lambda: call(*arguments, **named)))
        return future

    def close(self) -> None:
        """End when the work is done; returns at once."""
        self._work.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end, no longer than that."""
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del work, future, call  # samples and features are large

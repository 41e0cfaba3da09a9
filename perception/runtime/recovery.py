"""What a stream does when its engines fail: load them anew, and when that is no use, rest and try again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from perception.errors import DeadlineExceededError
from perception.runtime.engines.base import first_line
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import EngineEvent

_MOST_FAILURES = 3
"""Failures in a row after which the engines rest before they are loaded again."""

_REST_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Recovery:
    """Counts failures of a pipeline's engines, and loads them where they are most likely to run.

    Args:
        threads: CPU threads within an operator, None for all.
        counters: `engine_failures` and `engine_reloads` are counted there.
        tell: called with every event.

    Attributes:
        error: why the engines rest, and for how long; empty while they run.
    """

    def __init__(
        self, threads: int | None, counters: Counter[str], tell: Callable[[EngineEvent], None]
    ) -> None:
        self.error = ""
        self._threads, self._counters, self._tell = threads, counters, tell
        self._failures = 0
        self._rests = 0
        self._until = 0.0  # while they rest, on the monotonic clock

    def worked(self) -> None:
        """Note that a result was computed."""
        self._failures = self._rests = 0

    def failed(self, pipeline: Pipeline, error: Exception) -> None:
        """Note a failure: load the graphs anew; after several in a row rest, longer from time to time."""
        self._counters["engine_failures"] += 1
        self._failures += 1
        self._tell(EngineEvent("failed", str(error), pipeline.backend))
        if isinstance(error, DeadlineExceededError) and not error.stuck and not self._out_of_hand:
            return  # it was ended, and the engine is as good as before
        if self._out_of_hand:
            self._rest(pipeline, error)
        else:
            self._reload(pipeline)

    @property
    def _out_of_hand(self) -> bool:
        return self._failures > _MOST_FAILURES

    def resting(self, pipeline: Pipeline) -> bool:
        """Whether the engines are down; loads them when their rest is over."""
        if self.error and time.monotonic() >= self._until:
            self._reload(pipeline)
        return bool(self.error)

    def _reload(self, pipeline: Pipeline) -> None:
        try:
            pipeline.use_device("cpu", self._threads)
        except Exception as error:  # whatever it is, it must not keep the stream from trying again
            self._tell(EngineEvent("failed", str(error), pipeline.backend))
            self._rest(pipeline, error)
            return
        self.error = ""
        self._counters["engine_reloads"] += 1
        text = f"engines loaded anew on {pipeline.backend}"
        self._tell(EngineEvent("reloaded", text, pipeline.backend))

    def _rest(self, pipeline: Pipeline, error: Exception) -> None:
        pause = _REST_S[min(self._rests, len(_REST_S) - 1)]
        self._rests += 1
        self._failures = _MOST_FAILURES  # one more failure after the attempt means rest again
        self._until = time.monotonic() + pause
        self.error = f"{first_line(error)}; next attempt in {pause:.0f} s"
        self._tell(EngineEvent("resting", self.error, pipeline.backend))

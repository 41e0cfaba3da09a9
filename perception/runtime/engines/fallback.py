"""An engine that goes on with the next backend when its own fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from perception.errors import BundleError, EngineError
from perception.runtime.engines.backend import Graph
from perception.runtime.engines.base import (
    Engine,
    Feed,
    NonFiniteError,
    SpecialForms,
    T,
    Tensor,
    not_finite,
    on_host,
)
from perception.runtime.engines.registry import BACKENDS
from perception.runtime.result import EngineEvent

_LOG = logging.getLogger("anysense.engines")


class FallbackEngine(Engine):
    """A loaded graph with other backends in reserve.

    When the engine fails while running, or gives NaN or infinity, the next backend that can load the
    graph takes over for good, the same inputs are run again, and one line of warning says so.
    `backend` is always the one that runs.  Inputs that do not fit are refused before that and change
    nothing; nor does it when inputs were not finite themselves.

    Args:
        engine: what runs now.
        reserve: names of the backends to go on with, in order.
        graph: the ONNX graph.
        threads: CPU threads within an operator, None for all.
        device: number of the GPU.
    """

    def __init__(
        self,
        engine: Engine,
        reserve: Sequence[str],
        graph: Graph,
        threads: int | None = None,
        device: int = 0,
    ) -> None:
        self._timeout_s: float | None = None
        self._take(engine)
        self._reserve = list(reserve)
        self._graph, self._threads, self._device = graph, threads, device
        self._lock = threading.Lock()
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def context(self) -> Engine:
        inner = self._engine.context()
        return FallbackEngine(inner, self._reserve, self._graph, self._threads, self._device)

    @property
    def links(self) -> bool:
        return self._engine.links

    def companion(self, content: bytes, name: str) -> Engine | None:
        return self._engine.companion(content, name)

    def specialize(self, forms: SpecialForms) -> None:
        self._engine.specialize(forms)

    @property
    def backend(self) -> str:  # type: ignore[override]
        """Name of the backend that runs now."""
        return self._engine.backend

    takes_device = True
    checks_outputs = False

    @property
    def doubts(self) -> str:  # type: ignore[override]
        """What the backend that runs now is known to compute wrongly."""
        return self._engine.doubts

    @property
    def timeout_s(self) -> float | None:  # type: ignore[override]
        """How long a run of the backend that runs now may take, and of each after it."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, timeout_s: float | None) -> None:
        self._timeout_s = self._engine.timeout_s = timeout_s

    @property
    def stuck(self) -> bool:
        return self._engine.stuck

    def _in_time(self, made: Callable[[], T]) -> T:
        return made()  # the engine within sees to that

    def _take(self, engine: Engine) -> None:
        engine.tell = lambda event: self.tell(event)
        engine.timeout_s = self._timeout_s
        self._engine = engine

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.infer_some(feeds, ())

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        while True:
            engine = self._engine
            try:
                return engine.run(feeds, ignored)
            except NonFiniteError as error:
                used = on_host({n: v for n, v in feeds.items() if n not in ignored})
                blame = not_finite(used)
                if blame:  # another backend would make no more of it
                    raise NonFiniteError(error.message, where=error.where, feeds=blame) from error
                self._replace(engine, error)
            except EngineError as error:
                self._replace(engine, error)

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str]
    ) -> Mapping[str, Feed]:
        while True:
            engine = self._engine
            try:
                return engine.run_linked(feeds, ignored)
            except EngineError as error:
                self._replace(engine, error)

    def give_up(self, cause: EngineError) -> None:
        with suppress(EngineError):  # none in reserve: it has to do
            self._replace(self._engine, cause)

    def _replace(self, failed: Engine, cause: EngineError) -> None:
        with self._lock:
            if self._engine is not failed:
                return  # another thread met the same failure and was faster
            while self._reserve:
                name = self._reserve.pop(0)
                try:
                    self._take(BACKENDS[name].load(self._graph, self._threads, self._device))
                except (EngineError, BundleError) as error:  # its file may be gone, or changed
                    _LOG.warning("%s: %s", self._graph.name, error)
                    continue
                line = f"{self._graph.name}: {cause}; going on with {self._engine.backend}"
                _LOG.warning("%s", line)
                self.tell(EngineEvent("fallback", line, self._engine.backend))
                return
            raise cause

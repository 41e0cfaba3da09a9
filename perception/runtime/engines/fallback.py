"""An engine that goes on with the next backend when its own fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from perception.errors import EngineError
from perception.runtime.engines.base import Engine, Feed, Tensor
from perception.runtime.engines.registry import BACKENDS

_LOG = logging.getLogger("anysense.engines")


class FallbackEngine(Engine):
    """A loaded graph with other backends in reserve.

    When the engine fails while running, the next backend that can load the graph takes over for
    good, the same inputs are run again, and one line of warning says so.  `backend` is always the
    one that runs.  Inputs that do not fit are refused before that and change nothing.

    Args:
        engine: what runs now.
        reserve: names of the backends to go on with, in order.
        path: the ONNX file.
        threads: CPU threads within an operator, None for all.
    """

    def __init__(
        self, engine: Engine, reserve: Sequence[str], path: Path, threads: int | None = None
    ) -> None:
        self._engine = engine
        self._reserve = list(reserve)
        self._path, self._threads = path, threads
        self._lock = threading.Lock()
        self.inputs, self.outputs = engine.inputs, engine.outputs

    @property
    def backend(self) -> str:  # type: ignore[override]
        """Name of the backend that runs now."""
        return self._engine.backend

    takes_device = True

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.infer_some(feeds, ())

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        while True:
            engine = self._engine
            try:
                return engine.run(feeds, ignored)
            except EngineError as error:
                self._replace(engine, error)

    def infer_linked(self, feeds: Mapping[str, Tensor]) -> Mapping[str, Feed]:
        while True:
            engine = self._engine
            try:
                return engine.run_linked(feeds)
            except EngineError as error:
                self._replace(engine, error)

    def _replace(self, failed: Engine, cause: EngineError) -> None:
        with self._lock:
            if self._engine is not failed:
                return  # another thread met the same failure and was faster
            while self._reserve:
                name = self._reserve.pop(0)
                try:
                    self._engine = BACKENDS[name].load(self._path, self._threads)
                except EngineError as error:
                    _LOG.warning("%s: %s", self._path.name, error)
                    continue
                _LOG.warning(
                    "%s: %s; going on with %s", self._path.name, cause, self._engine.backend
                )
                return
            raise cause

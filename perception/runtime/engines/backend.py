"""What is known of a backend before a graph is given to it: one record for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from perception.errors import EngineError
from perception.plugins import check_fields
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.base import Engine, TensorSpec

Graph = Path | GraphSource
"""An ONNX graph: of a bundle, or a file that stands alone."""

Loader = Callable[[Graph, int | None, int], Engine]
"""Loads a graph, given CPU threads within an operator (None for all) and the number of the GPU."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Backend:
    """A backend, ours or another distribution's (entry point group `anysense.backends`).

    Attributes:
        load: see `Loader`.  It raises `BackendMissingError` where this machine lacks what it needs,
            `EngineError` where the graph cannot be loaded.
        module: what must be importable.
        install: the command that brings it.
        kind: what it runs on.  Only a backend for GPUs is given a number, as in `onnxruntime-cuda:1`.
        rank: its place in `auto`: GPU backends are tried from the least rank on, those for the CPU
            are measured against one another; None for one that is only taken by name.
        exact: it computes in float32.  `auto` takes one that does not only where that is known to do:
            for the CPU by the bundle's records, on a GPU by comparing it with the reference.
        aliases: other names that `--device` takes for it.
        check: raises what is wrong with the files for a graph, before anything is loaded.
        build: makes what it runs out of a graph and keeps that in the bundle, for `anysense export
            --engine`; `module:attribute` of a function that takes what `export.engine_builder.build_plans`
            does.  None for a backend that runs the ONNX graphs themselves.
    """

    load: Loader
    module: str
    install: str
    kind: Literal["cpu", "gpu"] = "cpu"
    rank: int | None = None
    exact: bool = True
    aliases: tuple[str, ...] = ()
    check: Callable[[Graph], object] = lambda graph: None
    build: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the package is there; its device may still be missing."""
        try:
            return find_spec(self.module) is not None
        except (ImportError, ValueError):  # its parent is missing, or it is half loaded
            return False

    def builder(self) -> Callable[..., Any]:
        """The function that `build` names.

        Raises:
            EngineError: nothing is built for this backend.
        """
        if self.build is None:
            raise EngineError("nothing is built for this backend", where=self.module)
        module, _, attribute = self.build.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), attribute)
        return function


def check_backend(name: str, thing: Any) -> None:
    """Refuse what cannot be one.

    Raises:
        TypeError, ValueError: says what is wrong.
    """
    if not isinstance(thing, Backend):
        raise TypeError(f"is {type(thing).__name__}, not a Backend")
    check_fields(thing)
    if not _NAME.fullmatch(name):
        raise ValueError("a backend's name is small letters, digits, '-' and '_'")
    if thing.kind not in ("cpu", "gpu"):
        raise ValueError(f"kind is {thing.kind!r}, not cpu or gpu")


def check_engine(engine: Any) -> None:
    """Refuse what is no engine, or does not say what it takes and gives.

    Raises:
        TypeError: says what is wrong.
    """
    if not isinstance(engine, Engine):
        raise TypeError(f"load gave {type(engine).__name__}, not an Engine")
    if not isinstance(getattr(engine, "backend", None), str):
        raise TypeError(f"{type(engine).__name__} has no backend, its name")
    for name in ("inputs", "outputs"):
        specs = getattr(engine, name, None)
        if not isinstance(specs, tuple) or not all(isinstance(s, TensorSpec) for s in specs):
            raise TypeError(f"{type(engine).__name__} has no {name}, a tuple of TensorSpec")

"""Loading all graphs of a bundle on one backend: the one asked for, or the best that can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from perception.errors import EngineError
from perception.runtime.bundle import Bundle, GraphSource
from perception.runtime.engines import measured
from perception.runtime.engines.backend import Graph
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    UntrustedPlanError,
    doubts_line,
)
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.fallback import FallbackEngine
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all, time_all
from perception.runtime.engines.registry import (
    BACKENDS,
    REFERENCE,
    candidates,
    device_of,
    ranked,
)
from perception.runtime.records import BackendRecord

_LOG = logging.getLogger("anysense.engines")

EXACT_LIMIT = 1e-3
"""Largest relative error of a backend that computes in float32."""

PLAN_LIMIT = 0.1
"""Largest relative error of a TensorRT plan, which was built on purpose: float16 is far below."""

_SLACK = 1.5
"""By how much the error on this machine may exceed the recorded one: other CPUs round otherwise."""

_ROUNDS = 5

Engines = dict[str, Engine]
Progress = Callable[[str], None]


def load_engines(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    *,
    trust_plans: bool = False,
    tf32: bool = True,
) -> Engines:
    """Load all graphs of a bundle.

    Args:
        bundle: an opened bundle.
        device: name of a backend, which is then the only one; or a family (`auto`, `cuda`, `cpu`), in
            which a backend that cannot be used is passed over with a line of warning and those after
            it are kept in reserve.  `cuda:1` and a GPU backend's name with a number mean that GPU.
            `auto` passes over silently what this machine does not have, and
            on the CPU takes the fastest backend that passes the bundle's parity (see `ranking`).
        threads: CPU threads within an operator, None for all.
        progress: called with a line before each graph.
        trust_plans: run TensorRT plans in the bundle that this machine did not build.
        tf32: CUDA may compute products in TensorFloat-32, which is faster and rounds more.

    Returns:
        Engines by encoder, and the fuser as `fuser`.

    Raises:
        ConfigError: unknown device.
        EngineError: no backend could load the graphs; the message is that of the last one.
        BundleError: a file is missing, changed or a link.
    """
    graphs = sources(bundle, trust_plans=trust_plans, tf32=tf32)
    wanted = device_of(device)
    if wanted.name != "auto":
        return load_graphs(graphs, candidates(wanted.name), threads, progress, wanted.index)
    for candidate in candidates("auto"):
        try:
            engines = _load_on(candidate, graphs, threads, progress)
        except BackendMissingError:
            continue
        except UntrustedPlanError as error:
            if examine_driver().gpus:  # elsewhere nothing is lost by leaving plans aside
                _LOG.warning("%s; trying the next backend", error)
            continue
        except EngineError as error:
            _LOG.warning("%s; trying the next backend", error)
            continue
        if not BACKENDS[candidate].exact and not _agrees(bundle, engines, graphs, threads):
            _LOG.warning("%s computes something else; trying the next backend", candidate)
            continue
        return _with_reserve(engines, (REFERENCE,), graphs, threads)
    if progress is not None:
        progress("choosing the fastest backend")
    return load_graphs(graphs, ranking(bundle, graphs, threads), threads, progress)


def sources(
    bundle: Bundle, *, trust_plans: bool = False, tf32: bool = True
) -> dict[str, GraphSource]:
    """The encoders by name, and the fuser as `fuser`, to be loaded; see `load_engines`."""
    named = bundle.manifest.graphs
    files = {**{name: g.file for name, g in named.encoders.items()}, "fuser": named.fuser.file}
    return {
        graph: bundle.source(file, trust_plans=trust_plans, tf32=tf32)
        for graph, file in files.items()
    }


def load_graphs(
    graphs: Mapping[str, Graph],
    names: Sequence[str],
    threads: int | None = None,
    progress: Progress | None = None,
    index: int = 0,
) -> Engines:
    """Load graphs on the first backend of `names` that can load all of them.

    Args:
        graphs: by encoder, and `fuser`.
        names: the backends.
        threads, progress: as for `load_engines`.
        index: number of the GPU.

    Raises:
        EngineError: none could; the message is that of the last one.
    """
    for place, name in enumerate(names):
        try:
            engines = _load_on(name, graphs, threads, progress, index)
        except EngineError as error:
            if place + 1 == len(names):
                raise
            if not (isinstance(error, BackendMissingError) and BACKENDS[name].build):
                _LOG.warning("%s; trying the next backend", error)
        else:
            if line := doubts_of(engines, graphs):
                _LOG.warning("%s", line)
            return _with_reserve(engines, names[place + 1 :], graphs, threads, index)
    raise EngineError("no backend to load it on")


def doubts_of(engines: Mapping[str, Engine], graphs: Mapping[str, Graph]) -> str:
    """A line about what loaded engines are known to compute wrongly, with what to do; empty for nothing."""
    return doubts_line({str(graphs[name]): engine.doubts for name, engine in engines.items()})


def _load_on(
    name: str,
    graphs: Mapping[str, Graph],
    threads: int | None,
    progress: Progress | None = None,
    index: int = 0,
) -> Engines:
    backend = BACKENDS[name]
    for graph in graphs.values():
        # All first: a damaged file is told even where the others could not be loaded anyway.
        backend.check(graph)
    engines: Engines = {}
    for number, (name_of, graph) in enumerate(graphs.items(), 1):
        if progress is not None:
            progress(f"{name}: loading graph {number} of {len(graphs)}: {name_of}")
        engines[name_of] = backend.load(graph, threads, index)
    return engines


def _agrees(
    bundle: Bundle, engines: Engines, graphs: Mapping[str, Graph], threads: int | None
) -> bool:
    """Whether plans, which say nothing about their accuracy, do what the graphs do."""
    inputs, wiring = probe_inputs(bundle.manifest.inputs), bundle.manifest.wiring
    wanted = run_all(_load_on(REFERENCE, graphs, threads), inputs, wiring)
    try:
        found = run_all(engines, inputs, wiring)
    except EngineError:
        return False
    if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in wanted.items()}:
        return False
    return relative_error(found, wanted) <= PLAN_LIMIT


def _with_reserve(
    engines: Engines,
    reserve: Sequence[str],
    graphs: Mapping[str, Graph],
    threads: int | None,
    index: int = 0,
) -> Engines:
    if not reserve:
        return engines
    return {g: FallbackEngine(e, reserve, graphs[g], threads, index) for g, e in engines.items()}


def ranking(bundle: Bundle, graphs: Mapping[str, Graph], threads: int | None) -> list[str]:
    """CPU backends that pass the bundle's parity, the fastest here first.

    A backend that computes in float32 passes when its outputs on a made-up frame equal those of
    ONNX Runtime.  One that computes in less passes when the bundle records that its accuracy was
    measured and is within the tolerance, and its error on the made-up frame is not much more than it
    was then.  All that pass are timed in turn.  The outcome is remembered per bundle, machine and
    versions, see `measured`.
    """
    names = [n for n in ranked("cpu") if BACKENDS[n].installed]
    if names == [REFERENCE]:
        return names
    modules = {n: BACKENDS[n].module for n in names}
    key = measured.key(bundle.manifest.files, modules, threads, _records(bundle))
    known = {n: ms for n, ms in (measured.recall(key) or {}).items() if n in names}
    if not known:
        known = _measure(bundle, graphs, names, threads)
        measured.remember(key, known)
    return sorted(known, key=lambda n: known[n])


def _records(bundle: Bundle) -> str:
    records = sorted(bundle.records.backends.items())
    return ";".join(f"{name}={r.passed} {r.probe_error}" for name, r in records)


def _measure(
    bundle: Bundle, graphs: Mapping[str, Graph], names: Sequence[str], threads: int | None
) -> dict[str, float]:
    inputs, wiring = probe_inputs(bundle.manifest.inputs), bundle.manifest.wiring
    loaded = {REFERENCE: _load_on(REFERENCE, graphs, threads)}
    wanted = run_all(loaded[REFERENCE], inputs, wiring)
    for name in names:
        if name == REFERENCE:
            continue
        try:
            engines = _load_on(name, graphs, threads)
            if any(e["fuser"].backend == engines["fuser"].backend for e in loaded.values()):
                continue  # the CPU's native precision is float32: the same thing twice
            if line := doubts_of(engines, graphs):
                _LOG.warning("%s; leaving %s out", line, name)
                continue
            record = bundle.records.backends.get(engines["fuser"].backend)
            limit = _limit(name, record, bundle.manifest.precision)
            if limit is None:
                continue
            if relative_error(run_all(engines, inputs, wiring), wanted) <= limit:
                loaded[name] = engines
        except BackendMissingError:
            continue
        except EngineError as error:
            _LOG.warning("%s; leaving %s out", error, name)
    if len(loaded) == 1:
        return {REFERENCE: 0.0}
    times: dict[str, list[float]] = {name: [] for name in loaded}
    for _ in range(_ROUNDS):
        for name, engines in loaded.items():
            times[name].append(time_all(engines, inputs, wiring))
    return {name: float(np.median(values)) for name, values in times.items()}


def _limit(name: str, record: BackendRecord | None, precision: str) -> float | None:
    """Largest error allowed, or None when the backend must not be chosen.

    Quantized graphs round at every layer, each backend in its own places: for these, float32 is no
    promise of equal numbers, and a record is asked for.
    """
    if BACKENDS[name].exact and precision == "fp32":
        return EXACT_LIMIT
    if record is None or not record.passed:
        return None
    return max(EXACT_LIMIT, _SLACK * record.probe_error)

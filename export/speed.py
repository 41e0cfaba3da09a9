"""Whether a bundle in another precision is faster than the one that it was made from, on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from perception.errors import EngineError
from perception.runtime.bundle import Bundle, record
from perception.runtime.engines.measured import cpu_name
from perception.runtime.engines.probe import probe_inputs, time_all
from perception.runtime.engines.selection import load_engines

_NOISE = 0.03  # by which two runs of the same graphs may differ
_WARM, _LEAST_ROUNDS, _MOST_ROUNDS, _SECONDS = 2, 7, 60, 1.5


def compare_speed(
    bundle: Bundle,
    source: Bundle,
    backends: Sequence[str],
    threads: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    failed: Callable[[str, EngineError], None] | None = None,
) -> dict[str, float]:
    """By backend, how many times as fast as its source a bundle is; below 1 it is slower.

    All graphs for all sensors on a made-up frame, both bundles in turn; the ratio of the medians.

    Args:
        bundle: what is judged.
        source: the float32 bundle that it was made from.
        backends: names of backends for CPUs.
        threads: CPU threads, None for all.
        progress: called with what is being done, how far it is, and how far it will be.
        failed: called with a backend that cannot run one of them, which is then left out; None lets the
            error pass.

    Raises:
        EngineError: see `failed`.
    """
    found = {}
    for index, name in enumerate(backends):
        progress("comparing speed", index, len(backends))
        try:
            found[name] = _ratio(bundle, source, name, threads)
        except EngineError as error:
            if failed is None:
                raise
            failed(name, error)
    return found


def _ratio(bundle: Bundle, source: Bundle, backend: str, threads: int | None) -> float:
    inputs, wiring = probe_inputs(bundle.manifest.inputs), bundle.manifest.wiring
    pair = [load_engines(each, backend, threads) for each in (bundle, source)]
    times: list[list[float]] = [[], []]
    stop = time.monotonic() + _SECONDS
    for number in range(_WARM + _MOST_ROUNDS):
        if number >= _WARM + _LEAST_ROUNDS and time.monotonic() > stop:
            break
        for engines, kept in zip(pair, times, strict=True):
            kept.append(time_all(engines, inputs, wiring))
    own, before = (float(np.median(kept[_WARM:])) for kept in times)
    return before / own


def slower(precision: str, found: dict[str, float]) -> dict[str, str]:
    """By backend on which a bundle of this precision is slower than its source, a line that says so."""
    return {
        name: f"{precision} is slower than float32 on {name} here: {factor:.2g} times as fast; "
        "the float32 bundle is the better one for it"
        for name, factor in found.items()
        if factor < 1 - _NOISE
    }


def record_speed(folder: Path, found: dict[str, float], threads: int | None) -> None:
    """Write the factors into the records of a bundle folder, by machine.

    Raises:
        BundleError: no bundle, or it cannot be written.
    """
    machine = f"{cpu_name()}, {threads or os.cpu_count()} threads"
    record(folder, speed={machine: {name: float(f"{x:.3g}") for name, x in found.items()}})

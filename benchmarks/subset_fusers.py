"""Prints what fusers of one subset each save, against the general fuser for all, as ratios.

    python benchmarks/subset_fusers.py [BUNDLE...] [--frames N] [--threads N]

Two pipelines of each bundle take turns on ONNX Runtime's CPU provider, subset by subset; labels and all
numbers that both give are compared.  The first frames, while a subset has no fuser of its own yet, are told
by themselves: the longest of them shows whether a frame waits for one that is being made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from perception.errors import AnySenseError
from perception.frame import Frame, subset_name
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.pipeline import Pipeline
from perception.runtime.subset_fusers import USED_OFTEN, VARIABLE

_FIRST = 4 * USED_OFTEN


def main() -> int:
    """Run the benchmark; the exit status is 0 whatever the ratios are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", default=["indoor-rgbd"])
    parser.add_argument("--frames", type=int, default=40, help="of each subset")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime; all cores unless told")
    args = parser.parse_args()
    try:
        for bundle in args.bundles:
            _compare(bundle, args.frames, args.threads)
    except AnySenseError as error:
        print(f"subset_fusers: error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(bundle: str, frames: int, threads: int | None) -> None:
    pipelines = {}
    for way in ("0", "1"):
        os.environ[VARIABLE] = way
        pipelines[way] = Pipeline.load(bundle, "onnxruntime-cpu", threads=threads)
    sensors = pipelines["0"].sensors
    subsets = [sensors, *((s,) for s in sensors)]
    rows: dict[tuple[str, ...], list[list[float]]] = {subset: [] for subset in subsets}
    for index in range(_FIRST + frames):
        frame = synthetic_frame(pipelines["0"], index)
        for subset in subsets:
            ways = ("0", "1") if index % 2 else ("1", "0")
            found = {way: _timed(pipelines[way], frame, subset) for way in ways}
            (general, total, fuse), (own, own_total, own_fuse) = found["0"], found["1"]
            rows[subset].append([total, own_total, fuse, own_fuse, _difference(general, own)])
    for subset in subsets:
        first, rest = np.array(rows[subset][:_FIRST]), np.array(rows[subset][_FIRST:])
        total, own_total, fuse, own_fuse, _ = np.median(rest, axis=0)
        print(
            f"{bundle} {subset_name(subset)}: total {total:.1f} -> {own_total:.1f} ms, fuser "
            f"{fuse:.2f} -> {own_fuse:.2f} ms (least {rest[:, 2].min():.2f} -> "
            f"{rest[:, 3].min():.2f}), ratio of totals {np.median(rest[:, 1] / rest[:, 0]):.3f}; "
            f"longest of the first {_FIRST}: {first[:, 0].max():.1f}, {first[:, 1].max():.1f} ms; "
            f"largest difference {max(row[4] for row in rows[subset]):g}"
        )
    totals = {subset: np.median(np.array(rows[subset][_FIRST:]), axis=0) for subset in subsets}
    for number, way in enumerate(("general", "own")):
        saved = [1 - totals[s][number] / totals[subsets[0]][number] for s in subsets[1:]]
        print(
            f"{bundle} {way} fusers: one sensor alone saves {', '.join(f'{s:.1%}' for s in saved)}"
        )


def _timed(
    pipeline: Pipeline, frame: Frame, subset: tuple[str, ...]
) -> tuple[Mapping[str, Any], float, float]:
    pipeline.reset()
    result = pipeline(Frame({s: frame[s] for s in subset}, frame.stamp_ns))
    return result.values, result.timings["total"], result.timings["fuse"]


def _difference(one: Any, other: Any) -> float:
    """Of arrays, mappings and dataclasses the largest difference of two numbers in the same place."""
    if isinstance(one, np.ndarray):
        if one.shape != other.shape:
            return float("inf")
        return float(np.abs(one.astype(np.float64) - other).max(initial=0))
    if isinstance(one, Mapping):
        return max((_difference(value, other[key]) for key, value in one.items()), default=0.0)
    if is_dataclass(one):
        return max(_difference(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return 0.0 if one == other else float("inf")


if __name__ == "__main__":
    sys.exit(main())

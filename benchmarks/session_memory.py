"""Prints what bundles' graphs take in memory on the CPU: with all sensors, then a fuser for each subset.

    python benchmarks/session_memory.py BUNDLE... [--apart] [--json FILE]

Each bundle has a process of its own.  Private memory in MB, after what is free was given back: once with a
frame of all sensors, then with as many fusers of subsets as are kept, and the least and most while others
take their places.  `--apart` gives every session a pool of memory of its own, as ONNX Runtime does by itself.
Beside it milliseconds of CPU a frame, one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

from perception.frame import Frame, subsets_of
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.engines import onnxruntime
from perception.runtime.free_memory import give_back
from perception.runtime.pipeline import Pipeline
from perception.runtime.subset_fusers import MOST, USED_LAST, USED_OFTEN, SubsetFusers

_TURNS, _TIMED = 6, 30


def private_mb() -> float:
    """Memory of this process that no other shares, without what is free."""
    give_back()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def measure(bundle: str, apart: bool) -> dict[str, float | str]:
    """Of one bundle in this process."""
    if apart:
        onnxruntime._shares_memory = lambda: False  # type: ignore[assignment]
    pipeline = Pipeline.load(bundle, "onnxruntime-cpu", threads=1)
    fusers, whole = pipeline.engines["fuser"]._forms, synthetic_frame(pipeline, 0)  # type: ignore[attr-defined]
    assert isinstance(fusers, SubsetFusers)

    def use(subset: tuple[str, ...], times: int) -> float:
        frame = Frame({s: whole[s] for s in subset}, whole.stamp_ns)
        begun = time.process_time()
        for _ in range(times):
            pipeline.reset()
            pipeline(frame)
        spent = time.process_time() - begun
        fusers.settle()
        return 1000 * spent / times

    sensors = tuple(pipeline.sensors)
    use(sensors, 1)
    first = private_mb()
    subsets = list(subsets_of(sensors))
    for subset in subsets[:MOST]:
        use(subset, USED_OFTEN + 1)
    sizes = [private_mb()]
    for turn in range(_TURNS):
        use(subsets[(MOST + turn) % len(subsets)], USED_LAST + 2)
        sizes.append(private_mb())
    return {
        "bundle": bundle,
        "all sensors": first,
        "fusers": len(fusers.made),
        "with them": sizes[0],
        "least": min(sizes),
        "most": max(sizes),
        "cpu_ms": use(sensors, _TIMED),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--apart", action="store_true", help="a pool for each session")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = []
    for bundle in args.bundles:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, (bundle, args.apart)))
        row = found[-1].items()
        print(" ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in row))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Prints what one worker of a fleet holds in memory over many small chunks.

    python benchmarks/fleet_memory.py [--bundle NAME | --small] [--sensors NAME ...] [--chunks N]
        [--chunk-s S] [--warm-up N] [--growth PERCENT] [--json FILE]

The drive that comes with AnySense is written as one bag, which a job has under several names, so that
one worker opens recordings again and again, plays parts of them, and writes rows and label files.  Resident
memory is read after each chunk.  --small takes pictures of 48x64 and networks of some kilobytes instead: what
surrounds the networks is the same, and it takes a fifth of the time.  Ends with status 1 where memory grows
by more than --growth percent after the warm-up, by a straight line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fleet import DRIVE, Again
from soak import growth, resident

from perception.bags.files import messages_of, write_bag
from perception.data.folder import FolderRecording
from perception.fleet.job import Job
from perception.fleet.places import Place
from perception.fleet.plan import Source
from perception.fleet.work import Look, Worker
from perception.frame import Frame

FRAMES = 100


class Some(Again):
    """The drive with some of its sensors."""

    def __init__(self, sensors: tuple[str, ...]) -> None:
        super().__init__(FolderRecording(DRIVE), FRAMES)
        self._sensors = sensors

    def frame(self, index: int) -> Frame:
        given = super().frame(index)
        own = {n: s for n, s in given.items() if not self._sensors or n in self._sensors}
        return Frame(own, given.stamp_ns)


def small(folder: Path) -> tuple[str, Path]:
    """A bundle of color and depth, and a bag of them, as the tests make them (needs onnx)."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from fleet_kit import BOXES, CLASSES, write_fleet_bag
    from small_bundles import SmallBundles

    made = folder / "bundle"
    made.mkdir()
    bundle = SmallBundles(made)(("rgb", "depth"), len(CLASSES), len(BOXES))
    return str(bundle), write_fleet_bag(folder, "small", FRAMES, 1)


def chunks_done(job: Job, bag: Path, count: int) -> Iterator[int]:
    """Have one worker do so many chunks, of recordings that are the same bag; frames of each."""
    worker = Worker(job)
    try:
        done = recording = 0
        while done < count:
            looked = worker.do(Look(Source(f"r{recording}", "bag", Place(str(bag)))))
            assert not looked.error, looked.error
            for chunk in looked.chunks[: count - done]:
                outcome = worker.do(chunk)
                assert not outcome.error, outcome.error
                done += 1
                yield outcome.record["frames"]
            recording += 1
    finally:
        worker.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="sim-rgbdtl")
    parser.add_argument("--small", action="store_true", help="small pictures and networks")
    parser.add_argument("--sensors", nargs="*", default=(), help="all of the drive's by default")
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--chunk-s", type=float, default=0.1)
    parser.add_argument("--warm-up", type=int, default=100, help="chunks")
    parser.add_argument("--growth", type=float, default=1.0, help="most growth, percent")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    memory: list[tuple[int, int]] = []
    frames, began, computed = 0, time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as name:
        bundle, bag = args.bundle, Path(name) / "bag"
        if args.small:
            bundle, bag = small(Path(name))
        else:
            write_bag(bag, messages_of(Some(tuple(args.sensors))))
        job = Job.model_validate(
            {
                "schema": 1,
                "bundle": bundle,
                "recordings": [str(bag)],
                "out": f"{name}/out",
                "identity": "stat",
                "chunk_s": args.chunk_s,
            }
        )
        for number, own in enumerate(chunks_done(job, bag, args.chunks), 1):
            frames += own
            memory.append((number, resident()))
            if number % 50 == 0:
                print(f"{number} chunks: {memory[-1][1] / 2**20:.1f} MiB", flush=True)
    grown, _ = growth(memory, args.warm_up)
    after = [level for number, level in memory if number >= args.warm_up]
    told = {
        "chunks": len(memory),
        "frames": frames,
        "mib_first": round(memory[0][1] / 2**20, 1),
        "mib_after_warm_up": round(after[0] / 2**20, 1),
        "mib_least_and_most": [round(f(after) / 2**20, 1) for f in (min, max)],
        "mib_last": round(memory[-1][1] / 2**20, 1),
        "growth_percent": round(100 * grown, 2),
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - computed, 1),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(told, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps({**told, "memory": memory}))
    return int(100 * grown > args.growth)


if __name__ == "__main__":
    raise SystemExit(main())

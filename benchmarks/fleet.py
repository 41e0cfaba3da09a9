"""Prints what fleets cost: labelling against the bare pipeline, Ray against one process, and two workers.

    python benchmarks/fleet.py [--bundle NAME] [--minutes N] [--chunk-s S] [--rounds N] [--alone]
        [--here] [--confined] [--json FILE]

The drive that comes with AnySense is written again and again, with stamps that go on, as one MCAP file, and
labelled in chunks: in this process, by one worker on Ray, and by two, in turn, all with one thread for the
engines.  Other work on the machine slows all of them alike; seconds of CPU, which do not count it, are told
beside those of the clock.  Labelling in this process uses three threads: one reads and decodes, one has the
stream and the pipeline, one makes rows and files.  Where cores are free it is as fast as the second, whose
seconds of CPU (`middle`) tell how near labelling then comes to the pipeline.  The first chunk of a worker
imports packages and loads engines: what Ray costs after that is told by the other chunks.  `all_cpu_s` are
of this process and all that it has started, Ray's own too, from the first look at the bag to the last chunk.

A worker has three threads, and one alone uses more than a core where another is free.  `--confined` measures
each run once more with all threads of a worker on one core, of two workers on one each: what two do more than
one on two cores' worth of single-threaded work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perception.bags.files import messages_of, write_bag
from perception.data.base import Recording, Truth
from perception.data.folder import FolderRecording
from perception.fleet.job import Job
from perception.fleet.ray_workers import LOCAL, RayWorkers
from perception.fleet.run import Executor, Here, Report, run_job
from perception.frame import Frame
from perception.runtime.pipeline import Pipeline

DRIVE = Path(__file__).parents[1] / "recordings/simulated_drive"
PERIOD_NS = 100_000_000
BARE_FRAMES = 100


@dataclass(frozen=True)
class Run:
    """How a drive is labelled.

    Attributes:
        workers: on Ray; 0: in this process.
        confined: each worker has a core to itself, and no other.
    """

    workers: int
    confined: bool = False


CONFINED = "_confined"


class Again(Recording):
    """A recording over and over, with stamps that go on."""

    def __init__(self, once: Recording, frames: int) -> None:
        super().__init__(once.root, once.info, [f"{i:06d}" for i in range(frames)])
        self._once, self.rig = once, once.rig

    def frame(self, index: int) -> Frame:
        stamp = 10**18 + index * PERIOD_NS
        given = self._once.frame(index % len(self._once))
        return Frame({n: replace(s, stamp_ns=stamp) for n, s in given.items()}, stamp)

    def truth(self, index: int) -> Truth:
        return Truth()


def bare(bundle: str) -> dict[str, float]:
    """Frames per second of the pipeline alone, on frames in memory, with one thread."""
    recording = FolderRecording(DRIVE)
    pipeline = Pipeline.load(bundle, "cpu", threads=1)
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    frames = [recording.seen(i, views) for i in range(20)]
    for frame in frames[:5]:
        pipeline(frame)
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(BARE_FRAMES):
        pipeline.reset()
        pipeline(frames[index % len(frames)])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"fps": BARE_FRAMES / wall, "fps_of_cpu": BARE_FRAMES / cpu}


def cpu_of_all() -> float:
    """Seconds of CPU of this process and of all that it has started, those that have ended included."""
    own: dict[int, float] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # from the state on, see proc(5)
        except OSError:  # has just ended
            continue
        number = int(path.parent.name)
        parents[number] = int(fields[1])
        own[number] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(own.get(number, 0.0) for number in ours)


@contextmanager
def confined(processes: list[int]) -> Iterator[None]:
    """Each process on a core of its own, all its threads, too; this one is let go at the end."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(processes):
        raise SystemExit(f"{len(processes)} workers on a core each, but there are {len(cores)}")
    for process, core in zip(processes, cores, strict=False):
        _keep_on(process, {core})
    try:
        yield
    finally:
        _keep_on(os.getpid(), set(cores))


def _keep_on(process: int, cores: set[int]) -> None:
    """All threads of a process; a system call of one thread moves that alone."""
    for thread in os.listdir(f"/proc/{process}/task"):
        os.sched_setaffinity(int(thread), cores)


def labelled(executor: Executor, job: Job) -> dict[str, float]:
    """Of one job, what it took: by the clock without start and end of workers, and in its chunks."""
    moments: list[tuple[float, float, float]] = []

    def step(what: str, done: int, total: int) -> None:
        if what == "looking at recordings" or (what == "working" and done == total):
            moments.append((time.perf_counter(), time.thread_time(), cpu_of_all()))

    report: Report = run_job(job, executor, step)
    assert not report.failed and not report.borders, report
    records = [json.loads(p.read_text()) for p in (Path(job.out) / "done").iterdir()]
    out = Path(job.out)
    stored = {
        f"{name}_bytes": sum(p.stat().st_size for p in (out / name).rglob("*") if p.is_file())
        for name in ("rows", "labels")
    }
    cpu, inside = (sum(r[k] for r in records) for k in ("cpu_seconds", "seconds"))
    wall, middle, of_all = (b - a for a, b in zip(moments[0], moments[-1], strict=True))
    return {
        "wall_s": wall,
        "chunk_s": inside,
        "cpu_s": cpu,
        "all_cpu_s": of_all,
        "fps": report.frames / wall,
        "fps_of_cpu": report.frames / cpu,
        "middle_s": middle,  # of this thread: on Ray it only waits
        "fps_of_middle": report.frames / middle,
        "first_cpu_s": sum(r["cpu_seconds"] for r in records if r["number"] == 0),
        "later_cpu_ms": _later_ms(records, "cpu_seconds"),
        "later_ms": _later_ms(records, "seconds"),
        **{name: size / report.frames for name, size in stored.items()},
    }


def _later_ms(records: list[dict[str, Any]], what: str) -> float:
    """Milliseconds a frame in all chunks but the first; NaN where there is but one."""
    later = [r for r in records if r["number"] > 0]
    frames = sum(r["frames"] for r in later)
    return 1e3 * sum(r[what] for r in later) / frames if frames else float("nan")


def rounds(
    bundle: str, bag: Path, folder: Path, count: int, chunk_s: float, runs: Mapping[str, Run]
) -> Iterator[dict[str, Any]]:
    """One after the other: the bare pipeline, then the runs."""
    for number in range(count):
        found: dict[str, Any] = {"bare": bare(bundle), "load": os.getloadavg()[0]}
        print("bare", json.dumps(found["bare"]), flush=True)
        for name, run in runs.items():
            workers = run.workers
            job = Job.model_validate(
                {
                    "schema": 1,
                    "bundle": bundle,
                    "recordings": [str(bag)],
                    "out": str(folder / f"{name}-{number}"),
                    "workers": {"count": max(workers, 1)},
                    "identity": "stat",
                    "chunk_s": chunk_s,
                }
            )
            on_ray = RayWorkers(job, LOCAL) if workers else None
            executor: Executor = on_ray or Here(job)
            own = [int(w["pid"]) for w in on_ray.workers] if on_ray else [os.getpid()]
            try:
                with confined(own) if run.confined else nullcontext():
                    found[name] = labelled(executor, job)
            finally:
                executor.close()
            print(name, json.dumps(found[name]), flush=True)
        yield found


def middle(values: list[float]) -> float:
    """The median."""
    return float(np.round(statistics.median(values), 4))


def confined_told(found: list[dict[str, Any]]) -> dict[str, float]:
    """Of runs with a core for each worker, how they stand to the pipeline alone and to each other."""
    here, one, two = (f"{name}{CONFINED}" for name in ("here", "ray1", "ray2"))
    told = {}
    if here in found[0]:
        own = [r[here]["fps"] / r["bare"]["fps"] for r in found]
        told["labelling_over_bare_confined"] = middle(own)
    if two in found[0]:
        own = [r[one]["wall_s"] / r[two]["wall_s"] for r in found]
        told["two_over_one_wall_confined"] = middle(own)
    return told


def told(found: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the rounds."""
    ray, two = {}, {}
    if all("ray1" in r for r in found):
        ray = {
            "outside_of_chunks_on_ray": middle(
                [r["ray1"]["wall_s"] / r["ray1"]["chunk_s"] - 1 for r in found]
            ),
            "cpu_of_ray1_over_here": middle(
                [r["ray1"]["cpu_s"] / r["here"]["cpu_s"] for r in found]
            ),
            "all_cpu_of_ray1_over_here": middle(
                [r["ray1"]["all_cpu_s"] / r["here"]["all_cpu_s"] for r in found]
            ),
            "later_cpu_of_ray1_over_here": middle(
                [r["ray1"]["later_cpu_ms"] / r["here"]["later_cpu_ms"] for r in found]
            ),
            "first_chunk_more_cpu_s_on_ray": middle(
                [r["ray1"]["first_cpu_s"] - r["here"]["first_cpu_s"] for r in found]
            ),
        }
    if all("ray2" in r for r in found):
        two = {
            "two_over_one_wall": middle([r["ray1"]["wall_s"] / r["ray2"]["wall_s"] for r in found]),
            "two_over_one_cpu": middle(
                [2 * r["ray1"]["cpu_s"] / r["ray2"]["cpu_s"] for r in found]
            ),
        }
    return {
        "bare_fps_of_cpu": middle([r["bare"]["fps_of_cpu"] for r in found]),
        "labelling_fps_of_cpu": middle([r["here"]["fps_of_cpu"] for r in found]),
        "labelling_over_bare": middle(
            [r["here"]["fps_of_cpu"] / r["bare"]["fps_of_cpu"] for r in found]
        ),
        "middle_over_bare": middle(
            [r["here"]["fps_of_middle"] / r["bare"]["fps_of_cpu"] for r in found]
        ),
        "outside_of_chunks_here": middle(
            [r["here"]["wall_s"] / r["here"]["chunk_s"] - 1 for r in found]
        ),
        **ray,
        **two,
        **confined_told(found),
        **{
            f"fps_{name}": middle([r[name]["fps"] for r in found])
            for name in found[0]
            if name != "load"
        },
        "load": middle([r["load"] for r in found]),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="sim-rgbdtl")
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--chunk-s", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="no run of two workers")
    parser.add_argument("--here", action="store_true", help="nothing on Ray")
    parser.add_argument("--confined", action="store_true", help="also with a core for each worker")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = Again(FolderRecording(DRIVE), args.minutes * 600)
        write_bag(folder / "bag", messages_of(recording))
        size = sum(p.stat().st_size for p in (folder / "bag").iterdir())
        print(f"{args.minutes} minutes, {size / 1e6:.0f} MB")
        runs = {"here": Run(0)} | ({} if args.here else {"ray1": Run(1)})
        runs |= {} if args.here or args.alone else {"ray2": Run(2)}
        if args.confined:
            runs |= {f"{name}{CONFINED}": Run(run.workers, True) for name, run in runs.items()}
        found = []
        for one in rounds(args.bundle, folder / "bag", folder, args.rounds, args.chunk_s, runs):
            found.append(one)
            print(json.dumps(one))
        summary = {"bytes_per_frame": size / len(recording), **told(found)}
    print(json.dumps(summary, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps({"summary": summary, "rounds": found}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

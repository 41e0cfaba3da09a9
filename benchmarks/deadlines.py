"""How late results are while others want the CPU, and how soon a pipeline is back after an endless run.

    python benchmarks/deadlines.py starved --bundle sim-rgbdtl --deadline-ms 150 --hogs 4 --seconds 20
    python benchmarks/deadlines.py recovery
    python benchmarks/deadlines.py cost

`starved` gives the same sensors, in turns within one run, to a plain queue that computes every frame, to a
stream without a deadline, and to one with it.  `recovery` makes graphs with a loop of 2^62 steps where the
picture is bright (package onnx) and tells the time from the call to the error, and to the next result.
`cost` is what a limit on each run costs a frame.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import queue
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import perception
from perception.errors import DeadlineExceededError, EngineError
from perception.frame import Frame, Sample
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import TINY_GRAPH
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

_POOL = 6
"""Different frames that are given in turn."""


@dataclass
class Seen:
    """What came out in one way of running.

    Attributes:
        latencies_ms: from the arrival of the newest sample to each result.
        offered: how many frames the sensors gave.
        late: how many results said that they were late.
        dropped: how many frames were let go on purpose.
        used: how often each subset was computed.
        backlog: frames that waited at the end.
    """

    latencies_ms: list[float] = field(default_factory=list)
    offered: int = 0
    late: int = 0
    dropped: int = 0
    used: Counter[str] = field(default_factory=Counter)
    backlog: int = 0

    def row(self, deadline_ms: float) -> dict[str, Any]:
        """Plain values, as they are shown."""
        times = np.array(self.latencies_ms or [np.nan])
        p50, p90, p99 = (float(np.percentile(times, p)) for p in (50, 90, 99))
        return {
            "offered": self.offered,
            "results": len(self.latencies_ms),
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "max_ms": float(times.max()),
            "p99_over_deadline": p99 / deadline_ms,
            "over_deadline": float((times > deadline_ms).mean()),
            "said_late": self.late,
            "dropped": self.dropped,
            "backlog": self.backlog,
            "used": dict(self.used.most_common(4)),
        }


def _spin(stop: Any) -> None:
    while not stop.is_set():
        sum(i * i for i in range(20_000))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    hogs = [context.Process(target=_spin, args=(stop,), daemon=True) for _ in range(count)]
    for hog in hogs:
        hog.start()
    try:
        yield
    finally:
        stop.set()
        for hog in hogs:
            hog.join()


def offer(
    pool: list[Frame], rate_hz: float, until: float, give: Callable[[dict[str, Sample]], None]
) -> int:
    """Give a frame's samples at a steady rate, whoever is slow; returns how many there were."""
    start = time.monotonic()
    for number in itertools.count():
        due = start + number / rate_hz
        if due >= until:
            return number
        time.sleep(max(0.0, due - time.monotonic()))
        give(dict(pool[number % len(pool)]))
    raise AssertionError


def run_queue(pipeline: Pipeline, pool: list[Frame], rate_hz: float, seconds: float) -> Seen:
    """Every frame, one after the other, however long it has waited."""
    seen, waiting = Seen(), queue.SimpleQueue[tuple[int, dict[str, Sample]]]()
    end = time.monotonic() + seconds

    def give(samples: dict[str, Sample]) -> None:
        now = time.time_ns()
        stamped = {n: Sample(**{**vars(s), "stamp_ns": now}) for n, s in samples.items()}
        waiting.put((time.monotonic_ns(), stamped))

    def work() -> None:
        while time.monotonic() < end:
            with suppress(queue.Empty):
                arrived, samples = waiting.get(timeout=0.05)
                result = pipeline(samples)
                seen.latencies_ms.append((time.monotonic_ns() - arrived) / 1e6)
                seen.used["+".join(result.used)] += 1

    worker = threading.Thread(target=work)
    worker.start()
    seen.offered = offer(pool, rate_hz, end, give)
    worker.join()
    seen.backlog = waiting.qsize()
    return seen


def run_stream(
    stream: perception.Stream, seen: Seen, pool: list[Frame], rate_hz: float, seconds: float
) -> None:
    """What arrives is computed as the stream sees fit; `seen` is filled by its callback."""

    def give(samples: dict[str, Sample]) -> None:
        for name, sample in samples.items():
            stream.push(name, sample, stamp_ns=time.time_ns())

    seen.offered += offer(pool, rate_hz, time.monotonic() + seconds, give)


@contextmanager
def streamed(args: argparse.Namespace, seen: Seen, deadline_s: float | None) -> Iterator[Any]:
    """A stream whose results go to `seen`."""

    def note(result: Result) -> None:
        if not result.used:
            return
        seen.latencies_ms.append((time.monotonic_ns() - result.arrived_ns) / 1e6)
        seen.late += result.late
        seen.dropped += result.lateness.dropped if result.lateness is not None else 0
        seen.used["+".join(result.used)] += 1

    rates = dict.fromkeys(args.sensors, args.rate_hz)
    with perception.Stream.open(
        args.bundle,
        rates,
        device=args.device,
        threads=1,
        on_result=note,
        deadline_s=deadline_s,
    ) as stream:
        yield stream


def starved(args: argparse.Namespace) -> dict[str, Any]:
    """The three ways in turns, all beside the same busy processes."""
    pipeline = Pipeline.load(args.bundle, args.device, threads=1)
    pipeline.warm_up()
    args.sensors = pipeline.sensors
    pool = [synthetic_frame(pipeline, seed) for seed in range(_POOL)]
    alone = [pipeline(frame).total_ms for frame in pool]
    queued, free, bound = Seen(), Seen(), Seen()
    with (
        streamed(args, free, None) as plain,
        streamed(args, bound, args.deadline_ms / 1e3) as limited,
        busy(args.hogs),
    ):
        for _ in range(args.rounds):
            for way in (free, bound):
                stream = plain if way is free else limited
                run_stream(stream, way, pool, args.rate_hz, args.seconds)
                time.sleep(1.0)
            pipeline.reset()
            part = run_queue(pipeline, pool, args.rate_hz, args.seconds)
            queued.latencies_ms += part.latencies_ms
            queued.offered += part.offered
            queued.backlog += part.backlog
            queued.used += part.used
        counters = dict(limited.core.pipeline.counters)
        report = limited.report()
    for name, sensor in report.items():
        told = sensor.used + sensor.superseded + sensor.rejected + sensor.waiting
        assert sensor.received == told, f"{name}: {sensor}"
    ways = {"queue": queued, "stream": free, "stream with deadline": bound}
    return {
        "bundle": args.bundle,
        "deadline_ms": args.deadline_ms,
        "hogs": args.hogs,
        "rate_hz": args.rate_hz,
        "before_ms": float(np.median(alone)),
        "steps": {k: v for k, v in counters.items() if k.startswith("late")},
        "ways": {name: seen.row(args.deadline_ms) for name, seen in ways.items()},
    }


def hostile_bundle(folder: Path) -> Path:
    """A bundle that never ends on a bright picture, made by the tests' own tools."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from hostile_graphs import endless
    from small_bundles import SmallBundles, encoder

    return SmallBundles(folder)(graphs={"encoder_rgb.onnx": endless(encoder("rgb"), "bright")})


def recovery(args: argparse.Namespace) -> dict[str, Any]:
    """By backend: from the call to the error, and from the error to the next result, in seconds."""
    found: dict[str, Any] = {}
    picture = lambda level, n: Sample(  # noqa: E731
        "rgb",
        np.random.default_rng(n).integers(level, level + 9, (32, 64, 3), np.uint8),
        stamp_ns=n,
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = hostile_bundle(Path(folder))
        for name in args.backends.split(","):
            try:
                pipeline = Pipeline.load(
                    bundle,
                    name,
                    threads=1,
                    trust_plans=True,
                    engine_timeout_s=args.timeout_ms / 1e3,
                )
                pipeline.warm_up()
            except EngineError as error:
                found[name] = {"error": str(error)}
                continue
            errors, backs, stuck = [], [], 0
            for turn in range(args.turns):
                start = time.monotonic()
                try:
                    pipeline({"rgb": picture(200, 2 * turn)})
                except DeadlineExceededError as error:
                    stuck += error.stuck
                failed = time.monotonic()
                assert pipeline({"rgb": picture(40, 2 * turn + 1)}).used
                errors.append(failed - start)
                backs.append(time.monotonic() - failed)
            found[name] = {
                "ended_s": float(np.median(errors)),
                "back_s": float(np.median(backs)),
                "worst_s": max(a + b for a, b in zip(errors, backs, strict=True)),
                "stuck": stuck,
                "turns": args.turns,
            }
    return {"timeout_ms": args.timeout_ms, "backends": found}


def cost_of_a_run() -> dict[str, float]:
    """Median microseconds of a run of a graph of one operator, without a limit and with one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(TINY_GRAPH)
        engine = OnnxRuntimeEngine(path, "cpu", 1)
    feeds = {"x": np.ones((1, 1, 2, 2), np.float32)}
    engine.run(feeds)
    times: dict[float | None, list[int]] = {None: [], 10.0: []}
    for _ in range(10_000):
        for limit, found in times.items():
            engine.timeout_s = limit
            start = time.perf_counter_ns()
            engine.run(feeds)
            found.append(time.perf_counter_ns() - start)
    return {
        name: float(np.median(times[limit])) / 1e3
        for name, limit in (("run_without_us", None), ("run_with_us", 10.0))
    }


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """What a limit adds to a run and, in milliseconds, to a frame, in turns within one run."""
    pipeline = Pipeline.load(args.bundle, args.device, threads=1)  # of two, one is ever faster
    pipeline.warm_up()
    times: dict[float | None, list[float]] = {None: [], 10.0: []}
    frames = [synthetic_frame(pipeline, seed) for seed in range(args.frames)]
    for number, frame in enumerate(frames):
        for limit in (None, 10.0) if number % 2 else (10.0, None):
            for engine in pipeline.engines.values():
                engine.timeout_s = limit
            pipeline.reset()
            start = time.perf_counter_ns()
            pipeline(frame)
            times[limit].append((time.perf_counter_ns() - start) / 1e6)
    differences = np.array(times[10.0]) - np.array(times[None])
    return {
        "bundle": args.bundle,
        "frames": args.frames,
        "without_ms": float(np.median(times[None])),
        "with_ms": float(np.median(times[10.0])),
        "difference_ms": float(np.median(differences)),
        **cost_of_a_run(),
    }


def main() -> int:
    """Measure, and print plain values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("starved")
    one.add_argument("--bundle", default="sim-rgbdtl")
    one.add_argument("--device", default="cpu")
    one.add_argument("--deadline-ms", type=float, default=150.0)
    one.add_argument("--rate-hz", type=float, default=15.0)
    one.add_argument("--hogs", type=int, default=4)
    one.add_argument("--seconds", type=float, default=20.0)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=starved)
    two = commands.add_parser("recovery")
    two.add_argument("--backends", default="onnxruntime-cpu,openvino")
    two.add_argument("--timeout-ms", type=float, default=200.0)
    two.add_argument("--turns", type=int, default=3)
    two.set_defaults(run=recovery)
    three = commands.add_parser("cost")
    three.add_argument("--bundle", default="sim-stereo")
    three.add_argument("--device", default="cpu")
    three.add_argument("--frames", type=int, default=200)
    three.set_defaults(run=cost)
    args = parser.parse_args()
    print(json.dumps(args.run(args), indent=1), flush=True)
    return 0


if __name__ == "__main__":
    status = main()
    from os import _exit

    _exit(status)  # beside a thread that does not end

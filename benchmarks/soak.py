"""Random faults for a long time in one process: no foreign exception, no growth, every sample accounted for.

    make soak                                                 # 100,000 frames of a tiny bundle
    python benchmarks/soak.py --frames 20000 --bundle sim-rgbdtl --out out/soak

A frame is a tenth of a second on a simulated clock, in which each sensor sends a sample through the
fault injector into one stream.  The run is made of chapters: faults of every kind hit one sensor, several or
all of them, by a seed; at its end all are well, and all must be used again.  Every fault that a sensor
can have comes up.  Now and then a message comes that nobody can decode, or that a newer one replaced.

Prints a JSON object, draws resident memory over frames (memory.png in --out), and ends with status 1 and what
is wrong: an exception that is not of AnySense, also one that was caught and logged; a sample without a fate;
a result that makes no sense; a sensor that stays away; memory that grows by more than --growth percent
from the end of the warm-up on, by a straight line through all that was measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perception.corruptions import DELIVERY, Event, FaultInjector, FaultSchedule, faults_of
from perception.errors import AnySenseError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.collector import SensorTiming
from perception.runtime.core import StreamCore
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Result
from perception.runtime.settings import StreamSettings

MS = 10**6
STEP_NS = 100 * MS
EPOCH_NS = 1_700_000_000 * 10**9
SIZE = (48, 64)
CAMERA = CameraModel(SIZE[1], SIZE[0], 50.0, 50.0, 31.5, 23.5)
TO_OPTICAL = RigidTransform(np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.zeros(3))
CHAPTER = 120
WELL = 60
"""Frames at the end of a chapter in which no fault is there: for recovery."""

_CONTENTS = 16
_MOST_WRONG = 20


def tiny_bundle(folder: Path) -> Path:
    """A bundle of 1 x 1 convolutions with all four sensors, as the tests make it (needs onnx)."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from small_bundles import SmallBundles

    kinds = ("rgb", "depth", "thermal", "lidar")
    return SmallBundles(folder).named({k: (k, k) for k in kinds}, 3, 2)


def contents(kind: str, seed: int) -> Sample:
    """A sample without a stamp."""
    rng = np.random.default_rng(seed)
    if kind == "rgb":
        return Sample(kind, rng.integers(20, 220, (*SIZE, 3), np.uint8), camera=CAMERA)
    if kind == "depth":
        return Sample(kind, rng.uniform(1, 9, SIZE).astype(np.float32), camera=CAMERA)
    if kind == "thermal":
        values = rng.uniform(0, 200, SIZE).astype(np.float32)
        return Sample(kind, values, unit="counts8", camera=CAMERA)
    points = rng.uniform([5, -3, -2, 0], [15, 3, 2, 1], (300, 4)).astype(np.float32)
    return Sample(kind, points, camera=CAMERA, extrinsics=TO_OPTICAL)


class Deck:
    """All faults of all sensors, dealt so that each comes up before any comes up again."""

    def __init__(self, kinds: Mapping[str, str], dice: random.Random) -> None:
        self.dice, self.sensors = dice, list(kinds)
        self.every = [(s, f) for s, kind in kinds.items() for f in (*DELIVERY, *faults_of(kind))]
        self._left: list[tuple[str, str]] = []
        self.dealt: Counter[tuple[str, str]] = Counter()

    def deal(self) -> tuple[str, str]:
        """A sensor and a fault that it can have."""
        if not self._left:
            self._left = list(self.every)
            self.dice.shuffle(self._left)
        self.dealt[self._left[-1]] += 1
        return self._left.pop()

    def chapter(self, seconds: float) -> FaultSchedule:
        """Faults until `seconds`: one at a time, several at once, or a sensor that is away."""
        dice, events = self.dice, []
        at = dice.uniform(0, 1)
        while at < seconds:
            for _ in range(dice.choice((1, 1, 2, 4))):
                sensor, fault = self.deal()
                until = min(seconds, at + dice.uniform(0.2, 4.0))
                events.append(Event(sensor, fault, at, until, dice.randint(1, 5)))
            at += dice.uniform(0.1, 2.0)
        if dice.random() < 0.5:  # one is away the whole time, or all are for a while
            gone = dice.sample(self.sensors, dice.choice((1, 1, 2, len(self.sensors))))
            start = dice.uniform(0, seconds / 2)
            events += [Event(sensor, "lost", start, seconds) for sensor in gone]
        return FaultSchedule(tuple(events), seed=dice.randrange(2**31))


class Foreign(logging.Handler):
    """Remembers exceptions that were caught and logged, and are none of AnySense's own."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, AnySenseError):
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._wrong.append(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")


@dataclass
class Soak:
    """A stream under faults, and what is wrong with it."""

    pipeline: Pipeline
    seed: int
    parallel: bool = False
    wrong: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    health: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, int]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    frames: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.kinds = dict(self.pipeline.kinds)
        self.deck = Deck(self.kinds, self.dice)
        self.samples = {
            s: [replace(contents(k, 100 * i + n), sensor=s) for n in range(_CONTENTS)]
            for i, (s, k) in enumerate(self.kinds.items())
        }
        timing = {s: SensorTiming(timeout_ns=500 * MS) for s in self.kinds}
        self.core = StreamCore(
            self.pipeline,
            StreamSettings(timing, 80 * MS, policy=Policy(max_age_ms=300, hold_ms=1000)),
            parallel=self.parallel,
        )
        self.last: Result | None = None

    def run(self, frames: int, every: int) -> None:
        """So many frames, or a few more; memory is measured every so many."""
        handler = Foreign(self.wrong)
        logger = logging.getLogger("anysense")
        logger.addHandler(handler)
        propagated, logger.propagate = logger.propagate, False
        try:
            while self.frames < frames and len(self.wrong) < _MOST_WRONG:
                self._chapter(every)
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagated
            self.core.close()

    def _chapter(self, every: int) -> None:
        ill = CHAPTER - WELL
        start = self.frames * STEP_NS
        injector = FaultInjector(self.deck.chapter(ill * STEP_NS / 1e9), start)
        self.last = None
        for _ in range(CHAPTER):
            now = self.frames * STEP_NS
            self._stray(now, quiet=self.frames * STEP_NS >= start + ill * STEP_NS)
            for held in self.samples.values():
                sample = held[self.frames % _CONTENTS]
                injector.push(replace(sample, stamp_ns=EPOCH_NS + now), now)
            for sample, arrived in injector.poll(now + STEP_NS - 1):
                self._poll_until(arrived)
                self.told[sample.sensor] += 1
                self.core.push(sample, arrived, EPOCH_NS + arrived)
            self._poll_until(now + STEP_NS - 1)
            self.frames += 1
            if self.frames % every == 0:
                gc.collect()
                self.memory.append((self.frames, resident()))
        self._balance()
        if self.last is None or set(self.last.used) != set(self.kinds):
            used = None if self.last is None else (self.last.state, self.last.used, self.last.lines)
            self.wrong.append(f"frame {self.frames}: not all sensors came back: {used}")

    def _stray(self, now: int, quiet: bool) -> None:
        """Messages that never become samples."""
        if quiet or self.dice.random() > 0.03:
            return
        sensor = self.dice.choice(self.deck.sensors)
        self.told[sensor] += 1
        if self.dice.random() < 0.5:
            self.core.reject(sensor, "its message ends in the middle", now)
        else:
            self.core.skip(sensor)

    def _poll_until(self, at: int) -> None:
        for _ in range(100):
            due = self.core.next_deadline_ns()
            if due >= at:
                break
            self._take(self.core.poll(max(due, at - STEP_NS)))
        self._take(self.core.poll(at))

    def _take(self, results: list[Result]) -> None:
        for result in results:
            self.states[result.state] += 1
            self.health.update(result.health.values())
            self.last = result if result.used else self.last
            if problem := unsound(result, self.kinds):
                self.wrong.append(f"frame {self.frames}: {problem}")

    def _balance(self) -> None:
        """Every sample that was handed in is used, superseded, rejected, or waits."""
        now = self.frames * STEP_NS
        for sensor, r in self.core.report(now).items():
            if (
                r.received != r.used + r.superseded + r.rejected + r.waiting
                or min(r.used, r.superseded, r.rejected, r.waiting) < 0
            ):
                self.wrong.append(f"frame {self.frames}: {sensor} does not add up: {r}")
            if r.received != self.told[sensor]:
                self.wrong.append(f"{sensor}: {self.told[sensor]} given, {r.received} received")
            if r.waiting > 100:
                self.wrong.append(f"{sensor}: {r.waiting} samples wait")

    def fates_of(self) -> dict[str, dict[str, int]]:
        """By sensor, how many samples met which fate."""
        return {s: dict(sorted(c.items())) for s, c in self.core.counts.items()}


def unsound(result: Result, kinds: Mapping[str, str]) -> str:
    """What makes no sense about a result; empty where all does."""
    if not set(result.fresh) <= set(result.used) <= set(kinds):
        return f"used {result.used}, fresh {result.fresh}"
    if result.state in ("full", "degraded") and not result.used:
        return f"{result.state} of nothing"
    if result.labels is not None and result.confidence is not None:
        if not np.isfinite(result.confidence).all() or result.confidence.max(initial=0) > 1.00001:
            return "a confidence beyond 0 to 1"
        if result.labels.shape != result.confidence.shape:
            return "labels and confidence of two shapes"
    boxes = result.boxes
    if boxes is not None and not (
        np.isfinite(boxes.xyxy).all() and np.isfinite(boxes.scores).all()
    ):
        return "boxes that are not finite"
    return ""


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def growth(memory: Sequence[tuple[float, int]], warm_up: float) -> tuple[float, np.ndarray]:
    """By which share memory grows after the warm-up, by a straight line; and the line."""
    kept = np.array([(n, m) for n, m in memory if n >= warm_up], float)
    if len(kept) < 3:
        return 0.0, np.zeros(2)
    line = np.polyfit(kept[:, 0], kept[:, 1], 1)
    first, last = np.polyval(line, kept[[0, -1], 0])
    return float(last / first - 1), line


def draw(
    memory: Sequence[tuple[float, int]],
    warm_up: float,
    line: np.ndarray,
    path: Path,
    *,
    over: str = "frames",
    parts: Mapping[str, Sequence[tuple[float, int]]] | None = None,
) -> None:
    """Memory over frames, or what is said, and parts of it by name, as a picture; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    frames, level = np.array(memory, float).T
    figure, axes = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    axes.plot(frames, level / 2**20, linewidth=1, label="resident")
    for name, values in (parts or {}).items():
        at, own = np.array(values, float).T
        axes.plot(at, own / 2**20, linewidth=1, label=name)
    later = frames[frames >= warm_up]
    axes.plot(later, np.polyval(line, later) / 2**20, "--", label="straight line after warm-up")
    axes.axvline(warm_up, color="0.7", linewidth=1)
    axes.set(xlabel=over, ylabel="MiB", ylim=(0, 1.1 * level.max() / 2**20))
    axes.legend(loc="best" if parts else "lower right")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(given: list[str] | None = None) -> int:
    """Parse the arguments, run, print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--bundle", help="with the sensors rgb, depth, thermal, lidar, or some of them"
    )
    parser.add_argument(
        "--warm-up", type=float, default=0.1, help="share of the frames before it counts"
    )
    parser.add_argument("--growth", type=float, default=1.0, help="most growth of memory, percent")
    parser.add_argument("--parallel", action="store_true", help="encode on a thread of each sensor")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    args = parser.parse_args(given)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        pipeline = Pipeline.load(args.bundle or tiny_bundle(Path(place)), "cpu", threads=1)
    soak = Soak(pipeline, args.seed, args.parallel)
    gc.collect()
    gc.freeze()  # what is loaded stays; collecting before each measurement then takes no time
    soak.run(args.frames, max(1, args.frames // 400))
    warm_up = round(args.warm_up * soak.frames)
    grown, line = growth(soak.memory, warm_up)
    wrong = list(soak.wrong)
    if 100 * grown > args.growth:
        wrong.append(f"memory grew by {100 * grown:.2f} %")
    unseen = len(soak.deck.every) - len(soak.deck.dealt)
    told: dict[str, Any] = {
        "frames": soak.frames,
        "seed": args.seed,
        "samples": dict(soak.told),
        "faults": {
            "kinds": len(soak.deck.every),
            "not_met": unseen,
            "events": soak.deck.dealt.total(),
        },
        "states": dict(soak.states),
        "health": dict(soak.health),
        "fates": soak.fates_of(),
        "memory_mb": [round(soak.memory[i][1] / 2**20, 1) for i in (0, -1)] if soak.memory else [],
        "memory_growth_percent": round(100 * grown, 3),
        "wrong": wrong[:_MOST_WRONG],
    }
    (args.out / "soak.json").write_text(json.dumps({**told, "memory": soak.memory}))
    draw(soak.memory, warm_up, line, args.out / "memory.png")
    print(json.dumps(told, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

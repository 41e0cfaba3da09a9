"""What decoding costs: before, now, and in the graph, in turn within one run.

    anysense export BUNDLE --ends labels --out LABELS
    python benchmarks/decoding.py BUNDLE [--labels LABELS] [--data KIND:DIR] [--frames N] [--json FILE]

`before` interpolates every class at every pixel and takes exponentials of all logits at once; `now` is
what the package does; `graph` is the bundle whose fuser ends in labels. Overhead is the total less the
time of engines, those of `now` in the same round for `graph`: what a graph does instead of the CPU is
not hidden in it. On a busy machine only the CPU time of decoding tells something (`--threads 1`).
Without data the frames are noise, in which a network finds few classes. Labels and confidence of `now`
must be those of `before`, byte for byte; the share of equal labels of `graph` is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.data.registry import open_recording, parse_data_argument
from perception.frame import Frame, subset_name, subsets_of
from perception.runtime.benchmark import synthetic_frame
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.registry import TASKS
from perception.tasks.segmentation import LOGITS, Segmentation
from perception.tasks.task import TaskContext


def plain(tensors: Mapping[str, Any], ctx: TaskContext) -> Segmentation:
    """Labels and confidence as they were decoded before."""
    logits, size = ctx.grid.crop(tensors[LOGITS][0]), ctx.grid.source
    fine = (logits.shape[2] * 2, logits.shape[1] * 2)
    best = cv2.resize(logits[0], fine, interpolation=cv2.INTER_LINEAR)
    labels, plane = np.zeros(best.shape, np.uint8), np.empty_like(best)
    wins = np.empty(best.shape, np.uint8)
    for index in range(1, len(logits)):
        cv2.resize(logits[index], fine, plane, interpolation=cv2.INTER_LINEAR)
        cv2.compare(plane, best, cv2.CMP_GT, wins)
        cv2.max(plane, best, best)
        labels[wins.view(bool)] = index
    whole = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    temperature = ctx.spec.temperature(ctx.inputs)
    if temperature != 1.0:
        logits = np.divide(logits, np.float32(temperature), dtype=np.float32)
    peak = logits.max(axis=0)
    confidence = (1.0 / np.exp(logits - peak).sum(axis=0)).astype(np.float32)
    scaled = cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR)
    if ctx.confidence != 1.0:
        scaled *= np.float32(ctx.confidence)
    return Segmentation(whole, scaled)  # type: ignore[arg-type]


class Timed(Pipeline):
    """A pipeline that decodes in a stated way, and notes the thread's own CPU time of it."""

    decoder: Callable[[Mapping[str, Any], TaskContext], Any]
    cpu_ms: float = 0.0

    @staticmethod
    def open(bundle: str, device: str, threads: int | None, decoder: Any = None) -> Timed:
        """Load a bundle; without a decoder it is the package's."""
        pipeline = Pipeline.load(bundle, device, threads=threads)
        pipeline.__class__ = Timed
        assert isinstance(pipeline, Timed)
        pipeline.decoder = decoder or TASKS["segmentation"].decode
        pipeline.wanted &= {"labels", "confidence", "boxes"}
        return pipeline

    def _decode(self, tensors: Mapping[str, Any], ctx: TaskContext) -> Any:
        start = time.thread_time_ns()
        value = self.decoder(tensors, ctx)
        self.cpu_ms = (time.thread_time_ns() - start) / 1e6
        return value

    def __call__(self, frame: Any) -> Result:
        """The result for one frame."""
        task = TASKS["segmentation"]
        usual = task.decode
        object.__setattr__(task, "decode", self._decode)
        try:
            return super().__call__(frame)
        finally:
            object.__setattr__(task, "decode", usual)


def _row(times: list[Mapping[str, float]]) -> dict[str, float]:
    total, engine = (np.array([t[name] for t in times]) for name in ("total", "engine"))
    return {
        "total_ms": float(np.median(total)),
        "postprocess_ms": float(np.median([t["postprocess"] for t in times])),
        "decoding_cpu_ms": float(np.median([t["decoding"] for t in times])),
        "overhead_ms": float(np.median(total - engine)),
        "overhead": float(np.median((total - engine) / engine)),
    }


def compare(pipelines: Mapping[str, Timed], frames: list[Frame], warmup: int) -> dict[str, Any]:
    """By subset and way of decoding, medians; and the shares of equal labels.

    Raises:
        SystemExit: `now` is not what was before.
    """
    found: dict[str, Any] = {}
    for subset in subsets_of(pipelines["now"].sensors):
        times: dict[str, list[Mapping[str, float]]] = {name: [] for name in pipelines}
        engine, equal = [], dict.fromkeys(pipelines, 0.0)
        for index, frame in enumerate([*frames[:warmup], *frames]):
            given = Frame({n: frame[n] for n in subset}, frame.stamp_ns)
            results = {}
            # Whoever is first meets other caches: all take turns at it.
            names = list(pipelines)
            for name in names[index % len(names) :] + names[: index % len(names)]:
                pipelines[name].reset()
                results[name] = pipelines[name](given)
            if index < warmup:
                continue
            wanted = results["before"]
            engine.append(results["now"].engine_ms)
            for name, result in results.items():
                own = engine[-1] if name == "graph" else result.engine_ms
                cpu = {"engine": own, "decoding": pipelines[name].cpu_ms}
                times[name].append({**result.timings, **cpu})
                equal[name] += float((result.labels == wanted.labels).mean()) / len(frames)
            now = results["now"]
            if not np.array_equal(now.labels, wanted.labels) or not np.array_equal(
                now.confidence, wanted.confidence
            ):
                raise SystemExit(f"frame {index}, {subset_name(subset)}: not what was before")
        rows = {name: _row(own) for name, own in times.items()}
        found[subset_name(subset)] = {
            "engine_ms": float(np.median(engine)),
            **{name: row | {"equal_labels": equal[name]} for name, row in rows.items()},
        }
    return found


def main() -> int:
    """Parse the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--labels", help="the same, made with --ends labels")
    parser.add_argument("--data", help="KIND:DIR of frames, instead of noise")
    parser.add_argument("--split", default="all", choices=("all", "train", "val"))
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", default="onnxruntime-cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads is not None:
        cv2.setNumThreads(args.threads)
    now = Timed.open(args.bundle, args.device, args.threads)
    pipelines = {"before": Timed.open(args.bundle, args.device, args.threads, plain), "now": now}
    if args.labels:
        pipelines["graph"] = Timed.open(args.labels, args.device, args.threads)
    if args.data:
        kind, root = parse_data_argument(args.data)
        recording = open_recording(kind, root, split=args.split)
        picked = np.linspace(0, len(recording) - 1, args.frames).astype(int)
        frames = [recording.frame(int(i)) for i in picked]
        frames = [f for f in frames if set(now.sensors) <= set(f)]
    else:
        frames = [synthetic_frame(now, seed) for seed in range(args.frames)]
    found = compare(pipelines, frames, args.warmup)
    for subset, rows in found.items():
        print(f"{subset}: engine {rows['engine_ms']:.1f} ms")
        for name in pipelines:
            row = rows[name]
            print(
                f"  {name:7} total {row['total_ms']:6.1f} ms, "
                f"decoding {row['decoding_cpu_ms']:5.2f} ms of CPU, "
                f"overhead {row['overhead_ms']:5.1f} ms = {100 * row['overhead']:5.1f} %, "
                f"labels equal {100 * row['equal_labels']:.4f} %"
            )
    if args.json:
        args.json.write_text(json.dumps({"arguments": sys.argv[1:], "subsets": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How well novelty tells frames far from training from clean ones, beside what else could tell.

    python benchmarks/novelty.py BUNDLE --data KIND:DIR --split val [--block N] [--limit N]
        [--other KIND:DIR ...] [--severity 3] [--json FILE]

Of the recording's scenes, those that limits are not of (the second half, as `anysense bundle novelty` deals
them out) are shown clean and spoilt: by every content fault of the sensor's kind, upside down, all but
covered, and with pictures of other recordings.  Stated are, of each, the area under the ROC of the sensor's
novelty, and with --confidence that of one minus the mean confidence of the result from this sensor alone,
which needs no novelty; the share beyond the limit; and what computing it costs of a frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perception.corruptions import corrupt, faults_of
from perception.data.base import Recording
from perception.data.registry import open_recording, parse_data_argument
from perception.errors import AnySenseError, ConfigError
from perception.evaluation.dealing import halves
from perception.frame import Frame, Sample
from perception.metrics import auroc
from perception.runtime.networks import Encoded
from perception.runtime.novelty import NoveltyScore
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.sensors.registry import kind_of

LEFT_OUT = ("dark", "saturated", "extrinsics", "time_skew", "misalignment")
"""Faults that health knows, and those of place and time, which leave the content as it is."""


def thinned(recording: Recording, most: int) -> Recording:
    """At most so many frames, evenly spread."""
    count = len(recording)
    return recording.part(
        range(count) if most >= count else [i * count // most for i in range(most)]
    )


def shifted(sample: Sample, severity: int, seed: int) -> Iterator[tuple[str, Sample]]:
    """A sample far from training, in one way after the other."""
    for fault in faults_of(sample.kind):
        if fault not in LEFT_OUT:
            yield fault, corrupt(sample, fault, severity, seed)
    if not kind_of(sample.kind).has_picture:
        return
    yield "upside down", replace(sample, data=np.ascontiguousarray(sample.data[::-1, ::-1]))
    rng = np.random.default_rng(seed)
    values = sample.data.astype(np.float64)
    middle, spread = np.nanmedian(values), max(float(np.nanstd(values)), 1e-6)
    blurred = middle + 0.02 * (values - middle) + rng.normal(0, 0.02 * spread, values.shape)
    if sample.data.dtype.kind in "iu":
        blurred = (blurred.round() / 8).clip(0, np.iinfo(sample.data.dtype).max)
    yield "covered", replace(sample, data=blurred.astype(sample.data.dtype))


def measured(pipeline: Pipeline, sample: Sample, confidence: bool) -> tuple[float, float] | None:
    """Novelty, and one minus the mean confidence (NaN where it is not wanted), of one sample alone."""
    pipeline.reset()
    if not confidence:
        found = pipeline.encode(sample, trust=True)
        novelty = getattr(found, "novelty", None)
        return None if novelty is None else (novelty, float("nan"))
    result = pipeline(Frame({sample.sensor: sample}, sample.stamp_ns))
    if sample.sensor not in result.novelty:
        return None
    if result.confidence is not None:
        sure = float(result.confidence.mean())
    else:
        scores = result.boxes.scores if result.boxes is not None else np.zeros(0)
        sure = float(scores.mean()) if len(scores) else 0.0
    return result.novelty[sample.sensor], 1 - sure


def cost(pipeline: Pipeline, recording: Recording, rounds: int = 10) -> dict[str, float]:
    """CPU milliseconds of the score by sensor, and of a frame with all of them: the least of some rounds.

    CPU time, as a machine that others use has no other that says anything.
    """
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    frame = recording.seen(0, views)
    features = {}
    for sensor in pipeline.sensors:
        found = pipeline.encode(frame[sensor], trust=True) if sensor in frame else None
        if isinstance(found, Encoded):
            features[sensor] = found.features
    scores = {s: NoveltyScore(pipeline.manifest.novelty[pipeline.inputs[s]]) for s in features}
    took: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any], times: int) -> None:
        start = time.process_time_ns()
        for _ in range(times):
            call()
        took.setdefault(name, []).append((time.process_time_ns() - start) / 1e6 / times)

    for _ in range(rounds):
        pipeline.reset()
        timed("frame", lambda: pipeline(frame), 1)
        for sensor, own in features.items():
            timed(sensor, partial(scores[sensor].of, own), 20)
    return {name: min(values) for name, values in took.items()}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--block", type=int)
    parser.add_argument("--limit", type=int, default=1000, help="clean frames at most")
    parser.add_argument("--other", action="append", default=[])
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--confidence", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pipeline = Pipeline.load(
        args.bundle, "cpu", threads=args.threads, policy=Policy(novelty_derating=0)
    )
    if not pipeline.manifest.novelty:
        raise ConfigError("knows no novelty", where=args.bundle, hint="anysense bundle novelty")
    kind, root = parse_data_argument(args.data)
    _, judged = halves(open_recording(kind, root, split=args.split), args.block)
    frames = thinned(judged.recording, args.limit)
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def add(sensor: str, shift: str, sample: Sample) -> None:
        try:
            found = measured(pipeline, sample, args.confidence)
        except AnySenseError:
            return
        if found is not None:
            rows.setdefault(sensor, {}).setdefault(shift, []).append(found)

    views = pipeline.manifest.inputs.views(pipeline.inputs)
    for index in range(len(frames)):
        for sensor, sample in frames.seen(index, views).items():
            if sensor in pipeline.sensors:
                add(sensor, "clean", sample)
                for shift, spoilt in shifted(sample, args.severity, index):
                    add(sensor, shift, spoilt)
    for given in args.other:
        kind, root = parse_data_argument(given)
        other = thinned(open_recording(kind, root), args.limit)
        for index in range(len(other)):
            frame = other.frame(index)
            for sensor, own in pipeline.kinds.items():
                sample = next((s for s in frame.values() if s.kind == own), None)
                if sample is not None:
                    add(sensor, f"{kind} instead", replace(sample, sensor=sensor))
    content = {
        "bundle": f"{pipeline.manifest.name} {pipeline.manifest.version}",
        "frames": len(frames),
        "severity": args.severity,
        "sensors": {sensor: summary(own) for sensor, own in rows.items()},
        "ms": cost(pipeline, frames),
    }
    show(content)
    if args.json is not None:
        args.json.write_text(json.dumps(content, indent=1))


def summary(rows: Mapping[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    """By shift, what is stated of one sensor."""
    clean = np.array(rows["clean"])
    out: dict[str, dict[str, Any]] = {}
    for shift, found in rows.items():
        here = np.array(found)
        out[shift] = {
            "frames": len(here),
            "beyond": float((here[:, 0] > 1).mean()),
            "novelty": float(np.median(here[:, 0])),
            "auroc": None if shift == "clean" else auroc(clean[:, 0], here[:, 0]),
        }
        if shift != "clean" and np.isfinite(here[:, 1]).all():
            out[shift]["auroc_confidence"] = auroc(clean[:, 1], here[:, 1])
    return out


def show(content: Mapping[str, Any]) -> None:
    """Print as tables."""
    print(f"{content['bundle']}, {content['frames']} frames, severity {content['severity']}")
    for sensor, own in content["sensors"].items():
        print(f"\n| {sensor} | AUROC | AUROC of confidence | median novelty | beyond 1, % |")
        print("|---|---|---|---|---|")
        for shift, row in own.items():
            areas = [row.get(k) for k in ("auroc", "auroc_confidence")]
            cells = ["-" if a is None else f"{a:.3f}" for a in areas]
            print(
                f"| {shift} | {' | '.join(cells)} | {row['novelty']:.2f} | {100 * row['beyond']:.0f} |"
            )
    total = sum(v for k, v in content["ms"].items() if k != "frame")
    share = 100 * total / content["ms"]["frame"]
    print(f"\n{total:.3f} ms of {content['ms']['frame']:.1f} ms CPU time a frame: {share:.2f} %")


if __name__ == "__main__":
    main()

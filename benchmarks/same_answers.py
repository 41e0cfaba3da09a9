"""Do two versions give the same answers, byte for byte?  Runs both on one machine and compares.

    git worktree add ../before COMMIT
    python benchmarks/same_answers.py ../before . --bundles bundles/*

A simulated drive of all sensors, written by the first version, goes through `Pipeline` with every subset
of each bundle's sensors, through the pure stream with each sensor at a time of its own, and, recorded as
a bag, through `anysense replay`. Relative paths of bundles are looked up in either version. Labels,
boxes, confidence, used sensors and states must be equal; times taken may differ, and the version after
may say more. Status 1, and what differs, when they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Answers = dict[str, np.ndarray]
ROADS = ("pipeline", "stream", "replay")
TAKES_TIME = ("timings", "latency", "seconds", "wall")
DELAYS_NS = {"rgb": 5_000_000, "depth": 12_000_000, "thermal": 9_000_000, "lidar": 60_000_000}
"""From a sensor's stamp to its sample's arrival."""


def facts(key: str, result: Any) -> Iterator[tuple[str, np.ndarray]]:
    """What a result says, as arrays."""
    said = [result.state, "+".join(result.used), json.dumps(dict(result.health), sort_keys=True)]
    yield f"{key}/said", np.array(said)
    for name in ("labels", "confidence"):
        if (value := getattr(result, name)) is not None:
            yield f"{key}/{name}", value
    if result.boxes is not None:
        for name in ("xyxy", "scores", "class_ids"):
            yield f"{key}/{name}", getattr(result.boxes, name)


def sensors_of(pipeline: Any) -> tuple[str, ...]:
    """Those that a pipeline takes, whatever a version calls them."""
    return pipeline.sensors if hasattr(pipeline, "sensors") else pipeline.modalities


def core_of(pipeline: Any, sensors: dict[str, Any], deadline_ns: int) -> Any:
    """The pure stream of a version."""
    try:
        from perception.runtime.core import StreamCore, StreamSettings
    except ImportError:
        from perception.runtime.stream import Stream

        return Stream(pipeline, sensors, deadline_ns=deadline_ns)
    return StreamCore(pipeline, StreamSettings(sensors, deadline_ns))


def by_pipeline(bundle: str, recording: Any) -> Answers:
    """Every frame in every subset of the bundle's sensors."""
    import perception
    from perception.frame import subset_name, subsets_of

    pipeline = perception.Pipeline.load(bundle, "cpu", threads=1)
    found: Answers = {}
    for index in range(len(recording)):
        frame = recording.frame(index)
        for subset in subsets_of(set(frame) & set(sensors_of(pipeline))):
            pipeline.reset()
            result = pipeline(perception.Frame({m: frame[m] for m in subset}, frame.stamp_ns))
            found.update(facts(f"{index}/{subset_name(subset)}", result))
    return found


def by_stream(bundle: str, recording: Any) -> Answers:
    """Samples one by one, each some time after its stamp; one sensor dies in the middle."""
    import perception
    from perception.runtime.collector import SensorTiming

    pipeline = perception.Pipeline.load(bundle, "cpu", threads=1)
    names = sensors_of(pipeline)
    sensors = {m: SensorTiming() for m in names}
    stream = core_of(pipeline, sensors, 80_000_000)
    frames = [recording.frame(i) for i in range(len(recording))]
    dying, half = names[0], len(frames) // 2
    arrivals = sorted(
        (sample.stamp_ns + DELAYS_NS[m], m, sample)
        for index, frame in enumerate(frames)
        for m, sample in frame.items()
        if m in sensors and not (m == dying and index >= half)
    )
    found: Answers = {}
    end = arrivals[-1][0] + 1_000_000_000
    now = arrivals[0][0]
    while now < end:
        while arrivals and arrivals[0][0] <= now:
            stream.push(arrivals.pop(0)[2], now)
        for output in stream.poll(now):
            stamp = output.output_ns if hasattr(output, "output_ns") else output.stamp_ns
            found.update(facts(f"{len(found)}/{stamp}", getattr(output, "result", output)))
        now += 1_000_000
    stream.close()
    return found


def by_replay(bundle: str, bag: Path, folder: Path) -> Answers:
    """The files that `anysense replay` writes."""
    from perception.cli.main import main

    out = folder / f"replay_{Path(bundle).name}"
    argv = ["replay", str(bag), "--bundle", bundle, "--out", str(out), "--device", "cpu"]
    if main([*argv, "--threads", "1", "--overlays"]) != 0:
        raise SystemExit("replay failed")
    found: Answers = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            said = [json.dumps(_lasting(json.loads(line)), sort_keys=True) for line in lines]
            found[name] = np.array(said)
        elif path.suffix == ".png":
            found[name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def _lasting(value: Any) -> Any:
    """Without what depends on how fast the machine was."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(t in k for t in TAKES_TIME)}
        return {k: _lasting(v) for k, v in kept.items() if not k.endswith("_ms") or k == "age_ms"}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def _known(before: str, after: str) -> str:
    """What the version after says of what the one before says something of; the rest is new."""
    old, new = json.loads(before), json.loads(after)
    return json.dumps({k: v for k, v in new.items() if k in old}, sort_keys=True)


def collect(args: argparse.Namespace) -> int:
    """In a process of one version: its answers, into files."""
    from perception.data.folder import FolderRecording

    recording = FolderRecording(args.work / "drive")
    for bundle in args.bundles:
        for road in args.roads:
            if road == "replay":
                found = by_replay(bundle, args.work / "bag", args.out)
            else:
                found = (by_pipeline if road == "pipeline" else by_stream)(bundle, recording)
            np.savez(args.out / f"{Path(bundle).name}.{road}.npz", **found)
            print(f"  {Path(bundle).name}, {road}: {len(found)} values", flush=True)
    return 0


def differences(before: Path, after: Path) -> list[str]:
    """What is not equal in two files of answers."""
    with np.load(before) as one, np.load(after) as other:
        wrong = [f"{key}: only in one" for key in sorted({*one} ^ {*other})]
        for key in sorted({*one} & {*other}):
            a, b = one[key], other[key]
            if ".json" in key and a.shape == b.shape:
                b = np.array([_known(old, new) for old, new in zip(a, b, strict=True)])
            if a.dtype != b.dtype and a.dtype.kind != "U":
                wrong.append(f"{key}: {a.dtype} and {b.dtype}")
            elif a.shape != b.shape or not (a == b).all():
                share = np.mean(a != b) if a.shape == b.shape else 1.0
                wrong.append(f"{key}: {100 * share:.3g} % differ")
    return wrong


def run(checkout: Path, *arguments: object) -> None:
    """Run this file, or a command of the package, with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, *map(str, arguments)]
    # With -m, Python looks into the folder that it runs in first.
    subprocess.run(command, env=environment, cwd=checkout, check=True)


def main() -> int:
    """Parse the arguments, run both versions, print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a checkout of the version before")
    parser.add_argument("after", type=Path, help="and of the one after")
    parser.add_argument("--bundles", nargs="+", required=True, help="folders, of either version")
    parser.add_argument("--roads", nargs="+", choices=ROADS, default=list(ROADS))
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        return collect(args)
    wrong = 0
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        cli = ("-m", "perception.cli.main")
        make = f"data make-sim --kind drive --frames {args.frames} --seed 5 --out".split()
        run(args.before, *cli, *make, work / "drive")
        if "replay" in args.roads:
            data = f"folder:{work / 'drive'}"
            run(args.before, *cli, "record", "--data", data, "--out", work / "bag")
        for name, checkout in (("before", args.before), ("after", args.after)):
            print(f"{name}: {checkout}", flush=True)
            (work / name).mkdir()
            bundles = [checkout.resolve() / path for path in args.bundles]
            options = ("--bundles", *bundles, "--roads", *args.roads)
            places = ("--work", work, "--out", work / name)
            run(checkout, Path(__file__).resolve(), ".", ".", *options, *places)
        for before in sorted((work / "before").glob("*.npz")):
            found = differences(before, work / "after" / before.name)
            wrong += len(found)
            print(f"{before.stem}: {'equal' if not found else f'{len(found)} differ'}")
            print(*found[:10], sep="\n", end="\n" * bool(found))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

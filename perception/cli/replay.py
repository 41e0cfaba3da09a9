"""`anysense replay`: a bundle on a bag, as it would have run live."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from perception.cli.arguments import add_engine_arguments, output_folder, say
from perception.errors import ConfigError
from perception.frame import Modality, as_modality


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("replay", help="run a bundle on an MCAP or rosbag2 recording")
    parser.add_argument("bag", type=Path, help="bag folder or .mcap file")
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="SENSOR=TOPIC",
        help="a sensor's topic, such as rgb=/camera/image_raw (default: /sensors/...)",
    )
    parser.add_argument("--rig", default="", metavar="FILE", help="calibration, see docs/data.md")
    parser.add_argument("--thermal-unit", default="auto", help="what 16 bit values mean")
    parser.add_argument("--deadline-ms", type=float, default=80.0, help="wait for other sensors")
    parser.add_argument("--overlays", action="store_true", help="write a picture of every output")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the bag; writes status.jsonl, and with --overlays pictures."""
    from perception.adapters.calibration import MessageCalibration
    from perception.bags.files import modality_topics
    from perception.bags.playback import Playback
    from perception.runtime.collector import SensorTiming
    from perception.runtime.pipeline import Pipeline
    from perception.runtime.stream import Stream

    if not args.deadline_ms > 0:
        raise ConfigError("must be positive", where="--deadline-ms")
    topics = modality_topics(args.bag, _topics(args.topic))
    out = output_folder(args.out)
    pipeline = Pipeline.load(args.bundle, args.device, threads=args.threads)
    topics = {m: t for m, t in topics.items() if m in pipeline.modalities}
    if not topics:
        raise ConfigError(
            f"bundle {pipeline.manifest.name} takes {', '.join(pipeline.modalities)}, "
            "the bag has none of them",
            where=str(args.bag),
        )
    calibration = MessageCalibration()
    calibration.load(args.rig)
    sensors = {m: SensorTiming(offset_ns=_offset(calibration.rig, m)) for m in topics}
    stream = Stream(pipeline, sensors, round(args.deadline_ms * 1e6))
    playback = Playback(stream, topics, calibration, args.thermal_unit)
    states: Counter[str] = Counter()
    with (out / "status.jsonl").open("w") as file:
        for number, output in enumerate(playback.run(args.bag)):
            states[output.result.state] += 1
            file.write(json.dumps(_fields(output), allow_nan=False) + "\n")
            if args.overlays and output.samples:
                _save(out / f"overlay_{number:05d}.png", pipeline.manifest, output)
    for modality in topics:
        if bad := playback.counters[f"malformed_{modality}"]:
            say(f"warning: {bad} messages of {modality} could not be decoded", style="yellow")
    counts = ", ".join(f"{n} {s}" for s, n in states.items()) or "none"
    say(f"outputs: {counts}; {out / 'status.jsonl'}")
    return 0


def _topics(given: list[str]) -> dict[Modality, str]:
    topics: dict[Modality, str] = {}
    for entry in given:
        name, equals, topic = entry.partition("=")
        if not equals or not topic:
            raise ConfigError(f"'{entry}' is not SENSOR=TOPIC", where="--topic")
        topics[as_modality(name)] = topic
    return topics


def _offset(rig: Any, modality: Modality) -> int:
    own = rig.sensors.get(modality)
    return 0 if own is None else int(own.time_offset_ns)


def _fields(output: Any) -> dict[str, Any]:
    result = output.result
    return {
        "stamp_ns": output.stamp_ns,
        "used": list(result.used),
        "state": result.state,
        "reason": output.reason,
        "health": result.health,
        "ages_ms": {m: age / 1e6 for m, age in result.ages_ns.items()},
        "steps_ms": {k: v for k, v in result.timings.items() if math.isfinite(v)},
        "boxes": 0 if result.boxes is None else len(result.boxes),
        "warnings": list(result.warnings),
    }


def _save(path: Path, manifest: Any, output: Any) -> None:
    import cv2

    from perception.frame import Frame
    from perception.viz.overlay import draw_result

    picture = draw_result(manifest, Frame(output.samples), output.result)
    cv2.imwrite(str(path), picture[..., ::-1])

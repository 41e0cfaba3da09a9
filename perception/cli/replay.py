"""`anysense replay`: a bundle on a bag, as it would have run live."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from perception.cli.arguments import add_engine_arguments, engine_choices, output_folder
from perception.cli.console import say, warn
from perception.cli.parsing import real
from perception.errors import ConfigError, DataError
from perception.frame import Modality, as_modality

_DEADLINE_NS = 80_000_000
_LEAST_MS, _MOST_MS = 1e-3, 1e9


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
    parser.add_argument(
        "--deadline-ms",
        type=real(_LEAST_MS, _MOST_MS),
        help="longest wait for other sensors (default: as late as they are delivered, at least 80)",
    )
    parser.add_argument(
        "--timeout-ms",
        type=real(_LEAST_MS, _MOST_MS),
        help="silent for longer, a sensor is lost (default: three of its periods, at least 500)",
    )
    parser.add_argument(
        "--window-ms",
        type=real(0, _MOST_MS),
        help="samples of one time lie no further apart (default: by the recording's rates, 25 to 200)",
    )
    parser.add_argument(
        "--max-age-ms",
        type=real(_LEAST_MS, _MOST_MS),
        help="oldest sample of a slower sensor that is used (default: 200)",
    )
    parser.add_argument(
        "--hold-ms",
        type=real(0, _MOST_MS),
        help="without usable sensors, repeat the last output (default: 500)",
    )
    parser.add_argument("--overlays", action="store_true", help="write a picture of every output")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the bag; writes status.jsonl, and with --overlays pictures."""
    from perception.adapters.calibration import MessageCalibration
    from perception.bags.files import modality_topics
    from perception.bags.playback import Playback
    from perception.bags.survey import survey
    from perception.runtime.pipeline import Pipeline
    from perception.runtime.stream import Stream

    topics = modality_topics(args.bag, _topics(args.topic))
    out = output_folder(args.out)
    pipeline = Pipeline.load(args.bundle, args.device, **engine_choices(args), policy=_policy(args))
    topics = {m: t for m, t in topics.items() if m in pipeline.modalities}
    if not topics:
        raise ConfigError(
            f"bundle {pipeline.manifest.name} takes {', '.join(pipeline.modalities)}, "
            "the bag has none of them",
            where=str(args.bag),
        )
    found = survey(args.bag, topics)
    calibration = MessageCalibration(max_age_ns=found.transform_age_ns)
    calibration.load(args.rig)
    most = round(pipeline.policy.max_age_ms * 1e6)
    timing = found.timing({m: calibration.offset_ns(m) for m in topics}, most)
    deadline = _ns(args.deadline_ms) or found.deadline_ns(_DEADLINE_NS, most)
    stream = Stream(pipeline, _as_given(args, timing), deadline)
    say(_described(found, stream))
    playback = Playback(stream, topics, calibration, found, args.thermal_unit)
    try:
        states = _play(args, playback, out, pipeline.manifest)
    finally:
        _warn(playback)
    counts = ", ".join(f"{n} {s}" for s, n in states.items()) or "none"
    say(f"outputs: {counts}; {out / 'status.jsonl'}")
    return 0


def _play(args: argparse.Namespace, playback: Any, out: Path, manifest: Any) -> Counter[str]:
    """Write a line for each output, at once and whole, so that an interrupted run can be read."""
    states: Counter[str] = Counter()
    path = out / "status.jsonl"
    with _reporting(path), path.open("wb", buffering=0) as file:
        for number, output in enumerate(playback.run(args.bag)):
            states[output.result.state] += 1
            line = json.dumps(_fields(output), allow_nan=False) + "\n"
            file.write(line.encode())
            if args.overlays and output.samples:
                _save(out / f"overlay_{number:05d}.png", manifest, output)
    return states


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be written: {reason}", where=str(path)) from error


def _ns(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1e6)


def _policy(args: argparse.Namespace) -> Any:
    from perception.runtime.policy import Policy

    given = {"max_age_ms": args.max_age_ms, "hold_ms": args.hold_ms}
    return Policy(**{name: value for name, value in given.items() if value is not None})


def _as_given(args: argparse.Namespace, timing: dict[Modality, Any]) -> dict[Modality, Any]:
    """The recording's own timing, but for what the arguments say."""
    given = {"timeout_ns": _ns(args.timeout_ms), "window_ns": _ns(args.window_ms)}
    fixed = {name: value for name, value in given.items() if value is not None}
    return {m: replace(t, **fixed) for m, t in timing.items()}


def _described(found: Any, stream: Any) -> str:
    parts = []
    for modality, timing in stream.collector.sensors.items():
        period = found.sensors[modality].period_ns
        rate = f"{1e9 / period:.3g} Hz" if period else "no rate"
        parts.append(f"{modality} {rate}, lost after {timing.timeout_ns / 1e6:.0f} ms")
    return f"{'; '.join(parts)}; deadline {stream.collector.deadline_ns / 1e6:.0f} ms"


def _warn(playback: Any) -> None:
    """Say what was made up for, by sensor."""
    for modality in playback.topics.values():
        if bad := playback.counters[f"malformed_{modality}"]:
            warn(f"{bad} messages of {modality} could not be decoded")
        if count := playback.stamps.counters[f"unstamped_{modality}"]:
            line = f"{count} messages of {modality} have no stamp (0)"
            warn(f"{line}: took the time they were recorded at")
        if count := playback.stamps.counters[f"other_clock_{modality}"]:
            line = playback.stamps.notes.get(modality, f"{modality}: stamps are of another clock")
            warn(f"{count} messages of {line}")
    for line in playback.calibration.unaligned.values():
        say(f"warning: {line}", style="yellow")
    for concern, line in playback.calibration.problems.items():
        warn(f"{concern}: {line}")
    if playback.skipped_ns:
        seconds = playback.skipped_ns / 1e9
        line = f"nothing was recorded for {seconds:.0f} s more than the outputs show"
        warn(f"{line}: long gaps are cut short")


def _topics(given: list[str]) -> dict[Modality, str]:
    topics: dict[Modality, str] = {}
    for entry in given:
        name, equals, topic = entry.partition("=")
        if not equals or not topic:
            raise ConfigError(f"'{entry}' is not SENSOR=TOPIC", where="--topic")
        topics[as_modality(name)] = topic
    return topics


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
    from perception.files.writing import write_image
    from perception.frame import Frame
    from perception.viz.overlay import draw_result

    write_image(path, draw_result(manifest, Frame(output.samples), output.result))

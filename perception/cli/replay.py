"""`anysense replay`: a bundle on a bag, as it would have run live."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import engine_choices, give_json, output_folder
from perception.cli.console import say, warn
from perception.cli.hints import hints_of
from perception.cli.parsing import Commands, add_command
from perception.cli.replay_arguments import (
    add_arguments,
    faults_of,
    health_of,
    ns_of,
    policy_of,
    sensors_of,
    timing_of,
)
from perception.errors import DataError
from perception.tasks.registry import TASKS, parts_of

if TYPE_CHECKING:
    from perception.bags.playback import Playback

_DEADLINE_NS = 80_000_000


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "replay",
        "run a bundle on an MCAP or rosbag2 recording",
        more="Outputs come as they would have live: late, and in the order of delivery. "
        "status.jsonl has a line for each.",
        example="anysense replay BAG --bundle sim-rgbdtl --out out/replay --overlays",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the bag; writes status.jsonl, and with --overlays pictures."""
    playback = opened(args)
    pipeline = playback.stream.pipeline
    out = output_folder(args.out)
    tasks = pipeline.manifest.tasks.every
    pipeline.wanted |= parts_of(tasks, lambda task: task.summary is None)
    try:
        states = _play(args, playback, out, pipeline.manifest)
    finally:
        shortcomings(playback)
    counts = ", ".join(f"{n} {s}" for s, n in states.items()) or "none"
    say(f"outputs: {counts}; {out / 'status.jsonl'}")
    give_json(args, {"out": str(out), "outputs": dict(states), **_shortcomings(playback)})
    return 0


def opened(args: argparse.Namespace) -> Playback:
    """A bundle's stream on a bag, as the arguments of the command say; says how it will run.

    Raises:
        ConfigError, InputError: the arguments do not fit the bag or the bundle.
        DataError: the bag cannot be read.
    """
    from perception.adapters.calibration import MessageCalibration
    from perception.bags.playback import Playback
    from perception.bags.survey import survey
    from perception.runtime.bundle import Bundle, find_bundle
    from perception.runtime.core import StreamCore, StreamSettings
    from perception.runtime.drift import DriftPolicy
    from perception.runtime.pipeline import Pipeline

    policy, health = policy_of(args), health_of(args.health)
    bundle = Bundle.open(find_bundle(args.bundle), verify=False)
    manifest = bundle.manifest
    topics, inputs, kinds = sensors_of(args, manifest)
    policy.check(topics, ("--require", "--minimum"))
    faults = faults_of(args.faults, {sensor: kinds[sensor] for sensor in topics})
    hints = hints_of(args, {sensor: kinds[sensor] for sensor in topics})
    choices = {**engine_choices(args), "policy": policy, "health": health, "sensors": inputs}
    pipeline = Pipeline.load(bundle, args.device, **choices)
    found = survey(args.bag, topics)
    given = ns_of(args.tf_max_age_ms)
    oldest = found.transform_age_ns if given is None else given or None
    known = {k: kinds[k] for k in topics}
    known |= {k: kind for k, kind in kinds.items() if k == kind and k not in known.values()}
    views = manifest.inputs.views(inputs)
    calibration = MessageCalibration(
        args.extrinsics,
        args.reference_frame,
        oldest,
        known,
        views,
        args.align != "off",
        manifest.inputs.grounded(inputs),
        args.base_frame,
    )
    calibration.load(args.rig)
    most = round(pipeline.policy.max_age_ms * 1e6)
    timing = found.timing({m: calibration.offset_ns(m) for m in topics}, most)
    deadline = ns_of(args.deadline_ms) or found.deadline_ns(_DEADLINE_NS, most)
    given_times = {"heartbeat_ns": ns_of(args.heartbeat_ms), "jump_ns": ns_of(args.jump_ms)}
    times: dict[str, Any] = {
        name: value for name, value in given_times.items() if value is not None
    }
    times["drift"] = DriftPolicy() if args.drift else None
    stream = StreamCore(pipeline, StreamSettings(timing_of(args, timing), deadline, **times))
    say(_described(found, stream))
    pipeline.base_frame = calibration.base
    more = {"faults": faults, "odometry": args.odometry}
    return Playback(stream, topics, calibration, found, hints, **more)


def _play(args: argparse.Namespace, playback: Any, out: Path, manifest: Any) -> Counter[str]:
    """Write a line for each output, at once and whole, so that an interrupted run can be read."""
    states: Counter[str] = Counter()
    path = out / "status.jsonl"
    with _reporting(path), path.open("wb", buffering=0) as file:
        for number, result in enumerate(playback.run(args.bag)):
            states[result.state] += 1
            fields = {**_fields(manifest, result), "warnings": playback.lines(result)}
            file.write(f"{json.dumps(fields, allow_nan=False)}\n".encode())
            if args.overlays and result.samples:
                _save(out / f"overlay_{number:05d}.png", manifest, result)
    return states


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be written: {reason}", where=str(path)) from error


def _described(found: Any, stream: Any) -> str:
    parts = []
    for sensor, timing in stream.collector.sensors.items():
        period = found.sensors[sensor].period_ns
        rate = f"{1e9 / period:.3g} Hz" if period else "no rate"
        parts.append(f"{sensor} {rate}, lost after {timing.timeout_ns / 1e6:.0f} ms")
    return f"{'; '.join(parts)}; deadline {stream.collector.deadline_ns / 1e6:.0f} ms"


def shortcomings(playback: Playback) -> None:
    """Say what was made up for, by sensor."""
    for sensor in playback.topics.values():
        if bad := playback.counters[f"malformed_{sensor}"]:
            warn(f"{bad} messages of {sensor} could not be decoded")
        if count := playback.stamps.counters[f"unstamped_{sensor}"]:
            line = f"{count} messages of {sensor} have no stamp (0)"
            warn(f"{line}: took the time they were recorded at")
        if count := playback.stamps.counters[f"other_clock_{sensor}"]:
            line = playback.stamps.notes.get(sensor, f"{sensor}: stamps are of another clock")
            warn(f"{count} messages of {line}")
    if playback.odometry and not len(playback.calibration.odometry):
        warn(f"no usable odometry on {playback.odometry}: samples stay where they were measured")
    for line in playback.calibration.unaligned.values():
        say(f"warning: {line}", style="yellow")
    for concern, line in playback.calibration.problems.items():
        warn(f"{concern}: {line}")
    if playback.skipped_ns:
        seconds = playback.skipped_ns / 1e9
        line = f"nothing was recorded for {seconds:.0f} s more than the outputs show"
        warn(f"{line}: long gaps are cut short")


def _shortcomings(playback: Any) -> dict[str, Any]:
    """What was made up for, as plain values."""
    return {
        "counters": {**playback.counters, **playback.stamps.counters},
        "unaligned": list(playback.calibration.unaligned.values()),
        "problems": dict(playback.calibration.problems),
        "skipped_s": playback.skipped_ns / 1e9,
    }


def _fields(manifest: Any, result: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"boxes": 0}
    for name, value in result.values.items():
        task, spec = TASKS[name], manifest.tasks.every[name]
        fields |= (task.summary or task.to_dict)(value, spec)
    return {
        "stamp_ns": result.output_ns,
        "used": list(result.used),
        "state": result.state,
        "reason": result.reason,
        "health": result.health,
        "ages_ms": {m: age / 1e6 for m, age in result.ages_ns.items()},
        "steps_ms": {k: v for k, v in result.timings.items() if math.isfinite(v)},
        **fields,
    }


def _save(path: Path, manifest: Any, result: Any) -> None:
    from perception.files.writing import write_image
    from perception.frame import Frame
    from perception.viz.overlay import draw_result

    write_image(path, draw_result(manifest, Frame(result.samples), result))

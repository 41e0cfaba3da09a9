"""What `anysense replay` may be told: the parameters of the ROS node that change its outputs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import add_engine_arguments
from perception.cli.hints import OF_MESSAGES, add_hints
from perception.cli.parsing import Real, Whole, real, whole
from perception.errors import ConfigError, meant, names_hint
from perception.frame import KINDS, Kind, check_name
from perception.runtime.arrival import SensorTiming
from perception.runtime.health import HealthConfig
from perception.runtime.manifest import BundleManifest
from perception.runtime.policy import Policy
from perception.runtime.wiring import match_inputs

if TYPE_CHECKING:
    from perception.corruptions import FaultSchedule

_MOST_MS = 1e9
_LEAST_MS = 1e-3  # a time that must not be nothing
_TIMES = {
    "deadline": "longest wait for other sensors (default: as late as they are delivered, at least 80)",
    "timeout": "silent for longer, a sensor is lost (default: three of its periods, at least 500)",
    "window": "samples of one time lie no further apart (default: by the recording's rates, 25 to 200)",
    "max-age": "oldest sample of a slower sensor that is used (default: 200)",
    "hold": "without usable sensors, repeat the last output (default: 500)",
    "heartbeat": "period of outputs while no sensor speaks (default: 200)",
    "jump": "a stamp further back than this is a clock set back (default: 1000)",
    "tf-max-age": "oldest transform of /tf that is used; 0 = any (default: three periods of the slowest "
    "sensor, at least 2000)",
}
_MOST_SENSORS = 1000
_MAY_BE_ZERO = ("window", "hold", "tf-max-age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("bag", type=Path, help="bag folder or .mcap file")
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    _repeated(
        parser, "--topic", "SENSOR=TOPIC", "a sensor's, as rgb=/camera/image_raw (/sensors/...)"
    )
    _repeated(
        parser,
        "--input",
        "SENSOR=INPUT",
        "the bundle's input that a sensor is for (default: that of its name, else the only one of its kind)",
    )
    parser.add_argument("--rig", default="", metavar="FILE", help="calibration, see docs/data.md")
    parser.add_argument(
        "--extrinsics",
        default="auto",
        choices=("auto", "tf", "file"),
        help="where the LiDAR's place comes from; auto takes the rig file's, then TF's",
    )
    parser.add_argument(
        "--reference-frame",
        default="",
        metavar="NAME",
        help="optical frame of the reference camera (default: the first camera's)",
    )
    parser.add_argument(
        "--base-frame",
        default="",
        metavar="NAME",
        help="the vehicle's, for bundles that see the ground from above (default: the rig file's base, or "
        "base_link)",
    )
    parser.add_argument(
        "--odometry",
        default="",
        metavar="TOPIC",
        help="how the vehicle moves, by which such bundles bring samples to the time of the output",
    )
    add_hints(parser, OF_MESSAGES)
    for name, text in _TIMES.items():
        least = 0 if name in _MAY_BE_ZERO else _LEAST_MS
        parser.add_argument(f"--{name}-ms", type=real(least, _MOST_MS), help=text)
    _repeated(parser, "--offset-ms", "SENSOR=MS", "added to a sensor's stamps, beside the rig's")
    _repeated(parser, "--require", "SENSOR", "without this sensor there is no output")
    parser.add_argument(
        "--minimum",
        type=whole(1, _MOST_SENSORS),
        default=1,
        metavar="N",
        help="least number of sensors for an output",
    )
    parser.add_argument(
        "--derating",
        type=real(0, 1, least_too=False),
        default=1.0,
        metavar="F",
        help="factor on uncalibrated confidence for each missing sensor",
    )
    parser.add_argument(
        "--novelty-derating",
        type=real(0, 10),
        default=1.0,
        metavar="P",
        help="power with which confidence falls with novelty, far from training; 0: it does not",
    )
    names = ", ".join(f.name for f in fields(HealthConfig))
    _repeated(parser, "--health", "NAME=VALUE", f"a threshold of the content checks: {names}")
    parser.add_argument(
        "--faults",
        metavar="FILE",
        help="a schedule of faults of the sensors, see docs/corruptions.md",
    )
    parser.add_argument(
        "--drift",
        action="store_true",
        help="watch whether sensors fit the rig, see docs/runtime.md; those that do not are told",
    )
    parser.add_argument("--overlays", action="store_true", help="write a picture of every output")
    add_engine_arguments(parser)


def _repeated(parser: argparse.ArgumentParser, name: str, value: str, text: str) -> None:
    parser.add_argument(name, action="append", default=[], metavar=value, help=text)


def ns_of(milliseconds: float | None) -> int | None:
    """Nanoseconds; None stays None."""
    return None if milliseconds is None else round(milliseconds * 1e6)


def sensors_of(
    args: argparse.Namespace, manifest: BundleManifest
) -> tuple[dict[str, str], dict[str, str], dict[str, Kind]]:
    """`--topic` and `--input`, of the sensors of the recording.

    Returns:
        By sensor: topics, from the bag where none is given; the bundle's inputs, see `match_inputs`;
        and kinds, of sensors that are not there, too.

    Raises:
        ConfigError, InputError: one is no pair, a sensor, topic or input is given twice, there is no
            such input, or none for a sensor.
        DataError: the bag cannot be read, or lacks a topic.
    """
    from perception.bags.files import sensor_topics

    inputs = manifest.inputs.kinds
    topics, chosen = (
        {check_name(name, option): value for name, value in _pairs(given, option, shape)}
        for option, given, shape in (
            ("--topic", args.topic, "SENSOR=TOPIC"),
            ("--input", args.input, "SENSOR=INPUT"),
        )
    )
    for name, topic in topics.items():
        other = next(n for n, known in topics.items() if known == topic)
        if other != name:
            raise ConfigError(f"{topic} is given for {other} and {name}", where="--topic")
    matched = match_inputs({}, inputs, chosen)
    kinds: dict[str, Kind] = {k: k for k in KINDS}
    kinds |= {sensor: inputs[name] for sensor, name in matched.items()}
    takes = f"bundle {manifest.name} takes {', '.join(inputs)}"

    def refuse(names: Iterable[str]) -> None:
        for name in names:
            raise ConfigError(f"{takes}, not {name}", where="--topic", hint=f"--input {name}=INPUT")

    refuse(topics.keys() - kinds.keys())
    found = sensor_topics(args.bag, topics, kinds)
    matched = match_inputs({s: kinds[s] for s in found}, inputs, chosen)
    refuse(n for n in topics.keys() - matched.keys() if kinds[n] in inputs.values())
    there = {s: t for s, t in found.items() if s in matched}
    if not there:
        raise ConfigError(f"{takes}, the bag has none of them", where=str(args.bag))
    return there, matched, kinds


def policy_of(args: argparse.Namespace) -> Policy:
    """`--require`, `--minimum`, `--max-age-ms`, `--hold-ms`, `--derating` and `--novelty-derating`.

    Raises:
        ConfigError, InputError: a value makes no sense.
    """
    given = {"max_age_ms": args.max_age_ms, "hold_ms": args.hold_ms}
    chosen = {name: value for name, value in given.items() if value is not None}
    chosen |= {"derating": args.derating, "novelty_derating": args.novelty_derating}
    return Policy(tuple(args.require), args.minimum, **chosen)


def health_of(given: Iterable[str]) -> HealthConfig:
    """`--health`.

    Raises:
        ConfigError: an unknown threshold, or one that is no number.
    """
    kinds = {f.name: _threshold(f.default) for f in fields(HealthConfig)}
    values: dict[str, Any] = {}
    for name, text in _pairs(given, "--health", "NAME=VALUE"):
        if name not in kinds:
            raise ConfigError(
                f"'{name}' is unknown", where="--health", hint=names_hint(name, kinds)
            )
        values[name] = _number(text, kinds[name], f"--health {name}")
    return HealthConfig(**values)


def faults_of(path: str | None, kinds: Mapping[str, Kind]) -> FaultSchedule | None:
    """`--faults`, for sensors of these kinds.

    Raises:
        ConfigError: the file is no schedule, or has a fault that these sensors cannot have.
    """
    from perception.corruptions import FaultSchedule

    if path is None:
        return None
    return FaultSchedule.read(path, lambda event: event.check(kinds))


def timing_of(
    args: argparse.Namespace, timing: Mapping[str, SensorTiming]
) -> dict[str, SensorTiming]:
    """The recording's own timing, but for what the arguments say.

    Raises:
        ConfigError, InputError: an offset of no sensor, or that is no number.
    """
    given = {"timeout_ns": ns_of(args.timeout_ms), "window_ns": ns_of(args.window_ms)}
    fixed = {name: value for name, value in given.items() if value is not None}
    found = {m: replace(t, **fixed) for m, t in timing.items()}
    for name, text in _pairs(args.offset_ms, "--offset-ms", "SENSOR=MS"):
        if name not in found:
            what = f"'{name}' is not among {', '.join(found)}"
            raise ConfigError(what, where="--offset-ms", hint=meant(name, found))
        milliseconds = _number(text, real(-_MOST_MS, _MOST_MS), f"--offset-ms {name}")
        old = found[name]
        found[name] = replace(old, offset_ns=old.offset_ns + round(milliseconds * 1e6))
    return found


def _threshold(default: Any) -> Real | Whole:
    most = 65535  # of 16 bit values
    return whole(0, most) if isinstance(default, int) else real(0, most)


def _pairs(given: Iterable[str], option: str, shape: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in given:
        name, equals, value = entry.partition("=")
        if not equals or not value:
            raise ConfigError(f"'{entry}' is not {shape}", where=option)
        if name in dict(found):
            raise ConfigError(f"'{name}' is given twice", where=option)
        found.append((name, value))
    return found


def _number(text: str, kind: Real | Whole, where: str) -> Any:
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error), where=where) from error

"""What may be said of raw data on the command line: `Hints`, by kind of sensor and by sensor."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from perception.cli.parsing import positive, real, whole
from perception.errors import ConfigError, meant, names_hint
from perception.frame import KINDS, Kind
from perception.sensors.kind import Hints, SensorKind
from perception.sensors.registry import kind_of


class _Option(NamedTuple):
    word: str
    type: Callable[[str], Any]
    metavar: str | None
    text: str


_OPTIONS = {
    "scale": _Option("scale", positive(), None, "metres per step of integer {}; floats are metres"),
    "columns": _Option("columns", whole(3, 16), "N", "float32 a point of .bin (4; .pcd.bin 5)"),
    "least_range_m": _Option(
        "least-range", real(0), "M", "nearer than this, in metres, is no return"
    ),
    "unit": _Option("unit", str, None, "what the values of {} mean, where they do not say it"),
}
OF_FILES = tuple(_OPTIONS)
OF_MESSAGES = ("unit", "least_range_m")


def add_hints(parser: argparse.ArgumentParser, wanted: Iterable[str]) -> None:
    """Register `--<kind>-<hint>` of our kinds, and `--hint` for one sensor of any kind."""
    for own in map(kind_of, KINDS):
        for name in (n for n in wanted if n in own.hints):
            option = _OPTIONS[name]
            parser.add_argument(
                f"--{own.name}-{option.word}",
                type=option.type,
                metavar=option.metavar,
                choices=own.units if name == "unit" else None,
                help=option.text.format(own.name),
            )
    parser.add_argument(
        "--hint",
        action="append",
        default=[],
        metavar="SENSOR.NAME=VALUE",
        help=f"the same of one sensor of any kind; NAME is {', '.join(wanted)}; any number",
    )


def hints_of(args: argparse.Namespace, kinds: Mapping[str, Kind]) -> dict[str, Hints]:
    """By sensor, what the arguments say of it.

    Args:
        args: with those of `add_hints`.
        kinds: by sensor.

    Raises:
        ConfigError: `--hint` names no sensor, or what its kind does not take.
    """
    own: dict[str, dict[str, Any]] = {sensor: {} for sensor in kinds}
    for entry in args.hint:
        sensor, name, text = _parts(entry)
        if sensor not in kinds:
            there = ", ".join(kinds)
            what = f"'{sensor}' is not among {there}"
            raise ConfigError(what, where="--hint", hint=meant(sensor, kinds))
        own[sensor][name] = _value(kind_of(kinds[sensor]), name, text)
    return {sensor: Hints(**{**_of_kind(args, kinds[sensor]), **own[sensor]}) for sensor in kinds}


def _of_kind(args: argparse.Namespace, kind: Kind) -> dict[str, Any]:
    given = {
        name: getattr(args, f"{kind}_{_OPTIONS[name].word.replace('-', '_')}", None)
        for name in kind_of(kind).hints
        if name in _OPTIONS
    }
    return {name: value for name, value in given.items() if value is not None}


def _parts(entry: str) -> tuple[str, str, str]:
    place, equals, text = entry.partition("=")
    sensor, dot, name = place.rpartition(".")
    if not (equals and text and dot and sensor and name):
        raise ConfigError(f"'{entry}' is not SENSOR.NAME=VALUE", where="--hint")
    return sensor, name, text


def _value(kind: SensorKind, name: str, text: str) -> Any:
    taken = [n for n in _OPTIONS if n in kind.hints]
    if name not in taken:
        hint = names_hint(name, taken) if taken else ""
        raise ConfigError(f"{kind.name} takes no '{name}'", where="--hint", hint=hint)
    if name == "unit" and text not in kind.units:
        hint = names_hint(text, kind.units)
        raise ConfigError(f"unit '{text}' is unknown", where="--hint", hint=hint)
    try:
        return _OPTIONS[name].type(text)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise ConfigError(str(error), where=f"--hint {name}") from error

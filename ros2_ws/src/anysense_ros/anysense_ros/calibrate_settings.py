"""The parameters of the node `calibrate`, and what they mean to the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from rclpy.node import Node

from anysense_ros.calibrating import (
    FORMS,
    Board,
    Plate,
    Rules,
    form_of,
    parse_board,
    parse_plate,
)
from anysense_ros.parameters import (
    RELIABILITIES,
    WHICH,
    Spec,
    declare_one,
    given_to,
    refuse_unknown,
    sensor_specs,
    sensors_of,
)
from perception.errors import AnySenseError, ConfigError, names_hint
from perception.geometry.rig import Rig, load_rig
from perception.sensors.names import has_picture, is_kind, kinds

INTRINSICS = ("solve", "camera_info", "rig")
RIG = "rig.yaml"

_OWN = ("kind", "transport", "unit", "least_range_m")
_TAKE = "take."

T = TypeVar("T")

COMMON = (
    Spec("board", "", "as of anysense calibrate: chessboard:9x6:0.05, ...", read_only=True),
    Spec("plate", "", "with a LiDAR: WIDTHxHEIGHT of the board's plate, metres", read_only=True),
    Spec(
        "output",
        "calibration",
        "folder of the views; what is there is gone on from",
        read_only=True,
    ),
    Spec("rig", "", "rig file to write; '' = rig.yaml in output", read_only=True),
    Spec("guess", "", "rig file to start from where there is none to go on from", read_only=True),
    Spec("wanted", [""], "sensors that must see the board in a view; none: all", read_only=True),
    Spec("min_views", 12, "views that are asked for", 4, 1000, read_only=True),
    Spec("model", "auto", "of cameras", read_only=True, choices=("auto", *FORMS)),
    Spec("sync.tolerance_ms", 20.0, "between stamps of one view", 0.0, 1000.0, read_only=True),
    Spec("qos.reliability", "best_effort", "of the inputs", read_only=True, choices=RELIABILITIES),
    Spec("qos.depth", 5, "queue of the inputs", 1, 100, read_only=True),
    Spec("publish_rig", True, "publish camera_info and /tf_static when solved", read_only=True),
    Spec("tf", True, "with publish_rig: /tf_static, too", read_only=True),
    Spec("diagnostics.period_s", 1.0, "of /diagnostics and ~/feedback", 0.05, 60.0, read_only=True),
)


@dataclass(frozen=True)
class Settings:
    """All parameters, checked.

    Attributes:
        values: by name.
        kinds: by sensor, in order, its kind.
        wanted: sensors that must see the board.
        board, plate, rules: what the values mean to the library; no plate without a cloud.
        output: folder of the views.
        rig: file to write.
    """

    values: Mapping[str, Any]
    kinds: Mapping[str, str]
    wanted: tuple[str, ...]
    board: Board
    plate: Plate | None
    rules: Rules
    output: Path
    rig: Path

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def cameras(self) -> list[str]:
        """The sensors that have pictures."""
        return [name for name, kind in self.kinds.items() if has_picture(kind)]

    @property
    def clouds(self) -> list[str]:
        """The other ones."""
        return [name for name, kind in self.kinds.items() if not has_picture(kind)]

    def old_rig(self) -> Rig | None:
        """The rig to go on from, read now.

        Raises:
            CalibrationError: there is a file, and it cannot be read.
        """
        if self.rig.exists():
            return load_rig(self.rig)
        return load_rig(Path(self["guess"])) if self["guess"] else None


def own_specs(name: str, kind: str) -> tuple[Spec, ...]:
    """The parameters of one sensor; of an unknown kind (empty): those of all kinds."""
    shared = [s for s in sensor_specs(name, kind) if s.name.removeprefix(f"{name}.") in _OWN]
    where = "'' = ~/input/" + name
    own = (
        Spec(f"{name}.topic", "", f"of its messages; {where}", read_only=True),
        Spec(f"{name}.info_topic", "", f"{where}/camera_info", read_only=True),
        Spec(
            f"{name}.intrinsics",
            INTRINSICS[0],
            "found here, or taken as they are",
            read_only=True,
            choices=INTRINSICS,
        ),
    )
    return (*shared, *own)


def _rule_specs() -> list[Spec]:
    text = "when a view is taken, see calibration.live.choosing.Rules"
    return [
        Spec(f"{_TAKE}{f.name}", f.default, text, 1e-6, 1e6, read_only=True) for f in fields(Rules)
    ]


def declare(node: Node) -> Settings:
    """Declare all parameters on a node and check what it was started with.

    Raises:
        AnySenseError: a parameter is unknown, or its value makes no sense.
    """
    given = given_to(node)
    if all(spec.name in given for spec in WHICH):
        raise ConfigError("is given beside inputs", where="sensors", hint="one of the two says all")
    for spec in WHICH:
        declare_one(node, spec)
    names = sensors_of(*(node.get_parameter(spec.name).value for spec in WHICH))
    specs = [*WHICH, *COMMON, *_rule_specs(), *(s for n in names for s in own_specs(n, ""))]
    own = {spec.name.partition(".")[2] for spec in own_specs("x", "")}
    refuse_unknown(given, [spec.name for spec in specs], names, own)
    for spec in specs:
        declare_one(node, spec)
    values = {spec.name: node.get_parameter(spec.name).value for spec in specs}
    for spec in specs:
        if spec.choices and values[spec.name] not in spec.choices:
            hint = names_hint(values[spec.name], list(filter(None, spec.choices)))
            raise ConfigError(f"'{values[spec.name]}' is unknown", where=spec.name, hint=hint)
    return check(values, names)


def check(values: Mapping[str, Any], names: tuple[str, ...]) -> Settings:
    """Turn parameter values into settings.

    Raises:
        AnySenseError: a value makes no sense.
    """
    found = {name: _kind(name, values[f"{name}.kind"]) for name in names}
    cameras = [name for name, kind in found.items() if has_picture(kind)]
    if not cameras:
        raise ConfigError("needs at least one camera", where="sensors")
    board = _told("board", parse_board, values["board"])
    plate = None
    if len(cameras) < len(found):
        plate = _told("plate", parse_plate, values["plate"])
        _told("plate", plate.check, board)
    elif values["plate"]:
        raise ConfigError("goes with a LiDAR, and there is none", where="plate")
    _told("model", lambda name: name == "auto" or form_of(name), values["model"])
    asked = [name for name in values["wanted"] if name]
    for name in asked:
        if name not in found:
            hint = names_hint(name, list(found))
            raise ConfigError(f"there is no sensor '{name}'", where="wanted", hint=hint)
    if asked and not any(name in cameras for name in asked):
        raise ConfigError("needs at least one camera", where="wanted")
    order = [*cameras, *(name for name in found if name not in cameras)]
    wanted = tuple(name for name in order if name in (asked or found))
    rules = {f.name: values[f"{_TAKE}{f.name}"] for f in fields(Rules)}
    output = Path(values["output"]).expanduser()
    rig = Path(values["rig"]).expanduser() if values["rig"] else output / RIG
    settings = Settings(values, found, wanted, board, plate, Rules(**rules), output, rig)
    _check_rig(settings)
    return settings


def _check_rig(settings: Settings) -> None:
    old = settings.old_rig()
    for name in settings.cameras:
        known = old.sensors.get(name) if old is not None else None
        if settings[f"{name}.intrinsics"] == "rig" and (known is None or known.camera is None):
            hint = "guess: a rig file that has them, or intrinsics: solve"
            raise ConfigError("no rig has its intrinsics", where=f"{name}.intrinsics", hint=hint)


def _kind(name: str, told: str) -> str:
    if is_kind(name):
        if told not in ("", name):
            raise ConfigError(f"it is {name}", where=f"{name}.kind")
        return name
    if not told:
        hint = f"{name}.kind: {names_hint('', kinds())}"
        raise ConfigError("says no kind", where=name, hint=hint)
    return told


def _told(where: str, parse: Callable[[Any], T], value: Any) -> T:
    """What a value means, errors naming the parameter."""
    try:
        return parse(value)
    except AnySenseError as error:
        raise type(error)(error.message, where=f"parameter {where}", hint=error.hint) from error

"""`anysense calibrate convert`: calibration files of others to rigs, and back."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from calibration.formats.base import Chosen, Options
from calibration.formats.registry import FORMATS, read_calibration, write_calibration
from perception.cli.arguments import command_line, give_json
from perception.cli.console import note, say, warn
from perception.cli.parsing import Commands, Size, add_command, whole
from perception.errors import ConfigError, names_hint
from perception.frame import check_name
from perception.sensors.names import is_kind, kinds

_SIDE = 2**15


def add_convert(actions: Commands) -> None:
    """Register `calibrate convert`."""
    parser = add_command(
        actions,
        "convert",
        "calibration files of other tools to a rig file, and back",
        more="The format of IN is recognised by what is in it. What OUT's format cannot hold is told.",
        example="anysense calibrate convert camchain.yaml rig.yaml\n"
        "anysense calibrate convert rig.yaml ros/ --to ros\n"
        "anysense calibrate convert robot.urdf rig.yaml --sensor front=rgb@front_optical_frame "
        "--sensor top=lidar@velodyne",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="a file, or a folder: Kalibr's camchain, ROS camera_info or static TF (launch file or "
        "/tf_static as YAML), KITTI's texts, OpenCV's YAML or XML, URDF, Autoware's "
        "sensor_kit_calibration, nuScenes' tables, or a rig",
    )
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="a file; for ros, nuscenes, a raw drive of kitti (.txt: one of the object benchmark) "
        "and more than two cameras of opencv a folder",
    )
    parser.add_argument("--to", choices=list(FORMATS), default="rig", help="format of OUT")
    parser.add_argument(
        "--size",
        type=Size(whole(1, _SIDE)),
        metavar="WIDTHxHEIGHT",
        help="of pictures, for files that do not say it",
    )
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME[=KIND][@FRAME]",
        help="take this sensor, with its kind and its frame in IN; may be given several times (default: all "
        "that names of frames tell of)",
    )
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    """Convert, and say what was lost."""
    options = Options(args.size, chosen_sensors(args.sensor))
    known, found = read_calibration(args.source, options)
    if args.source.resolve() == args.target.resolve():
        raise ConfigError("is what is read; name another file to write", where=str(args.target))
    rig = found.rig
    if args.to == "rig" and not rig.source:
        rig = replace(rig, source=command_line())
    written, lost = write_calibration(rig, args.target, args.to)
    give_json(
        args,
        {
            "from": known.name,
            "to": args.to,
            "files": [str(path) for path in written],
            "base": rig.base,
            "reference": rig.reference,
            "sensors": dict(rig.kinds),
            "lost": lost,
            "remarks": list(found.remarks),
        },
    )
    say(f"{args.source} is {known.title}: {', '.join(f'{n} ({k})' for n, k in rig.kinds.items())}")
    for line in found.remarks:
        note(line)
    for line in lost:
        warn(line)
    for path in written:
        say(f"wrote {path}")
    return 0


def chosen_sensors(given: list[str]) -> dict[str, Chosen]:
    """Sensors of `NAME[=KIND][@FRAME]`.

    Raises:
        AnySenseError: a name or kind that cannot be.
    """
    found: dict[str, Chosen] = {}
    for text in given:
        head, _, frame = text.partition("@")
        name, equals, kind = head.partition("=")
        check_name(name, "--sensor")
        if (equals or kind) and not is_kind(kind):
            raise ConfigError(
                f"no kind '{kind[:40]}'", where="--sensor", hint=names_hint(kind, kinds())
            )
        if is_kind(name) and kind not in ("", name):
            raise ConfigError(f"{name} is a kind of its own", where="--sensor")
        if name in found:
            raise ConfigError(f"{name} is given twice", where="--sensor")
        found[name] = Chosen(kind or (name if is_kind(name) else ""), frame)
    return found

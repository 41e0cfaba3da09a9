"""`anysense data make-sim`: simulated recordings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import give_json
from perception.cli.console import say
from perception.cli.parsing import MAX_SEED, Commands, Size, add_command, real, whole
from perception.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perception.data.folder import FolderRecording

SURROUND = "surround"
_OF_STREETS = ("sensors", "yaw", "labels_of")
_OF_SURROUND = ("town_frames", "weather", "speed", "scan", "workers", "bag")
_SIZES = {"drive": (320, 240), "scenes": (320, 240), SURROUND: (320, 192)}


def add_action(actions: Commands) -> None:
    """Register the action."""
    parser = add_command(
        actions,
        "make-sim",
        "simulate a recording",
        more="With all four sensors, or of four cameras and a LiDAR that look to all sides.",
        example="""
            anysense data make-sim --out recordings/sim --kind scenes --frames 200
            anysense data make-sim --out recordings/round --kind surround --frames 100 --weather rain
        """,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--kind",
        choices=("drive", "scenes", SURROUND),
        default="drive",
        help="one drive, single places, or short drives through towns, seen to all sides",
    )
    parser.add_argument("--frames", type=whole(1), default=90, help="how many")
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=7, help="another one, another world"
    )
    parser.add_argument(
        "--size",
        type=Size(whole(32, 8192)),
        help="WIDTHxHEIGHT in pixels (default: 320x240; of surround 320x192)",
    )
    parser.add_argument(
        "--lidar",
        default="mixed",
        help="vlp16, hdl32, os1-64 or mixed; for surround also mid40, which looks ahead only",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="a fifth of the bytes: JPEG, and steps as coarse as each sensor's noise",
    )
    streets = parser.add_argument_group("drive and scenes")
    streets.add_argument(
        "--sensors",
        metavar="NAME=KIND,...",
        help="which, e.g. front=rgb,rear=rgb,lidar (default: one of each kind)",
    )
    streets.add_argument(
        "--yaw",
        metavar="NAME=DEG,...",
        help="where sensors look, to the left (default: ahead; 180 for one called rear)",
    )
    streets.add_argument("--labels-of", metavar="NAME", help="the camera that is labeled")
    _add_surround(parser.add_argument_group(SURROUND))
    parser.set_defaults(run=run)


def _add_surround(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--town-frames", type=whole(1, 100), help="frames in each town (default: 10, one second)"
    )
    group.add_argument(
        "--weather", metavar="NAME", help="clear, night, rain, fog or mixed (default: mixed)"
    )
    group.add_argument(
        "--speed",
        type=real(0, 15),
        help="of the vehicle at first, m/s, less where it turns (default: any, or it stands)",
    )
    group.add_argument(
        "--scan",
        metavar="NAME",
        help="rolling (each point at its own time), compensated (brought to the stamp by the "
        "vehicle's motion) or still (default: rolling)",
    )
    group.add_argument(
        "--workers",
        type=whole(1, 256),
        help="processes; what is written is the same (default: 1)",
    )
    group.add_argument(
        "--bag",
        type=Path,
        metavar="DIR",
        help="also write an MCAP bag: pictures, camera_info, clouds with ring and time, TF, odometry",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate and write."""
    foreign = _OF_STREETS if args.kind == SURROUND else _OF_SURROUND
    for name in foreign:
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            hint = "--kind drive or scenes" if args.kind == SURROUND else f"--kind {SURROUND}"
            raise ConfigError(f"is no option of {args.kind}", where=option, hint=hint)
    size = (args.size or _SIZES[args.kind])[::-1]
    (_drives if args.kind == SURROUND else _streets)(args, size)
    say(f"wrote {args.frames} simulated frames to {args.out}")
    given = {"out": str(args.out), "frames": args.frames, "seed": args.seed, "kind": args.kind}
    if args.bag is not None:
        given["bag"] = str(args.bag)
    give_json(args, given)
    return 0


def _streets(args: argparse.Namespace, size: tuple[int, int]) -> None:
    from perception.sim.generate import make_recording

    make_recording(
        args.out,
        args.kind,
        args.frames,
        args.seed,
        lidar=args.lidar,
        size=size,
        labels_of=args.labels_of or "",
        compact=args.compact,
        yaw_deg=_degrees(args.yaw) if args.yaw else None,
        sensors=_named(args.sensors, "--sensors") if args.sensors else None,
    )


def _drives(args: argparse.Namespace, size: tuple[int, int]) -> None:
    from perception.errors import DataError
    from perception.extras import require
    from perception.sim.drives import Drives, make_drives

    if args.bag is not None:
        require("--bag", "rosbags")
        if args.bag.exists():
            raise DataError("exists already", where=str(args.bag), hint="choose another --bag")
    chosen = ("town_frames", "weather", "speed", "scan")
    given = {name: value for name in chosen if (value := getattr(args, name)) is not None}
    drives = Drives(
        args.frames, args.seed, size=size, lidar=args.lidar, compact=args.compact, **given
    )
    make_drives(args.out, drives, workers=args.workers or 1)
    if args.bag is not None:
        _write_bag(args.out, args.bag)


def _write_bag(root: Path, bag: Path) -> None:
    from perception.bags.files import write_bag
    from perception.bags.vehicle import vehicle_messages
    from perception.data.folder import FolderRecording

    recording = FolderRecording(root)
    count = write_bag(
        bag, vehicle_messages(recording, lambda i, name: _columns(recording, i, name))
    )
    say(f"wrote {count} messages to {bag}")


def _columns(recording: FolderRecording, index: int, sensor: str) -> Mapping[str, NDArray[Any]]:
    """The ring of a frame's points, which samples do not carry."""
    from perception.files.arrays import parse_npz
    from perception.files.text import read_bytes
    from perception.sensors.registry import kind_of

    path = recording.files[sensor].find(recording.ids[index])
    if kind_of(recording.info.sensors[sensor]).layout != "points" or path is None:
        return {}
    return {"ring": parse_npz(read_bytes(path), ("points",), where=str(path))["points"][:, 4]}


def _named(text: str, option: str) -> dict[str, str]:
    """`NAME=VALUE,...`; a name alone is its value, too.

    Raises:
        ConfigError: a name is given twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name in found:
            raise ConfigError(f"'{name}' is given twice", where=option)
        found[name] = value or name
    return found


def _degrees(text: str) -> dict[str, float]:
    try:
        return {n: real(-360, 360)(value) for n, value in _named(text, "--yaw").items()}
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error), where="--yaw") from error

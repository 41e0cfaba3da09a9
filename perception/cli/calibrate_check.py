"""`anysense calibrate check`: whether a rig fits a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from calibration.check import TOLERANCE_DEG, RigCheck, check_rig
from calibration.formats.registry import read_calibration
from perception.cli.arguments import add_data_arguments, give_json, open_data, thin_out
from perception.cli.calibrate_verdicts import UNTRUSTED
from perception.cli.console import Table, note, say, step_progress
from perception.cli.parsing import Commands, add_command, real

_MOST_FRAMES = 20


def add_check(actions: Commands) -> None:
    """Register `calibrate check`."""
    parser = add_command(
        actions,
        "check",
        "whether a rig fits a recording, without a board",
        more="Edges of clouds are compared with edges of pictures, at the rig's poses and at poses turned by "
        "small angles. Exit status 3: a sensor is suspect.",
        example="anysense calibrate check rig.yaml --data folder:DIR --json check.json",
    )
    parser.add_argument(
        "rig", type=Path, metavar="RIG", help="a rig file, or any that calibrate convert reads"
    )
    add_data_arguments(parser, required=True)
    parser.add_argument(
        "--tolerance",
        type=real(0.05, 5.0),
        default=TOLERANCE_DEG,
        metavar="DEG",
        help="by how many degrees it may be off; about a camera's axis twice as many",
    )
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check, and say what is suspect."""
    _, read = read_calibration(args.rig)
    recording = open_data(args)
    if args.limit is None:
        thin_out(recording, _MOST_FRAMES, "--limit")
    frames = (recording.frame(index) for index in range(len(recording)))
    with step_progress() as progress:
        found = check_rig(read.rig, frames, args.tolerance, progress)
    give_json(
        args,
        {
            "rig": str(args.rig),
            "data": args.data,
            "frames": len(recording),
            "tolerance_deg": args.tolerance,
            "verdict": found.verdict,
            "sensors": {
                name: {"verdict": verdict, "reason": reason}
                for name, (verdict, reason) in found.sensors.items()
            },
            "pairs": [pair.to_dict() for pair in found.pairs],
        },
    )
    _show(found)
    return UNTRUSTED if found.verdict == "suspect" else 0


def _show(found: RigCheck) -> None:
    table = Table("camera", "LiDAR", "edges", "score", "best", "pitch", "yaw", "roll", "verdict")
    for pair in found.pairs:
        own = pair.found
        turned = [
            f"{value:+.2f} +- {sigma:.2f}"
            for value, sigma in zip(own.offset_deg, own.sigma_deg, strict=True)
        ]
        scores = f"{own.score:.2f}", f"{own.best:.2f}"
        table.add_row(pair.camera, pair.cloud, own.edges, *scores, *turned, pair.verdict)
    table.show()
    for name, (verdict, reason) in found.sensors.items():
        (say if verdict == "ok" else note)(f"{name}: {verdict}; {reason}")

"""`anysense calibrate depth`: scale and bias of a depth camera, from planes of a board."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.cli.arguments import command_line, give_json
from perception.cli.calibrate_sources import camera_file
from perception.cli.calibrate_values import add_values_arguments, check_values_arguments
from perception.cli.calibrate_verdicts import UNTRUSTED, tell_left_out
from perception.cli.console import Table, say, step_progress, warn
from perception.cli.parsing import Commands, add_command, positive, whole
from perception.extras import require
from perception.sensors.names import OURS

if TYPE_CHECKING:
    from calibration.values.depth import DepthFit

KIND = OURS[1]
_MOST_DEGREE = 3
_EXAMPLE = """\
anysense calibrate depth infrared/ depth/ --board chessboard:9x6:0.04 --camera-info camera.yaml \
--out values.yaml --report depth.html"""


def add_depth(actions: Commands) -> None:
    """Register the command."""
    parser = add_command(
        actions,
        KIND,
        "scale and bias of a depth camera, from a board at several distances",
        more="Pictures and depth pictures have the same pixels, and of one pose the same name. "
        f"Exit status {UNTRUSTED}: the answer is not to be trusted, and no file is written.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "folder", type=Path, metavar="PICTURES", help="the board: PNG, JPEG or TIFF"
    )
    parser.add_argument(
        "depths",
        type=Path,
        metavar="DEPTHS",
        help="depth: PNG or TIFF of 16 bit millimetres, or TIFF or .npy of float metres",
    )
    parser.add_argument(
        "--board",
        required=True,
        help="as of anysense calibrate intrinsics: chessboard:COLSxROWS:SQUARE_M (inner corners), ...",
    )
    parser.add_argument(
        "--camera-info",
        type=Path,
        required=True,
        metavar="FILE",
        help="intrinsics of the pictures: a ROS camera_info YAML, or a rig",
    )
    parser.add_argument(
        "--camera", default="", help="which sensor of that rig (default: its only camera)"
    )
    parser.add_argument(
        "--depth-scale",
        type=positive(100.0),
        metavar="M",
        help="metres per step of integers (default: 0.001 for 16 bit)",
    )
    parser.add_argument(
        "--degree",
        type=whole(1, _MOST_DEGREE),
        default=1,
        help="of the polynomial: 1 is scale and bias, 2 and 3 go along with distance",
    )
    add_values_arguments(
        parser, KIND, "a page with what depth is off by over distance, and what to record again"
    )
    parser.set_defaults(run=run_depth)


def run_depth(args: argparse.Namespace) -> int:
    """Calibrate, write the values, and say what speaks for them and against them."""
    require("calibration", "scipy")
    from calibration.boards import parse_board
    from calibration.detection import detect_folder
    from calibration.values.depth import calibrate_depth
    from calibration.values.files import Entry, Metres, SensorValues, write_values
    from calibration.values.planes import plane_views

    board = parse_board(args.board)
    check_values_arguments(args)
    camera = camera_file(args.camera_info, args.camera)
    with step_progress() as progress:
        detections = detect_folder(args.folder, board, progress)
        views, left_out = plane_views(
            detections, args.depths, camera, board, args.depth_scale, progress
        )
        found = calibrate_depth(views, left_out, args.degree)
    if found.trusted:
        own = SensorValues(
            kind=KIND,
            size=(camera.width, camera.height),
            metres=Metres(
                coefficients=tuple(found.coefficients.tolist()),
                sigma=tuple(found.sigma.tolist()),
                range_m=found.range_m,
                held_out_rms_m=found.held_out_m[found.degree],
            ),
            date=datetime.date.today().isoformat(),
            source=command_line(),
        )
        write_values(args.out, {args.sensor: Entry(own)})
    written = str(args.out) if found.trusted else None
    give_json(args, {"sensor": args.sensor, "values": written, **found.to_dict()})
    if args.report is not None:
        from perception.viz.depth_page import write_depth_page

        write_depth_page(found, args.report, sensor=args.sensor, command=command_line())
        say(f"wrote {args.report}")
    _show(found)
    for doubt in found.doubts:
        warn(doubt)
    if not found.trusted:
        warn(f"not to be trusted: {args.out} is not written")
        return UNTRUSTED
    say(f"wrote {args.out}")
    return 0


def _show(found: DepthFit) -> None:
    table = Table("", "value", "sigma", title="true depth by seen depth")
    names = ("bias, m", "scale", "square, 1/m", "cube, 1/m²")
    for name, value, sigma in zip(names, found.coefficients, found.sigma, strict=False):
        table.add_row(name, f"{value:.6g}", f"{sigma:.2g}")
    table.show()
    before = float(np.sqrt(np.mean(found.off_before**2)))
    held = found.held_out_m[found.degree]
    say(
        f"planes are {1000 * before:.1f} mm off, {1000 * held:.1f} mm after the correction where they were "
        f"not fitted; {len(found.views)} poses from {found.range_m[0]:.2f} to {found.range_m[1]:.2f} m"
    )
    if not found.needed:
        say("depth is right as it is: the correction is within two sigma of none")
    tell_left_out(found.left_out, found.remarks)

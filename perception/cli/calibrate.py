"""`anysense calibrate`: from recordings of a board to a rig file."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import command_line, give_json, output_file
from perception.cli.calibrate_apply import add_apply
from perception.cli.calibrate_check import add_check
from perception.cli.calibrate_convert import add_convert
from perception.cli.calibrate_depth import add_depth
from perception.cli.calibrate_extrinsics import add_extrinsics
from perception.cli.calibrate_register import add_register
from perception.cli.calibrate_thermal import add_thermal
from perception.cli.calibrate_time import add_time_offset
from perception.cli.calibrate_verdicts import tell_left_out
from perception.cli.console import Table, say, step_progress
from perception.cli.parsing import Commands, add_command, add_group
from perception.errors import ConfigError, names_hint
from perception.extras import require
from perception.files.writing import write_yaml
from perception.geometry.rig import Rig, load_rig
from perception.sensors.names import OURS, is_kind, kinds

if TYPE_CHECKING:
    from calibration.detection import Gray
    from calibration.intrinsics import Intrinsics

_FIRST = OURS[0]


def add_parser(commands: Commands) -> None:
    """Register the command."""
    actions = add_group(
        commands,
        "calibrate",
        "find the calibration of cameras, LiDARs and their values, check and convert calibrations",
        example="anysense calibrate intrinsics pictures/ --board chessboard:9x6:0.05 --out rig.yaml",
    )
    parser = add_command(
        actions,
        "intrinsics",
        "a camera's intrinsics from pictures of a board",
        more="For colour and thermal cameras: heated or reflective boards of either contrast, 8 or 16 bit.",
        example="anysense calibrate intrinsics pictures/ --board chessboard:9x6:0.05 --out rig.yaml\n"
        "anysense calibrate intrinsics hot/ --board circles:4x11:0.04 --sensor thermal --out rig.yaml",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="pictures: PNG, JPEG or TIFF")
    parser.add_argument(
        "--board",
        required=True,
        help="chessboard:COLSxROWS:SQUARE_M (inner corners), circles:COLSxROWS:SPACING_M (asymmetric), "
        "charuco:COLSxROWS:SQUARE_M:MARKER_M[:DICTIONARY] (squares) or "
        "aprilgrid:COLSxROWS:TAG_M:GAP[:FAMILY] (tags, the gap as a share of one)",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="pinhole, plumb_bob, rational, equidistant, omni, or auto: the simplest of those that predict "
        "views best that were not fitted",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="rig file; in one that exists the sensor is replaced",
    )
    parser.add_argument("--sensor", default=_FIRST, help="name of the sensor in the rig")
    parser.add_argument(
        "--kind", default="", help=f"of the sensor, where its name is none (default: {_FIRST})"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="a page with coverage, residuals, views and what to record again",
    )
    parser.set_defaults(run=run_intrinsics)
    add_check(actions)
    add_convert(actions)
    add_register(actions)
    add_extrinsics(actions)
    add_time_offset(actions)
    add_depth(actions)
    add_thermal(actions)
    add_apply(actions)


def run_intrinsics(args: argparse.Namespace) -> int:
    """Calibrate, write the rig, and say what speaks for it and against it."""
    require("calibration", "scipy")
    from calibration.boards import parse_board
    from calibration.detection import detect_folder, read_gray, stretched
    from calibration.intrinsics import calibrate
    from calibration.parameters import form_of
    from calibration.rigs import with_intrinsics

    board = parse_board(args.board)
    if args.model != "auto":
        form_of(args.model)
    output_file(args.report)
    old = load_rig(args.out) if args.out.exists() else None
    kind = _kind(args, old)
    with step_progress() as progress:
        detections = detect_folder(args.folder, board, progress)
        found = calibrate(detections, board, args.model, progress)
    today = datetime.date.today().isoformat()
    rig = with_intrinsics(old, args.sensor, kind, found, date=today, source=command_line())
    write_yaml(args.out, rig.to_dict())
    give_json(args, {"sensor": args.sensor, "rig": str(args.out), **found.to_dict()})
    if args.report is not None:
        from perception.viz.intrinsics_page import write_intrinsics_page

        def gray(name: str) -> Gray:
            return stretched(read_gray(args.folder / name).astype("float32"))

        write_intrinsics_page(found, args.report, gray, sensor=args.sensor, command=command_line())
        say(f"wrote {args.report}")
    _show(found)
    say(f"wrote {args.out}")
    return 0


def _kind(args: argparse.Namespace, old: Rig | None) -> str:
    known = (
        "" if old is None else old.sensors[args.sensor].kind if args.sensor in old.sensors else ""
    )
    if is_kind(args.sensor):
        if args.kind not in ("", args.sensor):
            raise ConfigError(f"{args.sensor} is a kind of its own", where="--kind")
        return ""
    kind = str(args.kind or known or _FIRST)
    if not is_kind(kind):
        hint = names_hint(kind, kinds())
        raise ConfigError(f"no kind '{kind}'", where="--kind", hint=hint)
    return kind


def _show(found: Intrinsics) -> None:
    table = Table("parameter", "value", "sigma", title=f"{found.fit.form.name} camera")
    for name, value, sigma in zip(
        found.fit.form.names, found.fit.values, found.fit.sigma, strict=True
    ):
        table.add_row(name, f"{value:.6g}", f"{sigma:.2g}")
    table.show()
    held = ", ".join(f"{name} {value:.3f}" for name, value in found.held_out_px.items())
    say(f"reprojection {found.fit.rms_px:.3f} px; of views that were not fitted: {held} px")
    say(
        f"{len(found.views)} views, {100 * (found.coverage > 0).mean():.0f} % of the picture saw the board"
    )
    tell_left_out(found.left_out, found.remarks)

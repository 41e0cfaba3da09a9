"""`anysense calibrate extrinsics`: from poses of a board to where sensors are, as a rig file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import (
    expect_folder,
    give_json,
    output_file,
)
from perception.cli.calibrate_drawings import (
    Drawing,
    draw_overlays,
    show_cameras,
    show_lidar,
    write_report,
)
from perception.cli.calibrate_sources import (
    Source,
    ended,
    model_of,
    name_and_value,
    named,
    source_of,
    write_rig,
)
from perception.cli.calibrate_targetless import (
    add_targetless,
    refuse_without_targetless,
    run_targetless,
)
from perception.cli.calibrate_together import run_together
from perception.cli.calibrate_verdicts import UNTRUSTED, tell_left_out, tell_left_out_by_sensor
from perception.cli.console import step_progress
from perception.cli.parsing import Commands, add_command
from perception.errors import ConfigError, names_hint
from perception.extras import require
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, load_rig

if TYPE_CHECKING:
    from calibration.boards import Board
    from calibration.plates import Plate

_EXAMPLE = """\
anysense calibrate extrinsics --camera pictures/ --cloud clouds/ --board chessboard:5x7:0.095 \
--plate 0.61x0.85 --camera-info camera.yaml --out rig.yaml
anysense calibrate extrinsics --camera rgb=a/ --camera thermal=b/ --board chessboard:9x6:0.04 \
--out rig.yaml
anysense calibrate extrinsics --camera rgb=a/ --camera thermal=b/ --cloud clouds/ \
--board chessboard:5x7:0.095 --plate 0.61x0.85 --out rig.yaml
anysense calibrate extrinsics --targetless --guess rig0.yaml --data folder:DIR --out rig.yaml"""


def add_extrinsics(actions: Commands) -> None:
    """Register the command."""
    parser = add_command(
        actions,
        "extrinsics",
        "where sensors are, from poses of a board that they all see, or from a guess and scenes without one",
        more="Pictures and clouds of one pose have one name. The board is found in clouds without a guess. "
        f"Exit status {UNTRUSTED}: the answer is not to be trusted, and no rig is written.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="pictures: PNG, JPEG or TIFF; several cameras, and a LiDAR with them, are placed by the first",
    )
    parser.add_argument(
        "--cloud",
        metavar="[NAME=]DIR",
        help="clouds of a LiDAR in its own frame, metres: PCD, .bin, .npy or .npz",
    )
    parser.add_argument(
        "--board",
        help="as of anysense calibrate intrinsics: chessboard:COLSxROWS:SQUARE_M (inner corners), ...",
    )
    parser.add_argument(
        "--plate",
        metavar="WIDTHxHEIGHT",
        help="the plate that the board is on the middle of, metres, along the board's columns first",
    )
    parser.add_argument(
        "--plate-offset",
        metavar="XxY",
        help="by how much the pattern's middle is off the plate's, metres, along the board's columns first, "
        "from its first point on (default: 0x0)",
    )
    parser.add_argument(
        "--camera-info",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="intrinsics: a ROS camera_info YAML or a rig (default: those in --out)",
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help="of a sensor whose name is none",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="rig file; in one that exists the sensors are replaced",
    )
    parser.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="draw each pose with its cloud, before and after, into a folder (of several cameras: one each)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="a page with what each pose is off, pictures, sigma and what to record again",
    )
    add_targetless(parser)
    parser.set_defaults(run=run_extrinsics)


def run_extrinsics(args: argparse.Namespace) -> int:
    """Calibrate, write the rig, and say what speaks for it and against it."""
    require("calibration", "scipy")
    output_file(args.out)
    output_file(args.report)
    if args.overlays is not None:
        expect_folder(args.overlays)
    if args.targetless:
        return run_targetless(args)
    refuse_without_targetless(args)
    for option, value in (("--camera", args.camera), ("--board", args.board)):
        if not value:
            hint = "or --targetless, with a guess"
            raise ConfigError("is missing", where=option, hint=hint)
    from calibration.boards import parse_board
    from calibration.plates import parse_plate

    board = parse_board(args.board)
    old = load_rig(args.out) if args.out.exists() else None
    told = dict(name_and_value(text, "--kind") for text in args.kind)
    cameras = [source_of(text, "--camera", told, old, pictures=True) for text in args.camera]
    names = [source.name for source in cameras]
    if len(set(names)) < len(names):
        raise ConfigError(f"{names} are not different", where="--camera", hint="NAME=DIR")
    infos = dict(named(text, names[0]) for text in args.camera_info)
    if unknown := sorted(set(infos) - set(names)):
        hint = names_hint(unknown[0], names)
        raise ConfigError(f"no camera '{unknown[0]}'", where="--camera-info", hint=hint)
    models = {source.name: model_of(source.name, infos, old) for source in cameras}
    if args.cloud is None:
        if len(cameras) < 2:
            hint = "--cloud DIR, or a second --camera NAME=DIR"
            raise ConfigError("there is nothing to place by the camera", where="--cloud", hint=hint)
        clouds_only = {
            "--plate": args.plate,
            "--plate-offset": args.plate_offset,
            "--overlays": args.overlays,
            "--report": args.report,
        }
        if given := [name for name, value in clouds_only.items() if value is not None]:
            raise ConfigError("goes with --cloud, and there is none", where=given[0])
        return _cameras(args, board, cameras, models, old)
    if args.plate is None:
        hint = "the plate that the board is on: WIDTHxHEIGHT in metres, along the columns first"
        raise ConfigError("is missing", where="--plate", hint=hint)
    cloud = source_of(args.cloud, "--cloud", told, old, pictures=False)
    plate = parse_plate(args.plate, args.plate_offset)
    if len(cameras) > 1:
        return run_together(args, board, plate, cameras, models, cloud, old)
    return _with_cloud(args, board, plate, cameras[0], models[names[0]], cloud, old)


def _with_cloud(
    args: argparse.Namespace,
    board: Board,
    plate: Plate,
    source: Source,
    camera: CameraModel,
    cloud: Source,
    old: Rig | None,
) -> int:
    from calibration.detection import detect_folder
    from calibration.extrinsics import calibrate_lidar
    from calibration.rigs import Placed
    from calibration.scans import cloud_files

    clouds = cloud_files(cloud.path)
    plate.check(board)
    with step_progress() as progress:
        detections = detect_folder(source.path, board, progress)
        found = calibrate_lidar(detections, clouds, camera, board, plate, progress)
    placed = {cloud.name: Placed(found.joint.transform, found.joint.covariance, cloud.kind)}
    rig = write_rig(args, old, source, camera, placed, trusted=found.trusted)
    give_json(args, {"sensor": cloud.name, "camera": source.name, "rig": rig, **found.to_dict()})
    show_lidar(found)
    tell_left_out(found.left_out, found.remarks)
    drawing = Drawing(source, cloud, clouds, camera, plate, found)
    if args.overlays is not None:
        draw_overlays(args.overlays, drawing)
    write_report(args, drawing)
    return ended(args, found.doubts)


def _cameras(
    args: argparse.Namespace,
    board: Board,
    sources: list[Source],
    models: dict[str, CameraModel],
    old: Rig | None,
) -> int:
    from calibration.cameras import calibrate_cameras
    from calibration.detection import detect_folder
    from calibration.rigs import Placed

    with step_progress() as progress:
        detections = {one.name: detect_folder(one.path, board, progress) for one in sources}
        found = calibrate_cameras(detections, models, board)
    first = sources[0]
    kind_of = {one.name: one.kind for one in sources}
    placed = {
        name: Placed(place.transform, place.covariance, kind_of[name], models[name])
        for name, place in found.places.items()
    }
    rig = write_rig(args, old, first, models[first.name], placed, trusted=found.trusted)
    give_json(args, {"camera": first.name, "rig": rig, **found.to_dict()})
    show_cameras(first.name, found.rms_px, found.places)
    tell_left_out_by_sensor(found.left_out)
    return ended(args, found.doubts)

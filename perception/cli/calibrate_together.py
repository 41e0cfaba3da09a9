"""`anysense calibrate extrinsics` of several cameras and a LiDAR: one bundle adjustment over all of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from perception.cli.arguments import give_json
from perception.cli.calibrate_drawings import (
    Drawing,
    draw_overlays,
    show_cameras,
    show_lidar,
    write_report,
)
from perception.cli.calibrate_sources import Source, ended, write_rig
from perception.cli.calibrate_verdicts import tell_left_out_by_sensor
from perception.cli.console import note, step_progress
from perception.errors import ConfigError
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig

if TYPE_CHECKING:
    from calibration.boards import Board
    from calibration.plates import Plate


def run_together(
    args: argparse.Namespace,
    board: Board,
    plate: Plate,
    sources: list[Source],
    models: dict[str, CameraModel],
    cloud: Source,
    old: Rig | None,
) -> int:
    """Place cameras and a LiDAR by the first camera, write the rig, and say what speaks for it."""
    from calibration.detection import detect_folder
    from calibration.rigs import Placed
    from calibration.scans import cloud_files
    from calibration.together import calibrate_together

    if cloud.name in models:
        raise ConfigError(f"'{cloud.name}' is a camera as well", where="--cloud", hint="NAME=DIR")
    clouds = cloud_files(cloud.path)
    plate.check(board)
    with step_progress() as progress:
        detections = {one.name: detect_folder(one.path, board, progress) for one in sources}
        found = calibrate_together(
            detections, models, clouds, board, plate, cloud.name, progress=progress
        )
    first, reference = sources[0], found.reference
    placed = {
        one.name: Placed(
            found.places[one.name].transform,
            found.places[one.name].covariance,
            one.kind,
            models[one.name],
        )
        for one in sources[1:]
    }
    placed[cloud.name] = Placed(reference.joint.transform, reference.joint.covariance, cloud.kind)
    rig = write_rig(args, old, first, models[first.name], placed, trusted=found.trusted)
    give_json(args, {"sensor": cloud.name, "camera": first.name, "rig": rig, **found.to_dict()})
    show_cameras(first.name, found.points_px[first.name], found.places)
    show_lidar(reference)
    tell_left_out_by_sensor(found.left_out)
    for remark in found.remarks:
        note(remark)
    drawings = {
        one.name: Drawing(one, cloud, clouds, models[one.name], plate, found.lidars[one.name])
        for one in sources
    }
    if args.overlays is not None:
        for name, drawing in drawings.items():
            draw_overlays(args.overlays / name, drawing)
    write_report(args, drawings[first.name])
    return ended(args, found.doubts)

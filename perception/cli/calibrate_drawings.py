"""What `anysense calibrate extrinsics` says and draws of places of a LiDAR and of cameras."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.cli.arguments import command_line, output_folder
from perception.cli.calibrate_sources import Source
from perception.cli.console import Table, say
from perception.geometry.camera import CameraModel

if TYPE_CHECKING:
    from calibration.cameras import CameraPlace
    from calibration.detection import Gray
    from calibration.extrinsics import Extrinsics
    from calibration.joint import Pair
    from calibration.plates import Plate


@dataclass(frozen=True)
class Drawing:
    """What pictures of a calibration are made of."""

    camera: Source
    lidar: Source
    clouds: dict[str, Path]
    model: CameraModel
    plate: Plate
    found: Extrinsics

    def both(self, pair: Pair) -> tuple[Gray, Gray]:
        """A pose's picture with its cloud, before and after: (H, W, 3) uint8 RGB."""
        from calibration.overlays import draw_pair, shown_gray
        from calibration.scans import read_points

        image = shown_gray(self.camera.path / pair.board.view.name)
        points = read_points(self.clouds[pair.name])
        places = pair.plate.pose, pair.board.pose, self.plate.halves
        before, after = (
            draw_pair(image, self.model, to, points, *places)
            for to in (self.found.start, self.found.joint.transform)
        )
        return before, after


def draw_overlays(folder: Path, drawing: Drawing) -> None:
    """Draw each pose, before and after."""
    from calibration.overlays import write_overlay

    output_folder(folder)
    for pair in drawing.found.pairs:
        write_overlay(folder / f"{pair.name}.jpg", *drawing.both(pair))
    say(f"drew {len(drawing.found.pairs)} poses into {folder}")


def write_report(args: argparse.Namespace, drawing: Drawing) -> None:
    """Write the page that `--report` asks for."""
    found = drawing.found
    if args.report is not None:
        from perception.viz.extrinsics_page import write_extrinsics_page

        by_name = {pair.name: pair for pair in found.pairs}
        write_extrinsics_page(
            found,
            args.report,
            lambda name: drawing.both(by_name[name]),
            camera=drawing.camera.name,
            lidar=drawing.lidar.name,
            command=command_line(),
        )
        say(f"wrote {args.report}")


def show_lidar(found: Extrinsics) -> None:
    """Say where the LiDAR is to a camera."""
    table = Table("", "x", "y", "z", title="from the LiDAR into the camera's optical frame")
    move, sigma = found.joint.transform.translation, found.sigma
    table.add_row("translation, m", *(f"{value:.4f}" for value in move))
    table.add_row("its sigma, m", *(f"{value:.4f}" for value in sigma[:3]))
    turned = [f"{np.degrees(value):.3f}" for value in sigma[3:]]
    table.add_row("sigma of the rotation, degrees", *turned)
    table.show()
    say(
        f"middles of the board {found.rms_px:.1f} px off, {found.held_out_px:.1f} px in poses that were not "
        f"fitted; {len(found.pairs)} poses"
    )


def show_cameras(first: str, rms_px: float, places: Mapping[str, CameraPlace]) -> None:
    """Say where cameras are by the first one."""
    table = Table("camera", "x, y, z, m", "sigma, m", "sigma, degrees", "px off", "poses")
    table.add_row(first, "reference", "", "", f"{rms_px:.2f}", "")
    for name, place in places.items():
        move = ", ".join(f"{value:.4f}" for value in place.transform.translation)
        sigma = np.linalg.norm(place.sigma[:3]), np.degrees(np.linalg.norm(place.sigma[3:]))
        said = (f"{sigma[0]:.4f}", f"{sigma[1]:.3f}", f"{place.rms_px:.2f}", str(place.poses))
        table.add_row(name, move, *said)
    table.show()

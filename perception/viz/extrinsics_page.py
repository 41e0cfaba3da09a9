"""Where a LiDAR sits to a camera as one HTML page: whether to trust it, and what to record again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from calibration.extrinsics import Extrinsics
from perception.viz.calibration_page import (
    Image,
    figure,
    header,
    note,
    notices,
    picture,
    pictures,
    placement,
    section,
    table,
    tiles,
    verdict_of,
    write_page,
)
from perception.viz.svg import bars

_MOST_SHOWN = 3
_AXES = ("x (right)", "y (down)", "z (forward)")


def write_extrinsics_page(
    found: Extrinsics,
    path: Path,
    drawn: Callable[[str], tuple[Image, Image]],
    *,
    camera: str,
    lidar: str,
    command: str,
) -> None:
    """Write the page.

    Args:
        found: the calibration.
        path: the HTML file.
        drawn: gives a pose's picture by name with the cloud in it, before and after: (H, W, 3) uint8 RGB.
        camera, lidar: names of the sensors.
        command: the line that made it.
    """
    verdict = verdict_of(found.trusted, found.remarks)
    lead = f"From {len(found.pairs)} poses of a board that both saw; {len(found.left_out)} were left out."
    fine = "Nothing: there are enough poses, near and far, at all tilts."
    write_page(
        path,
        f"Calibration of {lidar} to {camera}",
        header(f"{lidar} to {camera}: {verdict}", lead)
        + _tiles(found)
        + section("What to record again", notices([*found.doubts, *found.remarks], fine))
        + section("Where it sits", _transform(found))
        + section("Poses", _poses(found, drawn))
        + section("How this was made", note(command)),
    )


def _tiles(found: Extrinsics) -> str:
    move, turn = found.sigma[:3], np.degrees(found.sigma[3:])
    return tiles(
        [
            (
                f"{found.held_out_px:.1f} px",
                "middle of the board off, in poses that were not fitted",
            ),
            (f"{found.rms_px:.1f} px", "off in all poses"),
            (f"{1000 * float(np.linalg.norm(move)):.1f} mm", "standard deviation of the place"),
            (f"{float(np.linalg.norm(turn)):.3f} deg", "standard deviation of the rotation"),
        ]
    )


def _transform(found: Extrinsics) -> str:
    transform, sigma = found.joint.transform, found.sigma
    rows = [
        (axis, f"{move:.4f}", f"{of_move:.4f}", f"{np.degrees(of_turn):.4f}")
        for axis, move, of_move, of_turn in zip(
            _AXES, transform.translation, sigma[:3], sigma[3:], strict=True
        )
    ]
    return placement(rows, transform.matrix)


def _poses(found: Extrinsics, drawn: Callable[[str], tuple[Image, Image]]) -> str:
    off = np.hypot(*found.centers_px.T)
    order = np.argsort(-off)
    body = figure(bars({found.pairs[i].name: float(off[i]) for i in order}, "px"))
    body += note("How far the middle of the plate, as the LiDAR alone saw it, is off the board's.")
    if found.left_out:
        body += "<h3>Left out</h3>" + table(("", "reason"), found.left_out.items(), "facts")
    shown = []
    for index in order[:_MOST_SHOWN]:
        name = found.pairs[index].name
        before, after = drawn(name)
        shown.append(picture(before, f"{name}, first guess"))
        shown.append(picture(after, f"{name}, {off[index]:.1f} px"))
    key = (
        "Points are coloured by distance. Green: the board as the camera saw it; magenta: the plate as the "
        "LiDAR saw it."
    )
    return body + f"<h3>The poses that fit worst</h3>{pictures(shown)}{note(key)}"

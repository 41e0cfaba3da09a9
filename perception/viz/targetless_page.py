"""Where a LiDAR sits to a camera, found without a board, as one HTML page: whether to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from calibration.targetless import AXES, Targetless
from perception.viz.calibration_page import (
    Image,
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

_SAID = {"x": "x (right)", "y": "y (down)", "z": "z (forward)"}


def write_targetless_page(
    found: Targetless,
    path: Path,
    shown: Mapping[str, tuple[Image, Image]],
    *,
    camera: str,
    lidar: str,
    command: str,
) -> None:
    """Write the page.

    Args:
        found: the calibration.
        path: the HTML file.
        shown: some frames by name, with the cloud drawn at the guess and at what was found.
        camera, lidar: names of the sensors.
        command: the line that made it.
    """
    verdict = verdict_of(found.trusted, found.remarks)
    lead = f"From a guess and {found.frames} frames of scenes without a board."
    fine = "Nothing: there are enough frames, and they agree."
    write_page(
        path,
        f"Calibration of {lidar} to {camera}",
        header(f"{lidar} to {camera}: {verdict}", lead)
        + _tiles(found)
        + section("What to record again", notices([*found.doubts, *found.remarks], fine))
        + section("Where it sits", _transform(found))
        + section("How well it fits", _scores(found))
        + section("Some frames", _frames(shown))
        + section("How this was made", note(command)),
    )


def _tiles(found: Targetless) -> str:
    move, turn = found.sigma[:3], np.degrees(found.sigma[3:])
    return tiles(
        [
            (f"{1000 * float(move.max()):.0f} mm", "standard deviation of the place, worst axis"),
            (f"{float(turn.max()):.2f} deg", "standard deviation of the rotation, worst axis"),
            (f"{found.held_out[1].edges:.2f}", "score of edges in frames that were not fitted"),
            (f"{found.held_out[0].edges:.2f}", "the same at the guess"),
        ]
    )


def _transform(found: Targetless) -> str:
    rows = []
    for i, axis in enumerate(AXES):
        place = f"{found.transform.translation[i]:.4f}" + (" (guess)" if axis in found.kept else "")
        turn = f"{np.degrees(found.sigma[3 + i]):.3f}"
        rows.append((_SAID[axis], place, f"{found.sigma[i]:.4f}", turn))
    return placement(rows, found.transform.matrix)


def _scores(found: Targetless) -> str:
    rows = [
        (name, f"{one.edges:.3f}", f"{one.information:.4f}")
        for name, one in (
            ("wrong poses", found.wrong),
            ("guess", found.before),
            ("found", found.after),
            ("guess, frames that were not fitted", found.held_out[0]),
            ("found, frames that were not fitted", found.held_out[1]),
        )
    ]
    text = (
        "Edges: how strong edges of pictures are at edges of clouds, in standard deviations of the pictures. "
        f"Information: what brightness and {found.compared} tell of each other, nats."
    )
    return table(("pose", "edges", "mutual information"), rows) + note(text)


def _frames(shown: Mapping[str, tuple[Image, Image]]) -> str:
    parts = []
    for name, (before, after) in shown.items():
        parts += [picture(before, f"{name}, guess"), picture(after, f"{name}, found")]
    text = "Points are coloured by distance; magenta: edges, where something near ends before something far."
    return pictures(parts) + note(text)

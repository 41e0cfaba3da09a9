"""A camera's calibration as one HTML page: whether to trust it, and what to record again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.fitting import project_view
from calibration.intrinsics import Intrinsics
from perception.geometry.camera import CameraModel
from perception.viz.calibration_page import (
    Image,
    figure,
    header,
    note,
    notices,
    picture,
    pictures,
    section,
    table,
    tiles,
    write_page,
)
from perception.viz.svg import bars, heat, vectors

_SEEN, _PREDICTED = (255, 140, 0), (0, 190, 255)
_WIDTH = 480  # of a picture on the page
_MOST_SHOWN = 3
_FAR = 0.05  # of the width: how long the worst residuals are drawn


def write_intrinsics_page(
    found: Intrinsics,
    path: Path,
    gray: Callable[[str], Image],
    *,
    sensor: str,
    command: str,
) -> None:
    """Write the page.

    Args:
        found: the calibration.
        path: the HTML file.
        gray: gives a view's picture by name, (H, W) uint8.
        sensor: name of the camera.
        command: the line that made it.
    """
    verdict, fit = "can be trusted" if found.trusted else "with reservations", found.fit
    width, height = fit.size
    views = f"{len(found.views)} views of {found.board}"
    lead = f"A {fit.form.name} camera of {width}x{height} pixels, from {views}."
    fine = "Nothing: there are enough views, at all places and tilts."
    write_page(
        path,
        f"Calibration of {sensor}",
        header(f"Intrinsics of {sensor}: {verdict}", lead)
        + _tiles(found)
        + section("What to record again", notices(found.remarks, fine))
        + section("Where the board was seen", _coverage(found))
        + section("What the camera does not explain", _residuals(found))
        + section("Views", _views(found, gray))
        + section("Before and after", _straightened(found, gray))
        + section("Parameters", _parameters(found))
        + section("Models", _models(found))
        + section("How this was made", note(command)),
    )


def _tiles(found: Intrinsics) -> str:
    held = found.held_out_px[found.fit.form.name]
    focal = found.fit.sigma[0] / found.fit.values[0]
    return tiles(
        [
            (f"{held:.3f} px", "off in views that were not fitted"),
            (f"{found.fit.rms_px:.3f} px", "off in views that were fitted"),
            (f"{100 * (found.coverage > 0).mean():.0f} %", "of the picture saw the board"),
            (f"{100 * focal:.2f} %", "standard deviation of the focal length"),
            (f"{len(found.left_out)}", "pictures left out"),
        ]
    )


def _coverage(found: Intrinsics) -> str:
    points = np.concatenate([view.pixels for view in found.views])
    text = f"{len(points)} points of the board; the number in a cell is how many fell into it."
    return figure(heat(found.coverage, found.fit.size, points)) + note(text)


def _residuals(found: Intrinsics) -> str:
    points = np.concatenate([view.pixels for view in found.views])
    off = np.concatenate(found.fit.residuals)
    lengths = np.hypot(*off.T)
    longest = max(float(np.percentile(lengths, 99)), 1e-9)
    scale = _FAR * found.fit.size[0] / longest
    text = (
        f"From where a point is predicted to where it is seen, {scale:.0f} times as long. Half of the "
        f"points are within {np.median(lengths):.3f} px, 99 % within {longest:.3f} px. Lines that turn in "
        "one direction in a part of the picture are distortion that the model does not have; without a "
        "pattern they are noise."
    )
    return figure(vectors(points - off, off * scale, found.fit.size)) + note(text)


def _views(found: Intrinsics, gray: Callable[[str], Image]) -> str:
    by_view = found.fit.view_rms_px
    order = np.argsort(-by_view)
    body = figure(bars({found.views[i].name: float(by_view[i]) for i in order}, "px"))
    if found.left_out:
        body += "<h3>Left out</h3>" + table(("", "reason"), found.left_out.items(), "facts")
    worst = []
    for index in order[:_MOST_SHOWN]:
        view = found.views[index]
        drawn = _drawn(found, view, found.fit.poses[index], found.board, gray(view.name))
        worst.append(picture(drawn, f"{view.name}: {by_view[index]:.3f} px"))
    key = note("Orange: where points are seen; blue: where predicted.")
    return body + f"<h3>The views that fit worst</h3>{pictures(worst)}{key}"


def _drawn(
    found: Intrinsics, view: BoardView, pose: NDArray[np.float64], board: Board, gray: Image
) -> Image:
    """(H, W, 3) uint8 RGB of a view with its points."""
    image, scale = _small(gray)
    predicted = project_view(found.camera, pose, board.points[view.ids])
    for places, color, shape in (
        (view.pixels, _SEEN, cv2.MARKER_CROSS),
        (predicted, _PREDICTED, cv2.MARKER_TILTED_CROSS),
    ):
        for place in (np.asarray(places) + 0.5) * scale - 0.5:
            x, y = (round(float(v)) for v in place)
            cv2.drawMarker(image, (x, y), color, shape, 9, 1, cv2.LINE_AA)
    return image


def _small(gray: Image) -> tuple[Image, float]:
    scale = min(1.0, _WIDTH / gray.shape[1])
    size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB), np.uint8), size[0] / gray.shape[1]


def _straightened(found: Intrinsics, gray: Callable[[str], Image]) -> str:
    spread = [float(np.prod(np.ptp(view.pixels, axis=0))) for view in found.views]
    view = found.views[int(np.argmax(spread))]
    image = gray(view.name)
    before, after = (_small(one)[0] for one in (image, straighten(image, found.camera)))
    text = (
        "Lines that are straight in space are straight in the right picture. What the lens sees "
        "beyond its edges is cut off."
    )
    pair = [picture(before, view.name), picture(after, "without distortion")]
    return pictures(pair) + note(text)


def straighten(gray: Image, camera: CameraModel) -> Image:
    """(H, W) of a picture as a pinhole camera of the same matrix sees it; black where nothing was seen."""
    height, width = gray.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    rays = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], 1) @ np.linalg.inv(camera.matrix).T
    pixels, valid = camera.project(rays)
    places = np.where(valid[:, None], pixels, -1e4).reshape(height, width, 2).astype(np.float32)
    return np.asarray(cv2.remap(gray, places[..., 0], places[..., 1], cv2.INTER_LINEAR), np.uint8)


def _parameters(found: Intrinsics) -> str:
    fit = found.fit
    rows = [
        (
            name,
            f"{value:.6g}",
            f"{sigma:.2g}",
            f"{value - 2 * sigma:.6g} to {value + 2 * sigma:.6g}",
        )
        for name, value, sigma in zip(fit.form.names, fit.values, fit.sigma, strict=True)
    ]
    text = (
        "Sigma comes from the Jacobian and the residuals, with poses unknown. A bent board, a rolling "
        "shutter or a wrong size of the squares are in none."
    )
    return table(("", "value", "sigma", "2 sigma"), rows) + note(text)


def _models(found: Intrinsics) -> str:
    best = min(found.held_out_px.values())
    rows = [
        (name, f"{value:.3f}", f"{value / best:.2f}", "chosen" * (name == found.fit.form.name))
        for name, value in sorted(found.held_out_px.items(), key=lambda item: item[1])
    ]
    text = "The simplest is taken of those that are within 1 % of the best in views that were not fitted."
    head = ("model", "px, not fitted", "of the best", "")
    return table(head, rows) + note(text)

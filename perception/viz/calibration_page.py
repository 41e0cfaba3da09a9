"""A camera's calibration as one HTML page: whether to trust it, and what to record again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.fitting import project_view
from calibration.intrinsics import Intrinsics
from perception.files.text import html_text
from perception.files.writing import image_bytes, write_text
from perception.geometry.camera import CameraModel
from perception.viz.svg import bars, heat, vectors

_STYLE = Path(__file__).with_name("page.css")

Image = NDArray[np.uint8]
_SEEN, _PREDICTED = (255, 140, 0), (0, 190, 255)
_WIDTH = 480  # of a picture on the page
_MOST_SHOWN = 3
_FAR = 0.05  # of the width: how long the worst residuals are drawn


def write_intrinsics_page(
    found: Intrinsics,
    path: Path,
    picture: Callable[[str], Image],
    *,
    sensor: str,
    command: str,
) -> None:
    """Write the page.

    Args:
        found: the calibration.
        path: the HTML file.
        picture: gives a view's picture by name, (H, W) uint8.
        sensor: name of the camera.
        command: the line that made it.
    """
    body = _header(found, sensor) + _tiles(found)
    body += _section("What to record again", _remarks(found))
    body += _section("Where the board was seen", _coverage(found))
    body += _section("What the camera does not explain", _residuals(found))
    body += _section("Views", _views(found, picture))
    body += _section("Before and after", _straightened(found, picture))
    body += _section("Parameters", _parameters(found))
    body += _section("Models", _models(found))
    body += _section("How this was made", f"<p class='note'>{html_text(command)}</p>")
    title = html_text(f"Calibration of {sensor}")
    write_text(
        path,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>",
    )


def _header(found: Intrinsics, sensor: str) -> str:
    verdict = "can be trusted" if found.trusted else "with reservations"
    return (
        "<header><p class='brand'>AnySense</p>"
        f"<h1>Intrinsics of {html_text(sensor)}: {verdict}</h1>"
        f"<p class='lead'>A {html_text(found.fit.form.name)} camera of {found.camera.width}x"
        f"{found.camera.height} pixels, from {len(found.views)} views of "
        f"{html_text(found.board)}.</p></header>"
    )


def _tiles(found: Intrinsics) -> str:
    held = found.held_out_px[found.fit.form.name]
    focal = found.fit.sigma[0] / found.fit.values[0]
    tiles = [
        (f"{held:.3f} px", "off in views that were not fitted"),
        (f"{found.fit.rms_px:.3f} px", "off in views that were fitted"),
        (f"{100 * (found.coverage > 0).mean():.0f} %", "of the picture saw the board"),
        (f"{100 * focal:.2f} %", "standard deviation of the focal length"),
        (f"{len(found.left_out)}", "pictures left out"),
    ]
    cells = "".join(
        f"<div class='tile'><b>{a}</b><span>{html_text(b)}</span></div>" for a, b in tiles
    )
    return f"<section><div class='tiles'>{cells}</div></section>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{body}</section>"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]], kind: str = "") -> str:
    titles = "".join(f"<th>{html_text(h)}</th>" for h in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{html_text(value)}</td>" for value in rest)
        lines.append(f"<tr><th>{html_text(first)}</th>{cells}</tr>")
    return (
        f"<div class='scroll'><table class='{kind}'><tr>{titles}</tr>{''.join(lines)}</table></div>"
    )


def _remarks(found: Intrinsics) -> str:
    if not found.remarks:
        return "<p>Nothing: there are enough views, at all places and tilts.</p>"
    return "".join(f"<p class='notice'>{html_text(remark)}</p>" for remark in found.remarks)


def _coverage(found: Intrinsics) -> str:
    size = found.fit.size
    points = np.concatenate([view.pixels for view in found.views])
    note = f"{len(points)} points of the board; the number in a cell is how many fell into it."
    return f"<figure>{heat(found.coverage, size, points)}</figure><p class='note'>{note}</p>"


def _residuals(found: Intrinsics) -> str:
    points = np.concatenate([view.pixels for view in found.views])
    off = np.concatenate(found.fit.residuals)
    lengths = np.hypot(*off.T)
    longest = max(float(np.percentile(lengths, 99)), 1e-9)
    scale = _FAR * found.fit.size[0] / longest
    note = (
        f"From where a point is predicted to where it is seen, {scale:.0f} times as long. Half of the points "
        f"are within {np.median(lengths):.3f} px, 99 % within {longest:.3f} px. Lines that turn in one "
        "direction in a part of the picture are distortion that the model does not have; without a "
        "pattern they are noise."
    )
    return (
        f"<figure>{vectors(points - off, off * scale, found.fit.size)}</figure>"
        f"<p class='note'>{note}</p>"
    )


def _views(found: Intrinsics, picture: Callable[[str], Image]) -> str:
    by_view = found.fit.view_rms_px
    order = np.argsort(-by_view)
    rows = {found.views[i].name: float(by_view[i]) for i in order}
    parts = [f"<figure>{bars(rows, 'px')}</figure>"]
    if found.left_out:
        reasons = _table(("left out", "reason"), found.left_out.items(), "facts")
        parts.append(f"<h3>Left out</h3>{reasons}")
    parts.append("<h3>The views that fit worst</h3><div class='pictures'>")
    for index in order[:_MOST_SHOWN]:
        view = found.views[index]
        drawn = _drawn(found, view, found.fit.poses[index], found.board, picture(view.name))
        text = f"{html_text(view.name)}: {by_view[index]:.3f} px"
        parts.append(_picture(drawn, text))
    parts.append("</div><p class='note'>Orange: where points are seen; blue: where predicted.</p>")
    return "".join(parts)


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


def _straightened(found: Intrinsics, picture: Callable[[str], Image]) -> str:
    spread = [float(np.prod(np.ptp(view.pixels, axis=0))) for view in found.views]
    view = found.views[int(np.argmax(spread))]
    gray = picture(view.name)
    before, _ = _small(gray)
    after, _ = _small(straighten(gray, found.camera))
    note = (
        "Lines that are straight in space are straight in the right picture. What the lens sees "
        "beyond its edges is cut off."
    )
    return (
        f"<div class='pictures'>{_picture(before, html_text(view.name))}"
        f"{_picture(after, 'without distortion')}</div><p class='note'>{note}</p>"
    )


def straighten(gray: Image, camera: CameraModel) -> Image:
    """(H, W) of a picture as a pinhole camera of the same matrix sees it; black where nothing was seen."""
    height, width = gray.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    rays = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], 1) @ np.linalg.inv(camera.matrix).T
    pixels, valid = camera.project(rays)
    places = np.where(valid[:, None], pixels, -1e4).reshape(height, width, 2).astype(np.float32)
    return np.asarray(cv2.remap(gray, places[..., 0], places[..., 1], cv2.INTER_LINEAR), np.uint8)


def _picture(image: Image, caption: str) -> str:
    content = base64.b64encode(image_bytes(image, ".jpg")).decode()
    return (
        f"<figure><img alt='{caption}' src='data:image/jpeg;base64,{content}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


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
    note = (
        "Sigma comes from the Jacobian and the residuals, with poses unknown. A bent board, a rolling "
        "shutter or a wrong size of the squares are in none."
    )
    return f"{_table(('', 'value', 'sigma', '2 sigma'), rows)}<p class='note'>{note}</p>"


def _models(found: Intrinsics) -> str:
    def rows() -> Sequence[tuple[object, ...]]:
        best = min(found.held_out_px.values())
        return [
            (name, f"{value:.3f}", f"{value / best:.2f}", "chosen" * (name == found.fit.form.name))
            for name, value in sorted(found.held_out_px.items(), key=lambda item: item[1])
        ]

    note = "The simplest is taken of those that are within 1 % of the best in views that were not fitted."
    head = ("model", "px, not fitted", "of the best", "")
    return f"{_table(head, rows())}<p class='note'>{note}</p>"

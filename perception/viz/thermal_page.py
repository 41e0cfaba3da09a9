"""A thermal camera's values as one HTML page: counts to kelvin, and what each pixel is worth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.values.correction import BAD
from calibration.values.flatfield import FlatField
from calibration.values.thermal import Radiometry
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
    verdict_of,
    write_page,
)
from perception.viz.svg import Axes, plot, range_of

_COLORS = {
    1: (220, 40, 40),
    2: (255, 150, 0),
    3: (240, 70, 220),
    4: (40, 120, 255),
    5: (0, 170, 90),
}
_NAMES = {1: "red", 2: "orange", 3: "pink", 4: "blue", 5: "green"}
_WIDTH = 640
_DOT_PX = 3
_PAPER = 235


def write_thermal_page(
    curve: Radiometry | None, flat: FlatField | None, path: Path, *, sensor: str, command: str
) -> None:
    """Write the page.

    Args:
        curve: counts to kelvin, None for none.
        flat: maps of pixels, None for none.
        path: the HTML file.
        sensor: name of the camera.
        command: the line that made it.
    """
    doubts = [line for part in (curve, flat) if part is not None for line in part.doubts]
    remarks = [line for part in (curve, flat) if part is not None for line in part.remarks]
    verdict = verdict_of(not doubts, remarks)
    parts = []
    if curve is not None:
        parts.append(f"{len(curve.points.counts)} reference points")
    if flat is not None:
        count = sum(len(own.levels) for own in flat.flats)
        parts.append(f"{count} pictures of a uniform surface at {len(flat.flats)} temperatures")
    body = header(f"{sensor}: {verdict}", f"From {' and '.join(parts)}.")
    body += tiles([*_curve_tiles(curve), *_flat_tiles(flat)])
    body += section("What to record again", notices([*doubts, *remarks], "Nothing."))
    if curve is not None:
        body += section("Counts to kelvin", _curve(curve))
    if flat is not None:
        body += section("Pixels", _pixels(flat))
    write_page(path, f"Values of {sensor}", body + section("How this was made", note(command)))


def _curve_tiles(curve: Radiometry | None) -> list[tuple[str, str]]:
    if curve is None:
        return []
    low, high = curve.range_k
    return [
        (f"{curve.held_out_k:.2f} K", "points off that were not fitted"),
        (f"{low:.0f} to {high:.0f} K", "where it holds"),
    ]


def _flat_tiles(flat: FlatField | None) -> list[tuple[str, str]]:
    if flat is None:
        return []
    return [
        (f"{flat.noise:.2f} counts", "noise of a pixel"),
        (f"{max(flat.pattern):.1f} counts", "by which pixels differ as they are"),
        (f"{int((flat.maps.bad > 0).sum())}", "bad pixels"),
    ]


def _curve(found: Radiometry) -> str:
    low, high = found.curve.counts
    room = 0.08 * (high - low)
    at = np.linspace(low - room, high + room, 120)
    kelvin, points = found.curve.kelvin(at), found.points
    good = np.isfinite(kelvin)
    seen = np.column_stack([points.counts, points.kelvin])
    inside = good & (at >= low) & (at <= high)
    x = (low - room, high + room)
    lines = [np.column_stack([at[own], kelvin[own]]) for own in (inside, good)]
    axes = Axes("counts", "K", x, range_of(seen[:, 1], kelvin[good]))
    drawn = figure(plot(axes, seen, lines))
    text = "Points, and the curve; dashed where it is a guess."
    sigma = found.fit.sigma_at(at[good])
    off = np.column_stack([points.counts, found.fit.residuals])
    band = np.column_stack([at[good], -2 * sigma, 2 * sigma])
    held = found.held_out[found.curve.model]
    axes = Axes("counts", "off, K", x, range_of(off[:, 1], held, 2 * sigma, -2 * sigma))
    zero = np.array([[x[0], 0.0], [x[1], 0.0]])
    drawn += note(text) + figure(plot(axes, off, [zero[:0], zero], band=band))
    drawn += note("What is left of the points. Shaded: two sigma of the curve.")
    parameters = [(name, f"{value:.8g}") for name, value in found.curve.parameters.items()]
    drawn += f"<h3>{found.curve.model}</h3>" + table(("", "value"), parameters)
    drawn += note(
        "K = gain * counts + offset"
        if found.curve.model == "linear"
        else "K = B / ln(R / (counts + O) + F)"
    )
    forms = [
        (name, f"{float(np.sqrt(np.mean(one**2))):.3f} K") for name, one in found.held_out.items()
    ]
    drawn += "<h3>Curves, by points that were not fitted</h3>" + table(("", "off"), forms)
    rows = [
        (name, f"{c:.1f}", f"{k:.2f}", f"{r:+.2f}", f"{h:+.2f}")
        for name, c, k, r, h in zip(
            points.names, points.counts, points.kelvin, found.fit.residuals, held, strict=True
        )
    ]
    head = ("", "counts", "K", "off, K", "not fitted, K")
    drawn += "<h3>Points</h3>" + table(head, rows)
    if found.left_out:
        drawn += "<h3>Left out</h3>" + table(("", "reason"), found.left_out.items(), "facts")
    return drawn


def _pixels(found: FlatField) -> str:
    rows = [
        (
            flat.name,
            len(flat.levels),
            f"{flat.level:.1f}",
            f"{float(np.median(flat.noise)):.2f}",
            f"{pattern:.2f}",
            f"{left:.2f}",
            f"{drift:+.2f}",
        )
        for flat, pattern, left, drift in zip(
            found.flats, found.pattern, found.left, found.drift, strict=True
        )
    ]
    head = ("", "frames", "counts", "noise", "pattern", "left", "drift")
    body = table(head, rows)
    body += note(
        "In counts: noise over time, how pixels differ, the same after the correction, drift."
    )
    body += "<h3>Bad pixels</h3>"
    shown = [(name, found.counts[name], _NAMES[code]) for code, name in BAD.items()]
    body += table(("", "pixels", "colour"), shown)
    body += picture(bad_picture(found.maps.bad), "Where they are; drawn larger than they are.")
    maps = [picture(shaded(found.flats[-1].mean), f"{found.flats[-1].name}, mean as it was seen")]
    maps.append(picture(shaded(found.flats[-1].noise), f"{found.flats[-1].name}, noise"))
    if found.response is not None:
        maps.append(picture(shaded(found.maps.gain), "gain"))
    maps.append(picture(shaded(found.maps.offset), "offset"))
    body += f"<h3>Maps</h3>{pictures(maps)}"
    body += "<h3>Drift</h3>"
    for flat in found.flats:
        at = np.column_stack([np.arange(len(flat.levels)), flat.levels])
        room = 2 * found.noise
        axes = Axes(
            f"picture of {flat.name}",
            "counts",
            (-0.5, len(at) - 0.5),
            (float(flat.levels.min()) - room, float(flat.levels.max()) + room),
        )
        body += figure(plot(axes, at, [at]))
    return body


def bad_picture(bad: NDArray[np.uint8]) -> Image:
    """(H, W, 3) uint8 RGB: bad pixels as squares in the colour of what is wrong, later ones on top."""
    scale = max(1, round(_WIDTH / bad.shape[1]))
    height, width = bad.shape[0] * scale, bad.shape[1] * scale
    image = np.full((height, width, 3), _PAPER, np.uint8)
    reach = max(_DOT_PX, scale // 2)
    for y, x in zip(*np.nonzero(bad), strict=True):
        middle = (int((x + 0.5) * scale), int((y + 0.5) * scale))
        first = (middle[0] - reach, middle[1] - reach)
        last = (middle[0] + reach, middle[1] + reach)
        cv2.rectangle(image, first, last, _COLORS[int(bad[y, x])], -1)
    return image


def shaded(values: NDArray[np.float32]) -> Image:
    """(H, W) uint8 gray between the 1st and the 99th percentile."""
    low, high = np.percentile(values, (1, 99))
    share = (values - low) / max(float(high - low), 1e-9)
    return np.asarray(np.clip(share * 255, 0, 255), np.uint8)

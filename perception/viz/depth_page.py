"""A depth camera's scale and bias as one HTML page: whether to trust them, and what to record again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.outcome import root_mean_square
from calibration.values.depth import DepthFit
from perception.viz.calibration_page import (
    figure,
    header,
    note,
    notices,
    section,
    table,
    tiles,
    verdict_of,
    write_page,
)
from perception.viz.svg import Axes, plot, range_of


def write_depth_page(found: DepthFit, path: Path, *, sensor: str, command: str) -> None:
    """Write the page.

    Args:
        found: the calibration.
        path: the HTML file.
        sensor: name of the depth camera.
        command: the line that made it.
    """
    verdict = verdict_of(found.trusted, found.remarks)
    if found.trusted and not found.needed:
        verdict = "right as it is"
    lead = f"From {len(found.views)} planes of a board; {len(found.left_out)} poses were left out."
    fine = "Nothing: there are enough poses, near and far."
    write_page(
        path,
        f"Depth of {sensor}",
        header(f"Depth of {sensor}: {verdict}", lead)
        + _tiles(found)
        + section("What to record again", notices([*found.doubts, *found.remarks], fine))
        + section("How far depth is off", _drawings(found))
        + section("The correction", _numbers(found))
        + section("Poses", _poses(found))
        + section("How this was made", note(command)),
    )


def _tiles(found: DepthFit) -> str:
    held = found.held_out_m[found.degree]
    return tiles(
        [
            (f"{1000 * root_mean_square(found.off_before):.1f} mm", "planes off as they were seen"),
            (f"{1000 * held:.1f} mm", "off after the correction, planes that were not fitted"),
            (f"{found.coefficients[1]:.5f}", "scale"),
            (f"{1000 * found.coefficients[0]:+.1f} mm", "bias"),
        ]
    )


def _drawings(found: DepthFit) -> str:
    distance = np.array([view.distance for view in found.views])
    seen = np.array([float(np.median(view.seen)) for view in found.views])
    x = range_of(distance)
    before = np.column_stack([distance, 1000 * found.off_before])
    at = np.linspace(*found.range_m, 60)
    true, sigma = found.true_of(at), found.sigma_at(at)
    said = np.column_stack([true, 1000 * (true - at)])
    band = np.column_stack([true, said[:, 1] - 2000 * sigma, said[:, 1] + 2000 * sigma])
    noise = 1000 * found.noise
    axes = Axes(
        "distance of the board, m",
        "true less seen, mm",
        x,
        range_of(before[:, 1], said[:, 1], band[:, 1], band[:, 2], np.zeros(1)),
    )
    zero = np.array([[x[0], 0.0], [x[1], 0.0]])
    drawn = figure(plot(axes, before, [said, zero], band=band))
    drawn += note("Points: planes as they were seen. Line: the correction, with two sigma.")
    after = np.column_stack([distance, 1000 * found.off_held_out])
    bars = noise / np.sqrt([max(1, len(view.seen)) for view in found.views])
    axes = Axes(
        "distance of the board, m",
        "left, mm",
        x,
        range_of(after[:, 1] - bars, after[:, 1] + bars, np.zeros(1)),
    )
    drawn += figure(plot(axes, after, [zero[:0], zero], bars=bars))
    drawn += note(
        "What is left of planes that were not fitted. Bars: what noise of pixels explains."
    )
    axes = Axes(
        "distance of the board, m",
        "noise of a pixel, mm",
        x,
        (0.0, range_of(noise, np.zeros(1))[1]),
    )
    drawn += figure(plot(axes, np.column_stack([distance, noise])))
    return drawn + note(f"Seen from {seen.min():.2f} to {seen.max():.2f} m.")


def _numbers(found: DepthFit) -> str:
    names = ("bias, m", "scale", "square, 1/m", "cube, 1/m²")
    rows = [
        (name, f"{value:.6g}", f"{sigma:.2g}")
        for name, value, sigma in zip(names, found.coefficients, found.sigma, strict=False)
    ]
    degrees = [
        (f"degree {degree}", f"{1000 * held:.2f} mm") for degree, held in found.held_out_m.items()
    ]
    low, high = found.range_m
    text = f"True metres are this polynomial in seen ones, from {low:.2f} to {high:.2f} m."
    return (
        table(("", "value", "sigma"), rows)
        + note(text)
        + "<h3>Polynomials, by planes that were not fitted</h3>"
        + table(("", "off"), degrees)
    )


def _poses(found: DepthFit) -> str:
    rows = [
        (
            view.name,
            f"{view.distance:.3f}",
            f"{1000 * before:+.1f}",
            f"{1000 * after:+.1f}",
            f"{1000 * held:+.1f}",
            f"{1000 * noise:.1f}",
        )
        for view, before, after, held, noise in zip(
            found.views,
            found.off_before,
            found.off_after,
            found.off_held_out,
            found.noise,
            strict=True,
        )
    ]
    head = ("", "distance, m", "off before, mm", "after, mm", "not fitted, mm", "noise, mm")
    body = table(head, rows)
    if found.left_out:
        body += "<h3>Left out</h3>" + table(("", "reason"), found.left_out.items(), "facts")
    return body

"""Failures of sensors round a vehicle, as a section of the page of robustness and as a radar chart."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from perception.evaluation.published import SPACE_DATA, SPACE_RIVALS
from perception.evaluation.robustness_report import LateFound, Robustness, SpaceFound
from perception.files.text import html_text
from perception.files.writing import image_bytes
from perception.metrics.robustness import retained_share
from perception.viz.html_tables import cell, percent, share, table
from perception.viz.radar import Image, radar

_LATE = "late"

_EXPLAINED = (
    "Beams that are left are evenly spread, the one just below the horizon among them. Cameras are turned "
    "about an axis of their own each, in their calibration alone. A late LiDAR is as it was recorded then, "
    "or, where no frame is from then, its points are moved as the vehicle and the objects did: they are not "
    "measured anew. Of all: the share of the same frames' score with all sensors in order."
)


def draw_space_radar(named: Sequence[tuple[str, Robustness]]) -> Image | None:
    """What is left of the first judged score in each row but that of all sensors.

    Args:
        named: the runs that have the table, with what tells them apart.

    Returns:
        (H, W, 3) uint8 RGB; None where there are fewer than three rows.
    """
    score = next(iter(named[0][1].titles))
    columns = [{f.row.name: f.retained.get(score) for f in run.space()[1:]} for _, run in named]
    axes = [n.replace("°", " deg") for n in dict.fromkeys(n for c in columns for n in c)]
    if len(axes) < 3:
        return None
    own = [{n.replace("°", " deg"): v for n, v in c.items()} for c in columns]
    series = {n: [c.get(a) for a in axes] for (n, _), c in zip(named, own, strict=True)}
    first = named[0][1]
    title = f"{first.titles[score]} that is left, {first.data}"
    note = "100 %: all sensors in order"
    return radar(title, axes, series, note + (" (simulated data)" if first.simulated else ""))


def space_section(named: Sequence[tuple[str, Robustness]]) -> str:
    """The table, the chart, and what is published, as HTML; see `draw_space_radar`."""
    parts = []
    picture = draw_space_radar(named)
    if picture is not None:
        content = base64.b64encode(image_bytes(picture, ".png")).decode()
        alt = "radar chart of what is left when sensors fail"
        parts.append(f"<figure><img alt='{alt}' src='data:image/png;base64,{content}'></figure>")
    for name, run in named:
        if len(named) > 1:
            parts.append(f"<h3>{html_text(name)}</h3>")
        parts.append(_rows(run))
        if run.late():
            parts.append(f"<h4>Late against the cameras</h4>{_late(run)}")
    parts.append(f"<p class='note'>{html_text(_EXPLAINED)}{_beams(named[0][1])}</p>")
    parts.append(f"<h3>Published, on other data</h3>{_published(named)}")
    return "".join(parts)


def _titles(run: Robustness) -> dict[str, str]:
    names = dict.fromkeys(n for f in run.space() for n in f.scores)
    return {name: run.titles.get(name, name) for name in names}


def _numbers(found: SpaceFound | None, scores: Sequence[str]) -> str:
    cells = ""
    for name in scores:
        value, left = (None, None) if found is None else (found.scores[name], found.retained[name])
        cells += f"{cell(value, left)}<td>{share(left)}</td>"
    return cells


def _rows(run: Robustness) -> str:
    titles = _titles(run)
    head = ["", "frames", *(text for title in titles.values() for text in (title, "of all"))]
    rows = [
        f"<tr><th>{html_text(f.row.name)}</th><td>{f.frames}</td>{_numbers(f, list(titles))}</tr>"
        for f in run.space()
        if f.row.group != _LATE
    ]
    return table(head, rows)


LATE_FACTS = ("frames", "vehicle moved, m", "points moved")
"""Titles of what is told beside the scores of late samples."""


def late_facts(found: LateFound) -> list[str]:
    """That, by `LATE_FACTS`."""
    moved = "-" if found.moved_m is None else f"{found.moved_m:.2f}"
    return [str(found.frames), moved, f"in {found.made}"]


def _late(run: Robustness) -> str:
    titles = _titles(run)
    head = ["", *LATE_FACTS]
    for odometry in ("without odometry", "with odometry"):
        head += [t for title in titles.values() for t in (f"{title} {odometry}", "of all")]
    rows = []
    for found in run.late():
        cells = "".join(f"<td>{text}</td>" for text in late_facts(found))
        either = (found.without, found.with_odometry)
        cells += "".join(_numbers(own, list(titles)) for own in either)
        rows.append(f"<tr><th>{round(found.seconds * 1e3)} ms</th>{cells}</tr>")
    return table(head, rows)


def _beams(run: Robustness) -> str:
    text = ""
    for sensor, own in run.told.beams.items():
        what = "beams" if own["regular"] else "bands of elevation, which stand for beams,"
        text += f" {sensor}: {own['count']} {what} {own['apart_deg']:.2g} degrees apart."
    return html_text(text)


def _published(named: Sequence[tuple[str, Robustness]]) -> str:
    columns = list(dict.fromkeys(name for rival in SPACE_RIVALS for name in rival.rows))
    rows = []
    for name, run in named:
        own = {f.row.name: f for f in run.space()}
        means = run.mean_of_inputs()
        for score, title in _titles(run).items():
            values = {n: own[n].scores[score] for n in columns if n in own}
            values |= {"clean": run.space()[0].scores[score], "mean of inputs": means.get(score)}
            rows.append(_published_row(name, title, run.data, values, columns, "ours"))
    for rival in SPACE_RIVALS:
        rows.append(
            _published_row(rival.name, rival.score, SPACE_DATA, dict(rival.rows), columns, "other")
        )
    sources = "; ".join(f"{rival.name}: {rival.source}" for rival in SPACE_RIVALS)
    note = (
        f"{sources}. Their data, sensors and training are others: only what share of its own clean score "
        "a detector keeps can be held beside ours. Empty: not said there in numbers."
    )
    return table(["", "score", "data", *_pairs(columns)], rows) + (
        f"<p class='note'>{html_text(note)}</p>"
    )


def _pairs(columns: Sequence[str]) -> list[str]:
    plain = ("clean", "mean of inputs")
    return [t for name in columns for t in ((name,) if name in plain else (name, "of clean"))]


def _published_row(
    name: str,
    title: str,
    data: str,
    values: dict[str, float | None] | dict[str, float],
    columns: Sequence[str],
    css: str,
) -> str:
    cells = [title, data]
    clean = values.get("clean")
    for column in columns:
        value = values.get(column)
        cells.append("" if value is None else percent(value))
        if column not in ("clean", "mean of inputs"):
            left = retained_share(value, clean)
            cells.append("" if left is None else share(left))
    text = "".join(f"<td>{html_text(c)}</td>" for c in cells)
    return f"<tr class='{css}'><th>{html_text(name)}</th>{text}</tr>"

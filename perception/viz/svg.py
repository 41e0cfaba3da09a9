"""Drawings for HTML pages, as SVG: cells over a picture, vectors, bars."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.files.text import html_text

Array = NDArray[np.float64]
_MOST_POINTS = 4000
_ROW = 22  # pixels
_NAMES, _VALUES, _BARS = 190, 80, 560


def _open(width: float, height: float) -> str:
    return f"<svg viewBox='0 0 {width:g} {height:g}' role='img'>"


def _thinned(count: int) -> NDArray[np.int64]:
    """Evenly spread indices, so many that a page can show them."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(np.int64))


def heat(counts: Array, size: tuple[int, int], points: Array) -> str:
    """Counts by place in a picture, with the points.

    Args:
        counts: (R, C), the top left first.
        size: (width, height) of the picture.
        points: (N, 2) pixels.
    """
    width, height = size
    rows, columns = counts.shape
    w, h, most = width / columns, height / rows, max(float(counts.max()), 1.0)
    parts = [_open(width, height)]
    for row in range(rows):
        for column in range(columns):
            count = int(counts[row, column])
            kind = "cell" if count else "cell empty"
            shade = 0.15 + 0.85 * np.sqrt(count / most)
            x, y = column * w, row * h
            parts.append(
                f"<rect class='{kind}' x='{x:g}' y='{y:g}' width='{w:g}' height='{h:g}' "
                f"style='--share:{shade:.2f}'/>"
                f"<text x='{x + w / 2:g}' y='{y + h / 2:g}' font-size='{min(w, h) / 3.2:g}'>{count}</text>"
            )
    radius = width / 500
    for x, y in points[_thinned(len(points))]:
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:g}'/>")
    return "".join([*parts, "</svg>"])


def vectors(start: Array, along: Array, size: tuple[int, int]) -> str:
    """Lines of (N, 2) pixels from where they start, with a point there."""
    width, height = size
    parts = [_open(width, height)]
    parts.append(f"<rect class='frame' width='{width}' height='{height}'/>")
    stroke, radius = width / 700, width / 450
    for index in _thinned(len(start)):
        (x, y), (dx, dy) = start[index], along[index]
        parts.append(
            f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{x + dx:.1f}' y2='{y + dy:.1f}' "
            f"stroke-width='{stroke:g}'/><circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:g}'/>"
        )
    return "".join([*parts, "</svg>"])


def bars(values: Mapping[str, float], unit: str) -> str:
    """A bar for each value by name, all from zero."""
    most = max([*values.values(), 1e-12])
    parts = [_open(_NAMES + _BARS + _VALUES, _ROW * max(len(values), 1))]
    for row, (name, value) in enumerate(values.items()):
        y, long = row * _ROW, value / most * _BARS
        middle, shown = y + _ROW / 2, html_text(_cut(name))
        parts.append(
            f"<text class='name' x='{_NAMES - 8}' y='{middle:g}' font-size='13'>{shown}</text>"
            f"<rect class='bar' x='{_NAMES}' y='{y + 3}' width='{long:.1f}' height='{_ROW - 6}'/>"
            f"<text class='value' x='{_NAMES + long + 6:.1f}' y='{middle:g}' font-size='13'>"
            f"{value:.3f} {html_text(unit)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _cut(name: str, letters: int = 26) -> str:
    """A name of at most so many letters, the end kept, which tells numbered files apart."""
    return name if len(name) <= letters else f"…{name[1 - letters :]}"

"""Drawings for HTML pages, as SVG: cells over a picture, vectors, bars, and points and curves over axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


_PLOT = (900.0, 320.0)
_LEFT, _BOTTOM, _TOP = 80.0, 46.0, 14.0
_TICKS = 5


@dataclass(frozen=True)
class Axes:
    """What a plot's axes say, and over which values they go: (least, largest)."""

    x: str
    y: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, points: Array) -> Array:
        """(N, 2) places in the drawing, of (N, 2) values."""
        low = np.array([self.x_range[0], self.y_range[0]])
        span = np.maximum(np.array([self.x_range[1], self.y_range[1]]) - low, 1e-12)
        share = (points - low) / span
        width, height = _PLOT[0] - _LEFT - 20, _PLOT[1] - _TOP - _BOTTOM
        return np.column_stack([_LEFT + share[:, 0] * width, _TOP + (1 - share[:, 1]) * height])


def range_of(*values: Array, margin: float = 0.06) -> tuple[float, float]:
    """What an axis has to go over to show values."""
    every = np.concatenate([np.ravel(v) for v in values])
    every = every[np.isfinite(every)]
    if not every.size:
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    room = margin * (high - low) or max(abs(high), 1.0) * margin
    return low - room, high + room


def plot(
    axes: Axes,
    points: Array,
    lines: Sequence[Array] = (),
    bars: Array | None = None,
    band: Array | None = None,
) -> str:
    """Points and lines over two axes.

    Args:
        axes: what they say.
        points: (N, 2).
        lines: each (M, 2), the first of them the one that counts, others dashed.
        bars: (N,) half the length of an error bar of each point.
        band: (M, 3) x, least and largest y of a shaded band.
    """
    parts = [_open(*_PLOT), *_grid(axes)]
    if band is not None:
        outline = np.concatenate([band[:, [0, 1]], band[::-1][:, [0, 2]]])
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in axes.place(outline))
        parts.append(f"<polygon class='band' points='{text}'/>")
    for index, line in enumerate(lines):
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in axes.place(line))
        dashed = " stroke-dasharray='6 5'" if index else ""
        parts.append(f"<polyline class='curve' points='{text}'{dashed}/>")
    some = _thinned(len(points))
    for index in some:
        if bars is not None and bars[index] > 0:
            ends = axes.place(points[index] + np.array([[0, -bars[index]], [0, bars[index]]]))
            (x, low), (_, high) = ends
            parts.append(f"<line x1='{x:.1f}' y1='{low:.1f}' x2='{x:.1f}' y2='{high:.1f}'/>")
    for x, y in axes.place(points[some]):
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4'/>")
    return "".join([*parts, "</svg>"])


def ticks(values: tuple[float, float]) -> Array:
    """Some round numbers between two."""
    low, high = values
    raw = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return np.round(found, int(max(0, -np.floor(np.log10(step)))))


def _grid(axes: Axes) -> list[str]:
    right, low = _PLOT[0] - 20, _PLOT[1] - _BOTTOM
    parts = [
        f"<rect class='frame' x='{_LEFT}' y='{_TOP}' width='{right - _LEFT}' height='{low - _TOP}'/>"
    ]
    for x in ticks(axes.x_range):
        at = axes.place(np.array([[x, axes.y_range[0]]]))[0, 0]
        parts.append(f"<text x='{at:.1f}' y='{low + 14}' font-size='12'>{x:.6g}</text>")
    for y in ticks(axes.y_range):
        at = axes.place(np.array([[axes.x_range[0], y]]))[0, 1]
        parts.append(
            f"<text class='name' x='{_LEFT - 8}' y='{at:.1f}' font-size='12'>{y:.6g}</text>"
        )
    middle = (_LEFT + right) / 2
    parts.append(
        f"<text x='{middle}' y='{_PLOT[1] - 10}' font-size='13'>{html_text(axes.x)}</text>"
    )
    height = (_TOP + low) / 2
    turned = f"transform='rotate(-90 14 {height})'"
    parts.append(f"<text x='14' y='{height}' font-size='13' {turned}>{html_text(axes.y)}</text>")
    return parts

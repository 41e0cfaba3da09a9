"""Radar charts: several series of shares on the same axes around a circle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = ((15, 123, 138), (214, 96, 77), (110, 84, 160), (200, 140, 20))
"""Of the series, RGB; after the last the first comes again."""

_INK, _SOFT, _FAINT = (35, 40, 48), (105, 115, 128), (218, 223, 229)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FINE = 2  # drawn so many times larger, then made smaller
_RADIUS, _ROOM = 330, 250  # pixels; beside the circle for the axes' names
_LETTER, _TITLE, _ROW, _LINE = 0.46, 0.62, 24, 20
_RINGS = (0.25, 0.5, 0.75, 1.0)
_LOWEST_TOP = 1.0  # the outer ring, unless something is above it
_HIGHEST = 1.25  # what is above is drawn here


def radar(
    title: str, axes: Sequence[str], series: Mapping[str, Sequence[float | None]], note: str = ""
) -> Image:
    """A radar chart.

    Args:
        title: above it; what is not ASCII in any text is drawn as `?`.
        axes: their names, clockwise from the top; at least three.
        series: by name, a share for each axis, where 1 is the ring of the clean score; None is a gap.
        note: below it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there are fewer than three axes, or a series is not as long as they are.
    """
    if len(axes) < 3 or any(len(values) != len(axes) for values in series.values()):
        raise ValueError("a radar chart has at least three axes, and a value of each series on all")
    radius = max(_RADIUS, 7 * len(axes))
    angles = -np.pi / 2 + 2 * np.pi * np.arange(len(axes)) / len(axes)
    out = np.stack([np.cos(angles), np.sin(angles)], 1)
    names = _places(out, radius + 18)
    above, below = -min(y for _, y in names), max(y for _, y in names)
    wide = 2 * (radius + _ROOM)
    head = 54 + _ROW * len(series)
    high = round(head + above + below + 60)
    canvas = np.full((high * _FINE, wide * _FINE, 3), 255, np.uint8)
    center = np.array([wide / 2, head + above + 10])
    known = [v for values in series.values() for v in values if v is not None]
    top = min(_HIGHEST, max([_LOWEST_TOP, *known]))
    _draw_rings(canvas, center, radius / top, out, top)
    for name, direction, place in zip(axes, out, names, strict=True):
        _line(canvas, center, center + direction * radius, _FAINT)
        _line(canvas, center + direction * radius, center + place, _FAINT)
        _name(canvas, name, center + place, to_right=bool(place[0] >= 0))
    drawn = [
        [
            None if v is None else center + d * radius * min(max(v, 0.0), top) / top
            for v, d in zip(values, out, strict=True)
        ]
        for values in series.values()
    ]
    colors = [COLORS[number % len(COLORS)] for number in range(len(drawn))]
    for points, color in zip(drawn, colors, strict=True):
        _fill(canvas, points, color)
    for number, (points, color) in enumerate(zip(drawn, colors, strict=True)):
        # Above the areas; an earlier one is wider, so that it shows beside one on top of it.
        _draw_lines(canvas, points, color, 2 + 2.5 * (len(drawn) - 1 - number))
    _text(canvas, title, (28, 34), _TITLE, _INK, 1.5)
    for number, name in enumerate(series):
        y = 34 + _ROW * (number + 1)
        _line(canvas, (28, y - 5), (58, y - 5), COLORS[number % len(COLORS)], 3)
        _text(canvas, name, (68, y), _LETTER, _INK)
    _text(canvas, note, (28, high - 16), 0.42, _SOFT)
    small: Image = cv2.resize(canvas, (wide, high), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return small


def _draw_rings(
    canvas: Image, center: NDArray[np.float64], scale: float, out: NDArray[np.float64], top: float
) -> None:
    for share in _RINGS:
        ring = center + out * scale * share
        color = _SOFT if share == 1 else _FAINT
        _polygon(canvas, ring, color, 1.2 if share == 1 else 1.0)
    for share in _RINGS:
        x, y = center + out[0] * scale * share
        _text(canvas, f"{100 * share:.0f} %", (x + 5, y + 13), 0.36, _SOFT)


_Points = Sequence[NDArray[np.float64] | None]


def _fill(canvas: Image, points: _Points, color: Color) -> None:
    known = [p for p in points if p is not None]
    if len(known) == len(points):
        filled = canvas.copy()
        cv2.fillPoly(filled, [_pixels(np.array(known))], color, cv2.LINE_AA)
        cv2.addWeighted(filled, 0.13, canvas, 0.87, 0, canvas)


def _draw_lines(canvas: Image, points: _Points, color: Color, thick: float) -> None:
    known = [p for p in points if p is not None]
    for first, second in zip(points, [*points[1:], points[0]], strict=True):
        if first is not None and second is not None:
            _line(canvas, first, second, color, thick)
    for point in known:
        x, y = (round(float(v) * _FINE) for v in point)
        cv2.circle(canvas, (x, y), round((3 + thick / 2) * _FINE), color, -1, cv2.LINE_AA)


def _places(out: NDArray[np.float64], distance: float) -> list[NDArray[np.float64]]:
    """Where the names begin or end, from the center: around the circle, but never closer than a line."""
    places = [direction * distance for direction in out]
    right = [i for i, place in enumerate(places) if place[0] > -1e-6]
    left = [i for i in range(len(places)) if i not in right]
    for side in (right, left):
        for sign in (1, -1):  # down, and up, from beside the center
            last = -np.inf
            for i in sorted(side, key=lambda i: sign * places[i][1]):
                if sign * places[i][1] < -_LINE / 2 + 1e-6:
                    continue
                last = max(last + _LINE, sign * float(places[i][1]))
                places[i] = np.array([places[i][0], sign * last])
    return places


def _name(canvas: Image, name: str, at: NDArray[np.float64], *, to_right: bool) -> None:
    (wide, high), _ = cv2.getTextSize(_ascii(name), _FONT, _LETTER, 1)
    x = at[0] + 5 if to_right else at[0] - wide - 5
    _text(canvas, name, (x, at[1] + high / 2), _LETTER, _INK)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\n", " ")


def _pixels(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * _FINE).astype(np.int32)


def _polygon(canvas: Image, points: NDArray[np.float64], color: Color, thick: float) -> None:
    cv2.polylines(canvas, [_pixels(points)], True, color, round(thick * _FINE), cv2.LINE_AA)


def _line(
    canvas: Image,
    start: NDArray[np.float64] | tuple[float, float],
    stop: NDArray[np.float64] | tuple[float, float],
    color: Color,
    thick: float = 1,
) -> None:
    ends = [(round(float(p[0]) * _FINE), round(float(p[1]) * _FINE)) for p in (start, stop)]
    cv2.line(canvas, ends[0], ends[1], color, round(thick * _FINE), cv2.LINE_AA)


def _text(
    canvas: Image,
    text: str,
    at: tuple[float, float],
    size: float,
    color: Color,
    thick: float = 1,
) -> None:
    place = round(at[0] * _FINE), round(at[1] * _FINE)
    cv2.putText(
        canvas,
        _ascii(text),
        place,
        _FONT,
        size * _FINE,
        color,
        max(1, round(thick * _FINE * 0.8)),
        cv2.LINE_AA,
    )

"""Reliability diagrams: accuracy against confidence, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.metrics.confidence import ConfidenceHistogram, Reliability

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

_SIDE, _MARGIN, _BELOW, _TITLE = 220, 44, 74, 34  # of one diagram, in pixels
_COLUMNS = 4
_INK, _FAINT = (40, 40, 40), (205, 205, 205)
BEFORE, AFTER = (214, 96, 77), (33, 102, 172)
"""Colors of the curves, RGB."""


def reliability_diagrams(
    before: Mapping[str, ConfidenceHistogram], after: Mapping[str, ConfidenceHistogram]
) -> Image:
    """A diagram for each of `after`, at most four side by side.

    A curve above the diagonal is of answers that are better than they say; the bars below show how many there
    are of each confidence after calibration, the highest bar being the fullest bin.

    Args:
        before: by title, what was counted before.
        after: by title.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cells = [_diagram(title, before.get(title), found) for title, found in after.items()]
    columns = min(_COLUMNS, max(1, len(cells)))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack(rows)


def _diagram(title: str, before: ConfidenceHistogram | None, after: ConfidenceHistogram) -> Image:
    height, width = _TITLE + _SIDE + _BELOW + _MARGIN, _SIDE + 2 * _MARGIN
    image = np.full((height, width, 3), 255, np.uint8)
    left, top = _MARGIN, _TITLE
    for i in range(6):
        at = round(i * _SIDE / 5)
        cv2.line(image, (left + at, top), (left + at, top + _SIDE), _FAINT, 1)
        cv2.line(image, (left, top + at), (left + _SIDE, top + at), _FAINT, 1)
        _text(image, f"{i / 5:.1f}", (left + at - 9, height - _MARGIN + 16), 0.34)
        _text(image, f"{1 - i / 5:.1f}", (left - 26, top + at + 4), 0.34)
    cv2.line(image, (left, top + _SIDE), (left + _SIDE, top), _INK, 1, cv2.LINE_AA)
    _bars(image, after.reliability())
    for found, color in ((before, BEFORE), (after, AFTER)):
        if found is not None:
            _curve(image, found.reliability(), color)
    _text(image, title, (left, 14), 0.42)
    if before is not None:
        _text(image, f"before: ECE {100 * before.ece():.1f}", (left, 28), 0.36, BEFORE)
    _text(image, f"after: {100 * after.ece():.1f}", (left + 120, 28), 0.36, AFTER)
    _text(image, "accuracy", (left + 4, top + 12), 0.36)
    _text(image, "confidence", (left + _SIDE // 2 - 32, height - _MARGIN + 32), 0.36)
    return image


def _curve(image: Image, found: Reliability, color: Color) -> None:
    """Through the bins that hold at least a thousandth of the answers, a dot for each."""
    full = found.count >= max(1, found.count.sum() // 1000)
    x = _MARGIN + found.confidence[full] * _SIDE
    y = _TITLE + (1 - found.accuracy[full]) * _SIDE
    points = np.stack([x, y], 1).round().astype(np.int32)
    cv2.polylines(image, [points], False, color, 2, cv2.LINE_AA)
    for point in points:
        cv2.circle(image, tuple(int(v) for v in point), 3, color, -1, cv2.LINE_AA)


def _bars(image: Image, found: Reliability) -> None:
    bottom, room = _TITLE + _SIDE + _BELOW, _BELOW - 14
    highest = max(1, int(found.count.max()))
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.count, strict=True):
        x0, x1 = (int(_MARGIN + v * _SIDE) for v in (low, high))
        cv2.rectangle(
            image, (x0, bottom - round(room * count / highest)), (x1 - 1, bottom), AFTER, -1
        )
    cv2.line(image, (_MARGIN, bottom), (_MARGIN + _SIDE, bottom), _INK, 1)


def _text(image: Image, text: str, at: tuple[int, int], size: float, color: Color = _INK) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)

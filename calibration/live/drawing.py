"""The picture for whoever holds the board: its points, where it has been, and what is wanted next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.detection import stretched
from calibration.intrinsics import coverage_of
from calibration.live.hints import Wish
from calibration.live.sighting import Sighting

Image = NDArray[np.uint8]

_HEIGHT = 360
_BAR, _LINE = 14, 22
_GOOD, _BAD, _TEXT, _DIM = (80, 220, 80), (240, 90, 60), (240, 240, 240), (70, 70, 70)
_COVERED, _SHARE = (60, 120, 255), 0.25


@dataclass(frozen=True)
class Panel:
    """One camera's part of the picture.

    Attributes:
        name: the camera's.
        image: (H, W) or (H, W, 3) of R, G, B; uint8, uint16 or float32.
        now: the board in it.
        problem: why it is not taken.
        taken: the views that were.
        wish: what is wanted.
    """

    name: str
    image: NDArray[Any]
    now: Sighting | None
    problem: str
    taken: Sequence[Sighting]
    wish: Wish


def draw_panels(panels: Sequence[Panel], head: str) -> Image:
    """(H, W, 3) uint8 in R, G, B order: the cameras side by side under a line of text."""
    drawn = [_panel(one) for one in panels]
    whole = np.hstack(drawn) if drawn else np.zeros((0, 640, 3), np.uint8)
    top = np.zeros((_LINE + 8, whole.shape[1], 3), np.uint8)
    _write(top, head, (8, _LINE), _TEXT, 0.55)
    return np.asarray(np.vstack([top, whole]), np.uint8)


def _panel(one: Panel) -> Image:
    height, width = one.image.shape[:2]
    scale = _HEIGHT / height
    small = cv2.resize(_shown(one.image), (max(1, round(width * scale)), _HEIGHT))
    small = _covered(small, one.taken)
    color = _BAD if one.problem else _GOOD
    if one.now is not None:
        pixels = (one.now.view.pixels + 0.5) * scale - 0.5
        line = np.round(pixels * 16).astype(np.int32)
        cv2.polylines(small, [line], False, color, 1, cv2.LINE_AA, 4)
        radius = round(float(np.clip(one.now.square_px * scale / 5, 1, 4)) * 16)
        for x, y in line.tolist():
            cv2.circle(small, (x, y), radius, color, -1, cv2.LINE_AA, 4)
    below = np.zeros((2 * _LINE + _BAR + 12, small.shape[1], 3), np.uint8)
    _write(below, f"{one.name}: {one.problem or 'good'}", (8, _LINE - 4), color, 0.5)
    _write(below, one.wish.text, (8, 2 * _LINE - 4), _TEXT, 0.5)
    _bars(below, one.wish.progress, 2 * _LINE + 4)
    return np.asarray(np.vstack([small, below]), np.uint8)


def _shown(image: NDArray[Any]) -> Image:
    if image.ndim == 3:
        return np.ascontiguousarray(image[:, :, :3], np.uint8)
    values = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    gray = stretched(values) if np.ptp(values) > 0 else np.zeros(values.shape, np.uint8)
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8)


def _covered(small: Image, taken: Sequence[Sighting]) -> Image:
    """Places that the board was seen at, tinted."""
    if not taken:
        return small
    cells = (coverage_of([one.view for one in taken]) > 0).astype(np.uint8)
    size = (small.shape[1], small.shape[0])
    mask = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)[:, :, None]
    tint = np.array(_COVERED) * (_SHARE * mask)
    return np.asarray(small * (1 - _SHARE * mask) + tint, np.uint8)


def _bars(below: Image, progress: Mapping[str, float], top: int) -> None:
    width = below.shape[1] // max(1, len(progress))
    for index, (name, share) in enumerate(progress.items()):
        left = index * width + 4
        end = left + width - 8
        cv2.rectangle(below, (left, top), (end, top + _BAR), _DIM, -1)
        full = left + round((width - 8) * share)
        color = tuple(value // 2 for value in _GOOD) if share >= 1 else _COVERED
        cv2.rectangle(below, (left, top), (full, top + _BAR), color, -1)
        _write(below, name, (left + 4, top + _BAR - 3), _TEXT, 0.38)


def _write(
    image: Image, text: str, at: tuple[int, int], color: tuple[int, int, int], size: float
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    text = text.encode("ascii", "replace").decode()
    wide = cv2.getTextSize(text, font, size, 1)[0][0]
    size = min(size, size * (image.shape[1] - at[0] - 4) / max(wide, 1))
    cv2.putText(image, text, at, font, size, color, 1, cv2.LINE_AA)

"""The ground from above: points and boxes about the vehicle, ahead is up and left is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.boxes import corners_of
from perception.tasks.task import Image

Extent = tuple[tuple[float, float], tuple[float, float]]
"""From and to in metres, of x (forward) and of y (to the left)."""

IGNORED = (150, 150, 150)
"""RGB of boxes whose class is -1."""

_GROUND, _RING, _INK = (18, 20, 24), (52, 56, 62), (130, 134, 140)
_WHITE = (255, 255, 255)
_LOW_M, _HIGH_M = -0.5, 3.0  # heights between which points get brighter
_DARKEST, _BRIGHTEST = 85, 215
_AHEAD_S = 1.0  # an arrow shows how far a box comes in this time
_SLOWEST = 0.3  # m/s: what is slower has no arrow
_FAINTEST = 0.35  # of a box's color where its score is 0
_LIGHT, _PALER = (
    215,
    0.2,
)  # the strongest channel of a color, and its share of white: dark ones would be lost
_SHIFT = 4  # OpenCV's fixed point
_STEPS_M = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
_RINGS = 6  # at most


@dataclass(frozen=True, eq=False)
class ShownBoxes:
    """Boxes that stand upright, in the vehicle's base frame.

    Attributes:
        center: (N, 3) metres.
        size: (N, 3) metres: length, width, height.
        yaw: (N,) radians about z.
        class_ids: (N,) places in `colors`, -1 for `IGNORED`.
        colors: RGB of each class.
        scores: (N,) in 0..1, None for full color.
        velocity: (N, 2) m/s in the base frame's axes, NaN where it is not known; None for none.
    """

    center: NDArray[np.floating]
    size: NDArray[np.floating]
    yaw: NDArray[np.floating]
    class_ids: NDArray[np.integer]
    colors: Sequence[tuple[int, int, int]]
    scores: NDArray[np.floating] | None = None
    velocity: NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.class_ids)

    def rgb(self) -> NDArray[np.uint8]:
        """(N, 3) the color of each."""
        table = np.array([*self.colors, IGNORED], np.float64)  # -1 is the last
        strongest = table.max(axis=1, keepdims=True)
        table *= np.maximum(1.0, _LIGHT / np.maximum(strongest, 1.0))
        table += _PALER * (255 - table)
        found = table[np.asarray(self.class_ids, np.int64)]
        if self.scores is not None:
            share = _FAINTEST + (1 - _FAINTEST) * np.clip(self.scores, 0, 1)
            found = found * np.asarray(share)[:, None]
        return found.round().astype(np.uint8)


def size_for(extent: Extent, longest: int = 800) -> tuple[int, int]:
    """(height, width) of a picture of an extent whose longer side has so many pixels."""
    sides = [high - low for low, high in extent]
    height, width = (max(1, round(longest * side / max(sides))) for side in sides)
    return height, width


def draw_birdseye(
    points: NDArray[np.floating] | None,
    boxes: ShownBoxes | None,
    extent: Extent,
    size: tuple[int, int],
    truth: ShownBoxes | None = None,
) -> Image:
    """Points as dots, brighter where they are higher; boxes with a line to their front and an arrow of the
    way that they go in a second.  Rings are around the vehicle, whose place is a triangle.

    Args:
        points: (N, C >= 3) metres in the vehicle's base frame (REP 105: x forward, y left, z up).
        boxes: in the same.
        extent: what is shown.
        size: (height, width) in pixels, see `size_for`.
        truth: what boxes are held against, as thin lines of its own colors over them.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = np.full((*size, 3), _GROUND, np.uint8)
    ground = _Ground(extent, size)
    _draw_rings(image, ground)
    if points is not None:
        _draw_points(image, ground, points)
    _draw_vehicle(image, ground)
    if boxes is not None:
        _draw_boxes(image, ground, boxes)
    if truth is not None:
        _draw_outlines(image, ground, truth)
    return image


@dataclass(frozen=True)
class _Ground:
    """Where a place lies in the picture."""

    extent: Extent
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels a metre along x and y."""
        (x0, x1), (y0, y1) = self.extent
        return self.size[0] / (x1 - x0), self.size[1] / (y1 - y0)

    def pixels(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, C >= 2) metres as (N, 2) u, v, the middle of the first pixel being 0."""
        along, across = self.scale
        u = (self.extent[1][1] - places[..., 1]) * across - 0.5
        v = (self.extent[0][1] - places[..., 0]) * along - 0.5
        return np.stack([u, v], axis=-1)

    def fixed(self, places: NDArray[np.floating]) -> NDArray[np.int32]:
        """The same in OpenCV's fixed point."""
        return np.asarray((self.pixels(places) * (1 << _SHIFT)).round(), np.int32)

    def shows(self, places: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of (N, K, 2) outlines reach into the picture."""
        low, high = np.array(self.extent).T
        found: NDArray[np.bool_] = np.isfinite(places).all(axis=(1, 2))
        return found & (places.max(axis=1) >= low).all(1) & (places.min(axis=1) <= high).all(1)


def _draw_points(image: Image, ground: _Ground, points: NDArray[np.floating]) -> None:
    xyz = np.asarray(points)[:, :3]
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    with np.errstate(over="ignore"):
        cell = np.floor(ground.pixels(xyz) + 0.5)
    height, width = ground.size
    inside = (cell >= 0).all(axis=1) & (cell[:, 0] < width) & (cell[:, 1] < height)
    column, row = cell[inside].astype(np.int64).T
    share = ((xyz[inside, 2] - _LOW_M) / (_HIGH_M - _LOW_M)).clip(0, 1)
    bright = (_DARKEST + (_BRIGHTEST - _DARKEST) * share).astype(np.uint8)
    np.maximum.at(image, (row, column), bright[:, None])


def _draw_rings(image: Image, ground: _Ground) -> None:
    """Circles around the vehicle at even distances, which are written where they cross an edge or axis."""
    (x0, x1), (y0, y1) = ground.extent
    reach = max(abs(x0), abs(x1), abs(y0), abs(y1))
    step = next((s for s in _STEPS_M if reach / s <= _RINGS), _STEPS_M[-1])
    center = ground.fixed(np.zeros(2))
    along, across = ground.scale
    letters = max(0.35, min(image.shape[:2]) / 1600)
    for number in range(1, min(int(np.hypot(reach, reach) / step), 2 * _RINGS) + 1):
        radius = number * step
        axes = [round(radius * s * (1 << _SHIFT)) for s in (across, along)]
        ring = center.tolist(), axes, 0.0, 0.0, 360.0, _RING, 1, cv2.LINE_AA, _SHIFT
        cv2.ellipse(image, *ring)
        u, v = ground.pixels(np.array([radius if radius < x1 else -radius, 0.0])).round()
        text = f"{radius:g} m" if number == 1 else f"{radius:g}"
        at = int(u) + 3, int(v) - 3
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, letters, _INK, 1, cv2.LINE_AA)


def _draw_vehicle(image: Image, ground: _Ground) -> None:
    outline = ground.fixed(np.array([[2.0, 0.0], [-1.0, 0.9], [-1.0, -0.9]]))
    cv2.fillPoly(image, [outline], (235, 235, 235), cv2.LINE_AA, _SHIFT)


def _outlines(boxes: ShownBoxes) -> NDArray[np.float64]:
    """(N, 4, 2) of their bottoms, once around; the last two are in front."""
    return corners_of(boxes.center, boxes.size, boxes.yaw)[:, [0, 2, 6, 4], :2]


def _draw_outlines(image: Image, ground: _Ground, boxes: ShownBoxes) -> None:
    outlines, colors = _outlines(boxes), boxes.rgb().tolist()
    for i in np.flatnonzero(ground.shows(outlines)).tolist():
        line = ground.fixed(outlines[i])
        cv2.polylines(image, [line], True, colors[i], 1, cv2.LINE_AA, _SHIFT)


def _draw_boxes(image: Image, ground: _Ground, boxes: ShownBoxes) -> None:
    outlines = _outlines(boxes)
    ahead = outlines[:, 2:].mean(axis=1)
    thick = max(1, round(max(image.shape[:2]) / 400))
    center = np.asarray(boxes.center, np.float64)
    colors = boxes.rgb().tolist()
    shown = np.flatnonzero(ground.shows(outlines))
    order = shown if boxes.scores is None else shown[np.argsort(boxes.scores[shown])]
    for i in order.tolist():
        outline = ground.fixed(outlines[i])
        cv2.polylines(image, [outline], True, colors[i], thick, cv2.LINE_AA, _SHIFT)
        middle, front = ground.fixed(np.stack([center[i, :2], ahead[i]])).tolist()
        cv2.line(image, middle, front, colors[i], thick, cv2.LINE_AA, _SHIFT)
        if boxes.velocity is None:
            continue
        speed = float(np.linalg.norm(boxes.velocity[i]))
        if _SLOWEST <= speed < np.inf:  # False for NaN
            goal = center[i, :2] + np.asarray(boxes.velocity[i]) * _AHEAD_S
            end = ground.fixed(goal).tolist()
            tip = 0.8 / max(0.8, speed * _AHEAD_S)
            cv2.arrowedLine(image, middle, end, _WHITE, 1, cv2.LINE_AA, _SHIFT, tip)

"""Areas that turned rectangles share: by hand, sliced, and moved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.metrics.boxes3d.overlap import intersection_of_turned


def _area(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return float(intersection_of_turned(np.array([a], float), np.array([b], float))[0])


def test_areas_that_turned_rectangles_share() -> None:
    unit = (0.0, 0.0, 1.0, 1.0, 0.0)
    assert _area(unit, unit) == pytest.approx(1)
    assert _area(unit, (0, 0, 1, 1, math.pi / 2)) == pytest.approx(1)
    # A regular octagon whose inner circle has radius 1/2: 8 tan(22.5 deg) r^2 = 2 (sqrt 2 - 1).
    assert _area(unit, (0, 0, 1, 1, math.pi / 4)) == pytest.approx(2 * (math.sqrt(2) - 1))
    assert _area((5, 5, 4, 2, 0.3), (5, 5, 1, 0.5, 2.0)) == pytest.approx(0.5)  # within the other
    assert _area((0, 0, 4, 2, 0), (0, 0, 4, 2, math.pi / 2)) == pytest.approx(4)  # a cross
    assert _area((0, 0, 4, 2, 0), (3, 1, 4, 2, 0)) == pytest.approx(1)
    assert _area(unit, (1, 0, 1, 1, 0)) == 0  # they touch
    assert _area(unit, (0, 0, 0, 1, 0.5)) == 0
    assert _area((9, 9, -1, -1, -10), (9, 9, -1, -1, -10)) == pytest.approx(1)
    assert intersection_of_turned(np.zeros((0, 5)), np.zeros((0, 5))).shape == (0,)


_RECTANGLE = st.tuples(
    st.floats(-4, 4), st.floats(-4, 4), st.floats(0.1, 6), st.floats(0.1, 6), st.floats(-7, 7)
)


@given(_RECTANGLE, _RECTANGLE, st.floats(-7, 7), st.floats(-50, 50))
def test_shared_areas_are_those_of_slices_and_move_with_the_rectangles(
    a: tuple[float, ...], b: tuple[float, ...], turn: float, shift: float
) -> None:
    shared = _area(a, b)
    assert -1e-12 <= shared <= min(a[2] * a[3], b[2] * b[3]) + 1e-9
    assert _area(b, a) == pytest.approx(shared, abs=1e-9)

    def moved(box: tuple[float, ...]) -> tuple[float, ...]:
        x, y, length, width, angle = box
        c, s = math.cos(turn), math.sin(turn)
        return c * x - s * y + shift, s * x + c * y - shift, length, width, angle + turn

    assert _area(moved(a), moved(b)) == pytest.approx(shared, abs=1e-9)
    # Sliced along x: what of each line lies in both.
    x, step = np.linspace(-9, 9, 40_001, retstep=True)
    within = [_chord(x, box) for box in (a, b)]
    low, high = (
        f(one, other) for f, one, other in zip((np.maximum, np.minimum), *within, strict=True)
    )
    assert shared == pytest.approx(float((high - low).clip(0).sum() * step), abs=5e-3)


def _chord(x: np.ndarray[Any, Any], box: tuple[float, ...]) -> tuple[Any, Any]:
    """From where to where a rectangle covers the line of each x."""
    low, high = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    for side, (u, v) in (
        (box[2], (math.cos(box[4]), math.sin(box[4]))),
        (box[3], (-math.sin(box[4]), math.cos(box[4]))),
    ):
        along = u * (x - box[0])  # the line's points have |along + v (y - box[1])| <= side / 2
        if abs(v) < 1e-9:
            high[np.abs(along) > side / 2] = -np.inf
            continue
        ends = box[1] + (np.array([[-side / 2], [side / 2]]) - along) / v
        low, high = np.maximum(low, ends.min(0)), np.minimum(high, ends.max(0))
    return low, high

"""Radar charts: what is drawn where."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.viz.radar import COLORS, _places, radar


def _painted(image: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of a color, below the legend."""
    return int((np.abs(image[90:].astype(int) - color).sum(axis=2) < 12).sum())


def test_a_larger_share_is_farther_out() -> None:
    axes = [f"axis {i}" for i in range(8)]
    rows = []
    for share in (0.25, 0.5, 1.0):
        image = radar("title", axes, {"one": [share] * 8})
        found = np.argwhere(np.abs(image[90:].astype(int) - COLORS[0]).sum(axis=2) < 12)
        rows.append(np.ptp(found[:, 0]))
    assert rows[0] < 0.6 * rows[1] < 0.36 * rows[2]


def test_gaps_and_several_series() -> None:
    axes = ["a", "b", "c", "d"]
    image = radar("t", axes, {"one": [0.5, None, 0.5, 0.5], "two": [1.0] * 4}, "a note")
    assert image.dtype == np.uint8 and image.ndim == 3
    assert 0 < _painted(image, COLORS[0]) < _painted(image, COLORS[1])
    nothing = radar("t", axes, {"one": [None] * 4})
    assert _painted(nothing, COLORS[0]) == 0


@settings(max_examples=60)
@given(st.integers(3, 120))
def test_names_never_lie_on_each_other(count: int) -> None:
    angles = -np.pi / 2 + 2 * np.pi * np.arange(count) / count
    places = _places(np.stack([np.cos(angles), np.sin(angles)], 1), max(330, 7 * count) + 18)
    for right in (True, False):
        side = sorted(p[1] for p in places if (p[0] > -1e-6) == right)
        assert all(b - a >= 9.9 for a, b in itertools.pairwise(side))


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=3, max_size=8),
    st.text(max_size=30),
)
def test_any_shares_and_texts(shares: list[float | None], text: str) -> None:
    image = radar(text, [text] * len(shares), {text: shares}, text)
    assert image.shape[2] == 3


def test_what_is_no_radar() -> None:
    with pytest.raises(ValueError):
        radar("t", ["a", "b"], {"one": [1.0, 1.0]})
    with pytest.raises(ValueError):
        radar("t", ["a", "b", "c"], {"one": [1.0, 1.0]})

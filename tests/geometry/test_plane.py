"""A plane through points of which some do not lie on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.plane import fit_plane


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 3.0),
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
    st.floats(0.0, 0.35),
)
def test_the_ground_is_found_among_other_things(
    seed: int, below: float, slope_x: float, slope_y: float, others: float
) -> None:
    rng = np.random.default_rng(seed)
    normal = np.array([slope_x, slope_y, 1.0]) / np.linalg.norm([slope_x, slope_y, 1.0])
    flat = rng.uniform(-8, 8, (600, 2))
    z = -(below / normal[2]) - (flat @ normal[:2]) / normal[2] + rng.normal(0, 0.01, 600)
    points = np.column_stack([flat, z])
    wrong = rng.random(600) < others
    points[wrong] += normal * rng.uniform(0.5, 3, wrong.sum())[:, None]
    plane = fit_plane(points.astype(np.float32), 0.04)
    assert plane is not None
    assert np.arccos(np.clip(plane.normal @ normal, -1, 1)) < np.radians(1.0)
    assert plane.offset == pytest.approx(-below, abs=0.05)
    # The sensor is above it, and so are the things that stand on it.
    heights = plane.height(points.astype(np.float32))
    assert np.abs(heights[~wrong]).max() < 0.15
    assert not wrong.any() or heights[wrong].min() > 0.3


def test_no_plane_where_there_is_none() -> None:
    rng = np.random.default_rng(3)
    assert fit_plane(rng.uniform(-5, 5, (500, 3)).astype(np.float32), 0.05) is None
    assert fit_plane(np.zeros((29, 3), np.float32), 0.05) is None
    assert fit_plane(np.zeros((0, 3), np.float32), 0.05) is None
    assert fit_plane(np.ones((100, 3), np.float32), 0.05) is None  # all in one place
    line = np.linspace(0, 1, 100, dtype=np.float32)[:, None] * np.float32([1, 2, 0])
    fit_plane(line, 0.05)  # any plane through it, or none


def test_the_same_points_give_the_same_plane() -> None:
    points = np.random.default_rng(0).normal(0, [5, 5, 0.02], (5000, 3)).astype(np.float32)
    first, again = fit_plane(points, 0.05), fit_plane(points.copy(), 0.05)
    assert first is not None and again is not None
    assert (first.normal == again.normal).all() and first.offset == again.offset

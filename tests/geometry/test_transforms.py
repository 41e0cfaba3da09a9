"""Rigid transforms: group laws and refused input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import CalibrationError
from perception.geometry.transforms import RigidTransform

seeds = st.integers(0, 2**32 - 1)


def _random(seed: int) -> RigidTransform:
    rng = np.random.default_rng(seed)
    return RigidTransform.from_quaternion_xyzw(rng.normal(size=4), rng.normal(size=3))


@given(seeds, seeds)
def test_composition_and_inverse(first: int, second: int) -> None:
    a, b = _random(first), _random(second)
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.allclose((a @ b).apply(points), a.apply(b.apply(points)))
    assert np.allclose(a.inverse().apply(a.apply(points)), points)
    assert np.allclose(RigidTransform.from_matrix(a.matrix).matrix, a.matrix)


def test_a_quarter_turn_around_z_takes_x_to_y() -> None:
    half = np.sqrt(0.5)
    turn = RigidTransform.from_quaternion_xyzw([0, 0, half, half], [1, 2, 3])
    assert np.allclose(turn.apply(np.array([[1.0, 0, 0]])), [[1, 3, 3]])


@pytest.mark.parametrize(
    "rotation", [np.ones((3, 3)), np.diag([1, 1, -1]), np.eye(2), np.full((3, 3), np.nan), "abc"]
)
def test_what_is_no_rotation_is_refused(rotation: object) -> None:
    with pytest.raises(CalibrationError):
        RigidTransform(rotation, np.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [1, 2, 3], [np.inf, 0, 0, 1]])
def test_what_is_no_quaternion_is_refused(quaternion: list[float]) -> None:
    with pytest.raises(CalibrationError):
        RigidTransform.from_quaternion_xyzw(quaternion, np.zeros(3))

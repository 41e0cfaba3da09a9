"""Rigid transforms: group laws and refused input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perception.errors import CalibrationError, InputError
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


vectors = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 1e-3)


@given(vectors, st.floats(-2 * np.pi, 2 * np.pi), st.floats(1e-6, 1e6))
@example((1, 0, 0), np.pi, 1)
@example((0, 1, 0), np.pi, 1)
@example((0, 0, 1), np.pi, 1)
@example((0, 0, 1), 0, 1)
@example((1, 1, 1), 2 * np.pi / 3, 1)
@example((1, 0.2, 0), 4.0, 1)
@example((0, 1, 0.1), 4.0, 2)
@example((0.1, 0, 1), 4.0, 0.5)
def test_a_quaternion_turns_about_its_axis_and_comes_back(
    axis: tuple[float, float, float], angle: float, length: float
) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    q = np.array([*np.sin(angle / 2) * unit, np.cos(angle / 2)])
    turn = RigidTransform.from_quaternion_xyzw(q * length, (0, 0, 0))
    np.testing.assert_allclose(turn.rotation, cv2.Rodrigues(unit * angle)[0], atol=1e-9)
    back = np.array(turn.quaternion_xyzw)
    assert back[3] >= 0 and np.linalg.norm(back) == pytest.approx(1)
    assert min(np.abs(back - q).max(), np.abs(back + q).max()) < 1e-9


def test_a_rotation_with_digits_cut_off_becomes_one_and_others_are_refused() -> None:
    exact = _random(4).rotation
    cut = RigidTransform(exact.round(4), np.zeros(3)).rotation
    assert np.abs(cut @ cut.T - np.eye(3)).max() < 1e-12
    assert np.abs(cut - exact).max() < 1e-4
    for wrong in (exact.round(1), exact * 1.01, exact[::-1], -exact):
        with pytest.raises(CalibrationError, match="not a rotation matrix"):
            RigidTransform(wrong, np.zeros(3))
    same = RigidTransform(np.eye(3)[[1, 2, 0]], np.zeros(3)).rotation
    assert same.tolist() == np.eye(3)[[1, 2, 0]].tolist()


def test_matrices_of_three_and_four_rows() -> None:
    wanted = _random(5)
    for rows in (wanted.matrix, wanted.matrix[:3]):
        found = RigidTransform.from_matrix(rows)
        assert np.array_equal(found.translation, wanted.translation)
        assert np.allclose(found.rotation, wanted.rotation, atol=1e-12)
    assert np.array_equal(RigidTransform.identity().matrix, np.eye(4))
    for shape in ((3, 3), (4, 3), (5, 4), (16,)):
        with pytest.raises(CalibrationError, match=r"expected \(4, 4\)"):
            RigidTransform.from_matrix(np.ones(shape))
    for row in ([0, 0, 0, 2], [0, 0, 1, 1], [1, 0, 0, 1]):
        with pytest.raises(CalibrationError, match="last row"):
            RigidTransform.from_matrix([*wanted.matrix[:3], row])


@pytest.mark.parametrize("translation", [[1, 2], [1, 2, 3, 4], [[1, 2, 3]], [1, 2, np.inf], "xyz"])
def test_what_is_no_translation_is_refused(translation: object) -> None:
    with pytest.raises(CalibrationError, match="translation"):
        RigidTransform(np.eye(3), translation)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3), (3, 1)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(N, 3\)"):
        RigidTransform.identity().apply(np.ones(shape))


@pytest.mark.parametrize(
    ("given", "wanted"), [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)]
)
def test_points_keep_their_floating_type(given: type, wanted: type) -> None:
    assert _random(6).apply(np.ones((2, 3), given)).dtype == wanted

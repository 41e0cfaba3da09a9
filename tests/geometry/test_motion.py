"""Odometry as it comes, and clouds as if measured at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.frame import Sample
from perception.geometry.motion import Odometry, deskewed
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

MS = 1_000_000
ROOF = RigidTransform.from_quaternion_xyzw((0, 0, 0.1, 1), (0.5, 0.1, 1.7))


def driving(speed: float, turn: float, t: float) -> RigidTransform:
    """Where a vehicle is after `t` seconds on a circle, or straight on."""
    angle = turn * t
    # By the chord, which is smooth where the circle becomes a line: no division by a tiny turn.
    chord = speed * t * np.sinc(angle / (2 * np.pi))
    x, y = chord * np.cos(angle / 2), chord * np.sin(angle / 2)
    return RigidTransform.from_quaternion_xyzw(
        (0, 0, np.sin(angle / 2), np.cos(angle / 2)), (x, y, 0)
    )


def odometry(speed: float, turn: float = 0.0, until: int = 400) -> Odometry:
    found = Odometry()
    for ms in range(0, until, 10):
        found.note(ms * MS, driving(speed, turn, ms / 1000))
    return found


@given(st.floats(0, 30), st.floats(-0.6, 0.6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_a_cloud_of_a_still_world_is_as_if_measured_at_once(speed, turn, seed):
    rng = np.random.default_rng(seed)
    world = rng.uniform((-30, -30, -1), (30, 30, 3), (300, 3))
    # From before the stamp to after it, in steps that are moved alike.
    times = rng.integers(-50, 50, 300) * 0.002
    stamp = 200 * MS
    seen = np.stack(
        [
            (driving(speed, turn, 0.2 + t) @ ROOF).inverse().apply(p[None])[0]
            for p, t in zip(world, times, strict=True)
        ]
    )
    sample = Sample(
        "lidar", seen.astype(np.float32), stamp, pose=ROOF, times=times.astype(np.float32)
    )
    found = deskewed(sample, odometry(speed, turn))
    assert found.times is None
    wanted = (driving(speed, turn, 0.2) @ ROOF).inverse().apply(world)
    np.testing.assert_allclose(found.data, wanted, atol=5e-3)


def test_what_is_not_known_is_left_alone():
    points = np.ones((4, 4), np.float32)
    times = np.array([0, 0.01, 0.02, 0.03], np.float32)
    sample = Sample("lidar", points, 100 * MS, pose=ROOF, times=times)
    still = odometry(0.0)
    assert deskewed(sample, still) is not None
    assert deskewed(Sample("lidar", points, 100 * MS, pose=ROOF), still) is None
    assert deskewed(Sample("lidar", points, 100 * MS, times=times), still) is None
    assert deskewed(sample, Odometry()) is None
    late = Sample("lidar", points, 5000 * MS, pose=ROOF, times=times)
    assert deskewed(late, still) is None
    odd = np.array([0, np.nan, np.inf, 0.01], np.float32)
    fine = deskewed(Sample("lidar", points, 100 * MS, pose=ROOF, times=odd), still)
    np.testing.assert_allclose(fine.data, points, atol=1e-6)
    none = np.zeros((4, 4), np.float32)
    moved = deskewed(Sample("lidar", none, 100 * MS, pose=ROOF, times=times), odometry(20.0))
    assert not moved.data.any()


def test_poses_in_any_order_and_a_clock_that_jumps():
    found = Odometry()
    assert found.moved(0, 10) is None
    for ms in (20, 0, 10, 10, 30):
        found.note(ms * MS, driving(10.0, 0.0, ms / 1000))
    assert len(found) == 4
    assert found.moved(30 * MS, 0).translation[0] == pytest.approx(0.3)
    assert found.moved(0, 30 * MS).translation[0] == pytest.approx(-0.3)
    found.note(100_000 * MS, driving(0, 0, 0))
    assert len(found) == 1
    found.note(5 * MS, driving(0, 0, 0))  # back to the start, as of a bag that is played anew
    assert len(found) == 1
    for ms in range(0, 60_000, 10):
        found.note(ms * MS, driving(1.0, 0.0, ms / 1000))
    assert len(found) <= 2000
    recorded = Odometry.of(
        Trajectory(np.array([0, 100 * MS]), (driving(5, 0, 0), driving(5, 0, 0.1)))
    )
    assert recorded.moved(0, 100 * MS).translation[0] == pytest.approx(-0.5)

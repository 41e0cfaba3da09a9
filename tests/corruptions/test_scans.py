"""What is left of clouds: beams are found, so many are kept, the view is cut, and they are made older."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.corruptions import corrupt
from perception.corruptions.scans import (
    Beams,
    beams_of,
    fewer_beams,
    measured_before,
    seen_ahead,
)
from perception.frame import Sample
from perception.geometry.boxes import inside
from perception.geometry.motion import Odometry
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform
from perception.sensors.lidar.faults import BEAM_DEG
from perception.sim.scanning import SCAN_PATTERNS, firings

MS = 1_000_000


def about_z(angle: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> RigidTransform:
    c, s = np.cos(angle), np.sin(angle)
    return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array(at))


def scan(elevations_deg: Any, rng: np.random.Generator, each: int = 60) -> Sample:
    """Returns of beams at these elevations, all around, 9 to 60 m away."""
    up = np.radians(np.repeat(elevations_deg, each))
    around, away = rng.uniform(-np.pi, np.pi, len(up)), rng.uniform(9, 60, len(up))
    flat = np.cos(up) * away
    points = np.stack([flat * np.cos(around), flat * np.sin(around), np.sin(up) * away], 1)
    bright = rng.random((len(up), 1))
    return Sample("lidar", np.hstack([points, bright]).astype(np.float32), stamp_ns=0)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(8, 128),
    pitch=st.floats(0.2, 2.0),
    low=st.floats(-30, -1),
    seed=st.integers(0, 99),
)
def test_beams_that_lie_evenly_are_found(count: int, pitch: float, low: float, seed: int) -> None:
    elevations = low + pitch * np.arange(count)
    elevations = elevations[elevations < 60]
    if len(elevations) < 8:
        return
    found = beams_of([scan(elevations, np.random.default_rng(seed))])
    assert found.regular and len(found) == len(elevations)
    assert found.pitch_deg == pytest.approx(pitch, rel=0.01)
    theirs = found.first_deg + found.numbers * found.pitch_deg
    np.testing.assert_allclose(theirs, elevations, atol=0.3 * pitch)


@pytest.mark.parametrize(("name", "count"), [("vlp16", 16), ("hdl32", 32), ("os1-64", 64)])
def test_beams_of_the_simulator_are_found(name: str, count: int) -> None:
    rays = np.vstack([firing.rays for firing in firings(SCAN_PATTERNS[name], 0.0)])
    away = np.random.default_rng(0).uniform(9, 60, (len(rays), 1))
    found = beams_of([Sample("lidar", np.hstack([rays * away, away]).astype(np.float32))])
    assert found.regular and len(found) == count


def test_of_other_lidars_bands_stand_for_beams() -> None:
    rays = np.vstack([firing.rays for firing in firings(SCAN_PATTERNS["mid40"], 0.0)])
    found = beams_of([Sample("lidar", (rays * 20).astype(np.float32))])
    assert not found.regular and found.pitch_deg == BEAM_DEG
    assert 90 <= len(found) <= 98  # 38.4 degrees
    nothing = Sample("lidar", np.full((4, 4), np.nan, np.float32))
    assert len(beams_of([])) == len(beams_of([nothing])) == 0


@given(
    numbers=st.sets(st.integers(-60, 60), min_size=1, max_size=80),
    count=st.integers(1, 100),
    first=st.floats(-0.35, 0.35),
)
def test_those_that_are_left_are_spread_and_one_looks_level(
    numbers: set[int], count: int, first: float
) -> None:
    beams = Beams(0.7, first, np.array(sorted(numbers)), True)
    left = beams.spread(count)
    assert len(left) == len(set(left.tolist())) == min(count, len(numbers))
    places = np.searchsorted(beams.numbers, left)
    assert np.isin(left, beams.numbers).all()
    gaps = np.diff(places)
    assert not gaps.size or gaps.max() - gaps.min() <= 1
    below = [n for n in sorted(numbers) if first + n * 0.7 < 0]
    assert (below[-1] if below else min(numbers)) in left


def test_returns_of_the_other_beams_are_gone() -> None:
    elevations = np.arange(-16.0, 16.0) + 0.4
    cloud = scan(elevations, np.random.default_rng(4))
    bad = np.vstack([cloud.data, [[0, 0, 0, 0]], [[np.nan] * 4]]).astype(np.float32)
    times = np.arange(len(bad), dtype=np.float32)
    cloud = replace(cloud, data=bad, times=times)
    beams = beams_of([cloud])
    assert len(beams) == 32
    for count in (16, 8, 4, 1):
        found = fewer_beams(cloud, beams, count)
        assert len(found.data) == 60 * count and found.times is not None
        np.testing.assert_array_equal(found.data, bad[found.times.astype(int)])
        up = np.degrees(np.arctan2(found.data[:, 2], np.hypot(*found.data[:, :2].T)))
        assert len(np.unique(np.rint(up - 0.4))) == count
        assert np.abs(up + 0.6).min() < 0.1  # the one just below the horizon
    assert fewer_beams(cloud, beams, 32) is fewer_beams(cloud, beams, 64) is cloud
    with pytest.raises(ValueError, match="0 beams"):
        fewer_beams(cloud, beams, 0)


@given(turn=st.floats(-3.1, 3.1), half=st.floats(1, 179), seed=st.integers(0, 50))
def test_what_is_seen_ahead_is_ahead_of_the_vehicle(turn: float, half: float, seed: int) -> None:
    cloud = scan([-3.0, 2.0], np.random.default_rng(seed))
    pose = about_z(turn, (0.5, 0.2, 1.8))
    found = seen_ahead(replace(cloud, pose=pose), half)
    kept = {row.tobytes() for row in found.data}
    own = cloud.data[:, :3].astype(np.float64) @ pose.rotation.T
    off = np.abs(np.degrees(np.arctan2(own[:, 1], own[:, 0])))
    for row, angle in zip(cloud.data, off, strict=True):
        if abs(angle - half) > 1e-3:
            assert (row.tobytes() in kept) == (angle < half)
    plain = seen_ahead(cloud, half).data
    assert (np.abs(np.degrees(np.arctan2(plain[:, 1], plain[:, 0]))) <= half + 1e-3).all()


@settings(max_examples=50, deadline=None)
@given(
    speed=st.floats(0, 30),
    rate=st.floats(-0.5, 0.5),
    seconds=st.floats(0.01, 0.3),
    other=st.tuples(st.floats(-15, 15), st.floats(-15, 15)),
    seed=st.integers(0, 99),
)
def test_what_was_measured_before_is_what_the_lidar_would_have_seen(
    speed: float, rate: float, seconds: float, other: tuple[float, float], seed: int
) -> None:
    """Of the world: standing points, and an object that drives; and odometry brings back what stands."""
    rng = np.random.default_rng(seed)
    age_ns = round(seconds * 1e9)
    seconds = age_ns / 1e9
    now = about_z(0.4, (7.0, -3.0, 0.0))
    turn = rate * seconds
    then = now @ about_z(-turn, (-speed * seconds, 0.0, 0.0))
    standing = rng.uniform((-30, -30, 0), (30, 30, 3), (80, 3))
    center, size, yaw = np.array([[9.0, 4.0, 0.8]]), np.array([[4.0, 2.0, 1.6]]), np.array([0.3])
    standing = standing[~inside(standing, center, size, yaw, margin=0.5)[0]]
    driving = center + (rng.uniform(-0.45, 0.45, (40, 3)) * size) @ about_z(0.3).rotation.T
    lidar = about_z(0.1, (0.2, 0.1, 1.8))

    def measured(base: np.ndarray[Any, Any], stamp_ns: int) -> Sample:
        data = np.column_stack([lidar.inverse().apply(base), np.full(len(base), 0.5)])
        return Sample("lidar", data.astype(np.float32), stamp_ns=stamp_ns, pose=lidar)

    velocity = np.array([other])
    moved = np.vstack([standing, driving - [*(velocity[0] * seconds), 0.0]])
    wanted = measured(then.inverse().apply(now.apply(moved)), -age_ns)
    back = then.inverse() @ now
    seen = measured(np.vstack([standing, driving]), 0)
    found = measured_before(seen, seconds, back, center, size, yaw, velocity)
    assert found.stamp_ns == -age_ns and found.pose is lidar
    np.testing.assert_allclose(found.data, wanted.data, atol=2e-4)
    unknown = np.full((1, 2), np.nan)
    still = measured_before(seen, seconds, back, center, size, yaw, unknown)
    np.testing.assert_allclose(still.data[: len(standing)], wanted.data[: len(standing)], atol=2e-4)
    odometry = Odometry.of(Trajectory(np.array([-age_ns, 0]), (then, now)))
    forth = odometry.moved(-age_ns, 0)
    assert forth is not None
    again = (forth @ lidar).apply(found.data[: len(standing), :3].astype(np.float64))
    np.testing.assert_allclose(again, standing, atol=2e-4)


def test_what_has_no_place_or_time_cannot_be_older() -> None:
    none = np.zeros((0, 3))
    for change in ({"pose": None}, {"stamp_ns": None}):
        cloud = replace(scan([0.0], np.random.default_rng(0)), **{"pose": about_z(0), **change})
        with pytest.raises(ValueError, match="a stamp and a pose"):
            measured_before(cloud, 0.1, about_z(0), none, none, np.zeros(0), np.zeros((0, 2)))


def test_wrong_extrinsics_are_wrong_on_the_vehicle_too() -> None:
    """By the same error: where a sensor is to the reference and on the vehicle fit together after it."""
    pose, extrinsics = about_z(0.3, (1.0, 2.0, 3.0)), about_z(-0.7, (0.1, 0.0, 0.2))
    cloud = replace(scan([0.0], np.random.default_rng(0)), pose=pose, extrinsics=extrinsics)
    for severity, degrees in ((1, 0.5), (4, 2.0)):
        found = corrupt(cloud, "extrinsics", severity, seed=3)
        assert found.pose is not None and found.extrinsics is not None
        off = pose.inverse() @ found.pose
        assert np.degrees(off.angle) == pytest.approx(degrees, rel=1e-6)
        np.testing.assert_allclose(off.translation, 0, atol=1e-12)
        same = extrinsics.inverse() @ found.extrinsics
        np.testing.assert_allclose(same.rotation, off.rotation, atol=1e-12)
        alone = corrupt(replace(cloud, extrinsics=None), "extrinsics", severity, seed=3)
        assert alone.extrinsics is None and alone.pose is not None
        np.testing.assert_array_equal(alone.pose.matrix, found.pose.matrix)
    bare = replace(cloud, extrinsics=None, pose=None)
    assert corrupt(bare, "extrinsics", 5, seed=3) is bare

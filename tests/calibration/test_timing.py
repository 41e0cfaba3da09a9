"""Time offsets of sensors from how they turned: right, as exact as they say, or not trusted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from turning import START, Panorama, Timing, Turning, seen, turning

from calibration.timing.clocks import stamp_clock
from calibration.timing.clouds import CloudMotion
from calibration.timing.motion import gyro_motion, motion_of
from calibration.timing.offset import TimeOffset, time_offset
from calibration.timing.pictures import PictureMotion
from perception.errors import DataError

pytest.importorskip("scipy", reason="needs scipy: pip install 'anysense[calibrate]'")

RATES = {  # of the reference and the sensor: rate in Hz and noise of a turn in radians
    "camera and thermal": ((30.0, 0.001), (9.0, 0.003)),
    "camera and lidar": ((30.0, 0.001), (10.0, 0.002)),
    "thermal and camera": ((9.0, 0.003), (30.0, 0.001)),
    "lidar and lidar": ((10.0, 0.005), (10.0, 0.005)),
    "gyroscope and camera": ((200.0, 0.0001), (30.0, 0.002)),
}
SECONDS = 30.0


def _trial(
    seed: int, rates: str, *, drift: float = 0.0, seconds: float = SECONDS
) -> tuple[float, TimeOffset]:
    """The true offset in seconds, and what was found."""
    rng = np.random.default_rng(seed)
    robot, offset = turning(rng, seconds), float(rng.uniform(-0.25, 0.25))
    (hz, noise), (other, more) = RATES[rates]
    first = seen(rng, robot, seconds, Timing(hz), noise)
    second = seen(rng, robot, seconds, Timing(other, offset, drift=drift), more)
    return offset, time_offset(first, second)


@pytest.mark.parametrize("rates", RATES)
def test_offsets_are_found_and_two_sigma_hold_the_truth(rates: str) -> None:
    errors, held = [], []
    for seed in range(24):
        truth, found = _trial(7000 + seed, rates)
        assert found.trusted, found.doubts
        error = found.offset_ns / 1e9 - truth
        errors.append(error)
        held.append(abs(error) < 2 * found.sigma_ns / 1e9)
    slower = max(1 / hz for hz, _ in RATES[rates])
    assert np.sqrt(np.mean(np.square(errors))) < 0.05 * slower, errors
    assert np.mean(held) >= 0.85  # of 24 with 95 % each, one in 3000 times fewer


@pytest.mark.slow
def test_two_sigma_hold_the_truth_in_about_as_many_cases_as_they_should() -> None:
    held, turned, trusted = [], [], 0
    for rates in RATES:
        for seed in range(60):
            truth, found = _trial(9000 + seed, rates)
            trusted += found.trusted
            held.append(abs(found.offset_ns / 1e9 - truth) < 2 * found.sigma_ns / 1e9)
            turned.append(abs(found.drift_ppm) < 2 * found.drift_sigma_ppm)
    assert np.mean(held) >= 0.92 and np.mean(turned) >= 0.90
    assert trusted >= 0.97 * len(held)


def test_a_clock_that_runs_faster_is_told_and_not_trusted() -> None:
    _, found = _trial(3, "camera and lidar", drift=300e-6, seconds=120)
    assert abs(found.drift_ppm - 300) < 3 * found.drift_sigma_ppm < 150
    assert not found.trusted and "ppm" in found.doubts[0]


def test_the_sign_is_that_of_a_rig() -> None:
    # What the sensor saw at 10 s it stamps 9.9 s: 0.1 s are to be added.
    rng = np.random.default_rng(0)
    robot = turning(rng, SECONDS)
    first, late = (seen(rng, robot, SECONDS, Timing(30.0, offset), 0.001) for offset in (0.0, 0.1))
    assert abs(time_offset(first, late).offset_ns - 100_000_000) < 3_000_000
    assert abs(time_offset(late, first).offset_ns + 100_000_000) < 3_000_000


@pytest.mark.parametrize("what", ["two robots", "standing still"])
def test_what_nothing_tells_is_not_trusted(what: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng(500 + seed)
        rate = 0.3 if what == "two robots" else 1e-5
        one, other = turning(rng, SECONDS, rate), turning(rng, SECONDS, rate)
        first = seen(rng, one, SECONDS, Timing(30.0), 0.001)
        second = seen(rng, other, SECONDS, Timing(9.0), 0.003)
        found = time_offset(first, second)
        assert not found.trusted and "chance" in found.doubts[0], (seed, found)


@pytest.mark.parametrize("hz", [1.0, 2.0, 3.0])
def test_a_motion_that_repeats_itself_is_not_trusted(hz: float) -> None:
    rng, times = np.random.default_rng(1), np.arange(-2, SECONDS + 2, 0.001)
    angles = 0.1 * np.sin(2 * np.pi * hz * times)[:, None] * [0.2, 0.1, 1.0]
    robot = Turning(times, angles)
    first = seen(rng, robot, SECONDS, Timing(30.0), 0.001)
    found = time_offset(first, seen(rng, robot, SECONDS, Timing(30.0, 0.05), 0.001))
    assert any("repeats itself" in doubt for doubt in found.doubts), found.doubts


def test_short_recordings_and_gaps_are_told() -> None:
    rng = np.random.default_rng(4)
    robot = turning(rng, SECONDS)
    short = [seen(rng, robot, 8.0, Timing(hz), 0.001) for hz in (30.0, 10.0)]
    found = time_offset(*short)
    assert not found.trusted and "record 30 s" in found.doubts[0]
    assert math.isinf(found.sigma_ns) and math.isnan(found.drift_ppm)
    with pytest.raises(DataError, match="2 samples"):
        motion_of([1, 2], [np.zeros(3)])
    apart = [
        motion_of((s.stamps_ns + i * 10**12).tolist(), list(s.turns)) for i, s in enumerate(short)
    ]
    assert time_offset(*apart).seconds == 0


def test_turns_over_a_pause_do_not_count() -> None:
    stamps = [*range(0, 10 * 10**8, 10**8), *range(20 * 10**8, 30 * 10**8, 10**8)]
    turns = [np.ones(2)] * (len(stamps) - 1)
    assert np.flatnonzero(~motion_of(stamps, turns).good).tolist() == [9]
    same = gyro_motion([5, 5, 7, 9], [np.ones(3), 9 * np.ones(3), np.ones(3), 3 * np.ones(3)])
    assert same.dropped == 1 and np.allclose(same.turns[:, 0], [2e-9, 4e-9])


def test_an_offset_beyond_what_is_looked_at_is_told() -> None:
    rng = np.random.default_rng(8)
    robot = turning(rng, 60.0)
    first = seen(rng, robot, 60.0, Timing(30.0), 0.001)
    late = seen(rng, robot, 60.0, Timing(30.0, 0.8), 0.001)
    assert not time_offset(first, late).trusted
    assert abs(time_offset(first, late, within_ms=1500).offset_ns - 8e8) < 3e6
    # A clock of its own: what it is off by is known beforehand, but for the delay.
    own = motion_of((late.stamps_ns - 10**18).tolist(), list(late.turns))
    found = time_offset(first, own, base_ns=10**18 + 600_000_000)
    assert abs(found.offset_ns - 10**18 - 8e8) < 3e6 and found.trusted


def test_pictures_of_any_type_tell_how_a_camera_turned() -> None:
    rng = np.random.default_rng(2)
    far, angles = Panorama(rng, (96, 128)), np.cumsum(rng.normal(0, 0.01, (30, 3)), axis=0)
    grays = [far.picture(one) for one in angles]
    made = {
        "uint8": grays,
        "uint16": [(7000 + 3 * g.astype(np.uint16)) for g in grays],
        "colour": [np.dstack([g, g, 255 - g // 2]) for g in grays],
        "float": [np.where(g > 250, np.nan, g / 255) for g in grays],
    }
    wanted = np.diff(angles, axis=0)
    for name, pictures in made.items():
        motion = PictureMotion()
        for index, picture in enumerate(pictures):
            motion.push(index * 10**8, picture)
        motion.push(0, pictures[0])  # an old one, which changes nothing
        found = motion.motion()
        assert found.good.all() and found.dropped == 1
        right, down, about = found.turns.T
        assert np.abs(right + wanted[:, 2]).max() < 0.003, name
        assert np.abs(down - wanted[:, 0]).max() < 0.003, name
        assert np.abs(about + wanted[:, 1]).max() < 0.01, name


def test_pictures_without_anything_are_no_turns() -> None:
    motion = PictureMotion()
    for index in range(5):
        motion.push(index, np.full((60, 80), index, np.uint8))
    assert not motion.motion().good.any()


def _room(rng: np.random.Generator) -> np.ndarray:
    """(N, 3) points of walls, ground and boxes, metres."""
    walls = rng.uniform([-12, -9, -1], [14, 9, 3], (12000, 3))
    side = rng.integers(0, 4, len(walls))
    for index, (axis, at) in enumerate(((0, -12), (0, 14), (1, -9), (1, 9))):
        walls[side == index, axis] = at
    ground = rng.uniform([-12, -9, -1], [14, 9, -1], (6000, 3))
    boxes = [rng.uniform(-0.8, 0.8, (800, 3)) for _ in range(8)]
    for box in boxes:
        axis = rng.integers(0, 3, len(box))
        box[np.arange(len(box)), axis] = 0.8 * np.sign(box[np.arange(len(box)), axis])
        box += [*rng.uniform(-7, 7, 2), 0]
    return np.vstack([walls, ground, *boxes])


def test_clouds_tell_how_a_lidar_turned() -> None:
    import cv2

    rng = np.random.default_rng(6)
    world, pose = _room(rng), np.eye(3)
    turns = rng.normal(0, 0.02, (12, 3))
    motion, at = CloudMotion(), np.zeros(3)
    for index, turn in enumerate([np.zeros(3), *turns]):
        pose = pose @ cv2.Rodrigues(turn)[0]
        at = at + [0.1, 0.02, 0]
        kept = rng.permutation(len(world))[:8000]
        points = (world[kept] - at) @ pose + rng.normal(0, 0.02, (8000, 3))
        motion.push(index * 10**8, points.astype(np.float32))
    found = motion.motion()
    assert found.good.all() and np.abs(found.turns - turns).max() < 0.004
    motion.push(13 * 10**8, np.zeros((5, 3), np.float32))
    assert not motion.motion().good[-1]


@pytest.mark.parametrize("drift", [0.0, 80e-6, -200e-6])
def test_arrivals_tell_how_fast_stamps_run(drift: float) -> None:
    rng, held = np.random.default_rng(3), []
    for _ in range(40):
        true = np.arange(0, 120, 0.1)
        stamps = START + ((true * (1 + drift)) * 1e9).astype(np.int64)
        arrivals = START + ((true + 0.02 + rng.exponential(0.004, len(true))) * 1e9).astype(
            np.int64
        )
        found = stamp_clock(stamps.tolist(), arrivals.tolist())
        held.append(abs(found.drift_ppm - drift * 1e6) < 2 * found.drift_sigma_ppm)
        assert not found.since_boot and found.drift_sigma_ppm < 10
    assert np.mean(held) >= 0.85


def test_stamps_since_boot_are_known() -> None:
    arrivals = [START + i * 10**8 for i in range(100)]
    found = stamp_clock([t - START + 5 * 10**12 for t in arrivals], arrivals)
    assert found.since_boot and found.lag_ns == START - 5 * 10**12
    short = stamp_clock([5], [START])
    assert math.isnan(short.drift_ppm) and math.isinf(short.drift_sigma_ppm)


@pytest.mark.realdata
def test_a_real_drive_of_five_seconds_is_too_short_but_its_turns_are_seen(
    real_data: Path,
) -> None:
    from perception.data.kitti import KITTI
    from perception.data.stamps import read_stamps

    drive = real_data / "kitti_0005"
    recording = KITTI(drive)
    camera, lidar = PictureMotion(), CloudMotion()
    for index in range(len(recording)):
        frame = recording.frame(index)
        camera.push(frame["rgb"].time_ns, frame["rgb"].data)
        lidar.push(frame["lidar"].time_ns, frame["lidar"].data)
    seen_by = camera.motion(), lidar.motion()
    assert not time_offset(*seen_by).trusted
    # Rates of the car's own gyroscopes: columns 17 to 19.
    stamps = read_stamps(drive / "oxts/timestamps.txt")[: len(recording)]
    texts = [drive / f"oxts/data/{name}.txt" for name in recording.ids]
    rates = [np.array(text.read_text().split()[17:20], float) for text in texts]
    car = gyro_motion([int(stamp or 0) for stamp in stamps], rates)
    yaw = car.turns[:, 2]
    assert np.corrcoef(yaw, seen_by[0].turns[:, 0])[0, 1] > 0.9
    assert np.corrcoef(yaw, seen_by[1].turns[:, 2])[0, 1] > 0.9

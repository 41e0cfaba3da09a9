"""Time offsets: how far off they are and whether sigma is honest, from simulated turns and rendered drives.

python benchmarks/time_offset.py                 # turns with noise, minutes
python benchmarks/time_offset.py --drives 3      # and streets rendered by the simulator, minutes each
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.timing.clouds import CloudMotion
from calibration.timing.offset import TimeOffset, time_offset
from calibration.timing.pictures import PictureMotion
from perception.sim.render import render
from perception.sim.sensors import BEAM_PATTERNS, mount_sensors
from perception.sim.street import make_street, random_weather

PAIRS = {  # rates of the reference and the sensor in Hz, noise of a turn in radians
    "camera 30 Hz, thermal 9 Hz": (30.0, 0.001, 9.0, 0.003),
    "camera 30 Hz, LiDAR 10 Hz": (30.0, 0.001, 10.0, 0.002),
    "LiDAR 10 Hz, LiDAR 10 Hz": (10.0, 0.005, 10.0, 0.005),
    "IMU 200 Hz, camera 30 Hz": (200.0, 0.0001, 30.0, 0.002),
}
SPEED_MPS = 3.0


def of_turns(trials: int, seconds: float) -> None:
    """Print how far off offsets of made up turns are."""
    from turning import Timing, seen, turning

    print("| sensors | error, ms | sigma, ms | within 2 sigma | drift within 2 sigma | trusted |")
    print("|---|---|---|---|---|---|")
    for name, (hz, noise, other, more) in PAIRS.items():
        errors, found = [], []
        for seed in range(trials):
            rng = np.random.default_rng(20_000 + seed)
            robot, offset = turning(rng, seconds), float(rng.uniform(-0.25, 0.25))
            first = seen(rng, robot, seconds, Timing(hz), noise)
            one = time_offset(first, seen(rng, robot, seconds, Timing(other, offset), more))
            errors.append(one.offset_ns / 1e6 - offset * 1e3)
            found.append(one)
        sigmas = np.array([one.sigma_ns / 1e6 for one in found])
        held = np.mean(np.abs(errors) < 2 * sigmas)
        drift = np.mean([abs(one.drift_ppm) < 2 * one.drift_sigma_ppm for one in found])
        trusted = np.mean([one.trusted for one in found])
        rms = np.sqrt(np.mean(np.square(errors)))
        print(
            f"| {name} | {rms:.2f} | {np.median(sigmas):.2f} | {held:.0%} | {drift:.0%} | {trusted:.0%} |"
        )


def drive(seed: int, seconds: float) -> None:
    """Print the offsets of thermal and LiDAR to a camera, on a street that a car winds its way along."""
    from turning import START, Timing, turning

    rng = np.random.default_rng(seed)
    robot = turning(rng, seconds, 0.25)
    street = make_street(
        seed, seconds * SPEED_MPS + 40, random_weather(rng, night=False), crowd=0.4
    )
    timings = {
        "rgb": Timing(30.0),
        "thermal": Timing(9.0, float(rng.uniform(-0.1, 0.1))),
        "lidar": Timing(10.0, float(rng.uniform(-0.1, 0.1))),
    }
    motions = {}
    for name, timing in timings.items():
        sensors = mount_sensors((120, 160), {name: name})
        if name == "lidar":
            sensors |= mount_sensors((32, 32), {"rgb": "rgb"})
        motion = CloudMotion() if name == "lidar" else PictureMotion()
        for moment, stamp in zip(*timing.sample(rng, seconds), strict=True):
            scene = _at(street, robot, float(moment))
            frame = render(
                scene, sensors, BEAM_PATTERNS["hdl32"], next(n for n in sensors if n != "lidar")
            )
            motion.push(int(stamp) - START, frame.samples[name])
        motions[name] = motion.motion()
    for name in ("thermal", "lidar"):
        one: TimeOffset = time_offset(motions["rgb"], motions[name])
        off = one.offset_ns / 1e6 - timings[name].offset * 1e3
        print(
            f"drive {seed}, {name}: {off:+.2f} ms off, sigma {one.sigma_ns / 1e6:.2f}, correlation "
            f"{one.correlation:.2f}, drift {one.drift_ppm:+.0f} +- {one.drift_sigma_ppm:.0f} ppm, "
            f"{'trusted' if one.trusted else one.doubts}",
            flush=True,
        )


def _at(street, robot, moment: float):
    yaw = 0.5 * np.tanh(robot.at(np.array([moment]))[0, 2])
    x, y, z = street.ego_position
    place = (x + SPEED_MPS * moment, y, z)
    bodies = tuple(body.at(moment) for body in street.bodies)
    return replace(street, bodies=bodies, ego_position=place, ego_yaw=float(yaw))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--drives", type=int, default=0)
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    began = time.monotonic()
    if args.trials:
        of_turns(args.trials, args.seconds)
    for seed in range(args.drives):
        drive(seed, args.seconds)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

"""The drift monitor: what it costs, how often it cries wolf, and what it finds.

    python benchmarks/drift_monitor.py --kitti data/kitti_0005 --seeds 2

Cost is CPU time of the monitor (all threads) by the time that a stream of the recording's samples would last.
Verdicts are taken on frames that follow one another, where the runtime takes one each three seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perception.data.registry import open_recording
from perception.frame import Sample
from perception.geometry.transforms import RigidTransform
from perception.runtime.drift import DriftMonitor, DriftPolicy, DriftVerdict
from perception.sim.generate import make_recording

ERRORS = {
    "true": (0.0, 0.0),
    **{f"{axis} {deg:+g}": ((deg, 0.0) if axis == "pitch" else (0.0, deg))
       for deg in (1.0, -1.0, 2.0, 3.0) for axis in ("pitch", "yaw")},
}  # fmt: skip
LIDARS = ("os1-64", "hdl32", "vlp16")
EVERY = DriftPolicy(period_s=0.0)

Pair = tuple[Sample, Sample]


def turned(sample: Sample, pitch: float, yaw: float) -> Sample:
    """A sample whose extrinsics are off by rotations about the camera's x and y axes, degrees."""
    x, y = np.radians([pitch, yaw]) / 2
    # One of the two is 0.
    xyzw = [np.sin(x), np.sin(y), 0, np.cos(x) * np.cos(y)]
    error = RigidTransform.from_quaternion_xyzw(xyzw, np.zeros(3))
    return replace(sample, extrinsics=error @ (sample.extrinsics or RigidTransform.identity()))


def verdicts(pairs: Sequence[Pair], pitch: float, yaw: float) -> tuple[list[DriftVerdict], bool]:
    """What a monitor says of a recording whose rig is off, and whether it was alarmed at the end."""
    found: list[DriftVerdict] = []
    monitor = DriftMonitor(EVERY, on_verdict=found.append)
    for index, (picture, points) in enumerate(pairs):
        monitor.note(picture)
        monitor.note(turned(points, pitch, yaw))
        monitor.poll(index)
    return found, monitor.warning(pairs[0][1].sensor) is not None


def judged(name: str, recordings: Sequence[Sequence[Pair]]) -> None:
    """Print how verdicts of rigs that are off by some angle are, and how many end in an alarm."""
    for error, (pitch, yaw) in ERRORS.items():
        off, known, alarms, values = 0, 0, 0, list[float]()
        for pairs in recordings:
            found, alarm = verdicts(pairs, pitch, yaw)
            alarms += alarm
            for one in found:
                if one.quantity == "time" or not one.known:
                    continue
                truth = pitch if one.quantity == "pitch" else yaw
                known += 1
                off += abs(one.estimate) > EVERY.most_deg and abs(one.estimate) > 3 * one.sigma
                values.append(one.estimate - truth)
        rms = float(np.sqrt(np.mean(np.square(values)))) if values else np.nan
        print(
            f"{name:16} {error:9} verdicts {known:3}, off {off:3}, error {rms:.2f} deg rms; alarms "
            f"{alarms} of {len(recordings)}",
            flush=True,
        )


def cost(pairs: Sequence[Pair], camera_hz: float, lidar_hz: float, seconds: float) -> None:
    """Print the CPU time of a monitor beside a stream, as a share of one core."""
    monitor, now = DriftMonitor(DriftPolicy(), background=True), 10**15
    events = sorted(
        [(t, 0) for t in np.arange(0, seconds, 1 / camera_hz)]
        + [(t, 1) for t in np.arange(0.002, seconds, 1 / lidar_hz)]
    )
    began = time.process_time()
    for number, (at, which) in enumerate(events):
        stamp = now + round(at * 1e9)
        monitor.note(replace(pairs[number % len(pairs)][which], stamp_ns=stamp))
        monitor.poll(stamp)
        while monitor.busy:  # a look lasts shorter than a look's period
            time.sleep(0.001)
    used = time.process_time() - began
    monitor.close()
    print(f"cost: {camera_hz:g} Hz and {lidar_hz:g} Hz, {100 * used / seconds:.2f} % of a core")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kitti", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24)
    args = parser.parse_args()
    if args.kitti is not None:
        recording = open_recording("kitti", args.kitti)
        pairs = [
            (f["rgb"], f["lidar"]) for f in (recording.frame(i) for i in range(len(recording)))
        ]
        for hz in (10.0, 30.0):
            cost(pairs, hz, 10.0, 300.0)
        judged("kitti lidar", [pairs[i : i + 18] for i in range(0, 50 - 17, 8)])
    drives: dict[str, list[list[Pair]]] = {}
    for lidar in LIDARS:
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as place:
                out = Path(place) / "street"
                make_recording(
                    out, "drive", args.frames, seed + 60, size=(240, 320), lidar=lidar, progress=False
                )  # fmt: skip
                recording = open_recording("folder", out)
                frames = [recording.frame(i) for i in range(len(recording))]
            drives.setdefault("sim lidar", []).append([(f["rgb"], f["lidar"]) for f in frames])
            drives.setdefault("sim depth", []).append([(f["rgb"], f["depth"]) for f in frames])
    for name, own in drives.items():
        judged(name, own)


if __name__ == "__main__":
    main()

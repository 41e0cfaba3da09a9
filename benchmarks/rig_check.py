"""What `anysense calibrate check` says of simulated streets whose rigs are true, and of rigs that are turned.

python benchmarks/rig_check.py --seeds 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.check import check_rig
from perception.data.registry import open_recording
from perception.geometry.rig import Pose, Rig
from perception.geometry.transforms import RigidTransform
from perception.sim.generate import make_recording

LIDARS = ("os1-64", "hdl32", "vlp16")
ERRORS = {"true": (0, 0, 0), "yaw +1": (0, 1, 0), "pitch -1": (-1, 0, 0)}


def turned(rig: Rig, degrees: tuple[float, float, float]) -> Rig:
    """The rig with its LiDAR turned about the axes of the camera's optical frame."""
    own, half = rig.sensors["lidar"], np.radians(degrees) / 2
    xyzw = [*np.sin(half), float(np.sqrt(1 - (np.sin(half) ** 2).sum()))]
    error = RigidTransform.from_quaternion_xyzw(xyzw, np.zeros(3))
    assert own.pose is not None
    pose = Pose(error @ own.pose.transform)
    return Rig({"rgb": rig.sensors["rgb"], "lidar": replace(own, pose=pose, extrinsics=None)})


def main() -> None:
    """Make the streets, check them, and print a row for each and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8)
    given = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    for lidar in LIDARS:
        for kind in ("drive", "scenes"):
            for seed in range(given.seeds):
                with tempfile.TemporaryDirectory() as place:
                    out = Path(place) / "street"
                    make_recording(
                        out, kind, given.frames, seed + 20, size=(240, 320), lidar=lidar, progress=False
                    )  # fmt: skip
                    recording = open_recording("folder", out)
                    frames = [recording.frame(i) for i in range(len(recording))]
                for name, error in ERRORS.items():
                    pair = check_rig(turned(recording.rig, error), frames).pairs[0]
                    counts[name, pair.verdict] += 1
                    print(f"{lidar:7} {kind:6} {seed} {name:9} {pair.verdict:11} {pair.reason}")
    for (name, verdict), count in sorted(counts.items()):
        print(f"{name}: {verdict} {count}")


if __name__ == "__main__":
    main()

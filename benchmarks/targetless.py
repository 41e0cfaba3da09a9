"""How far `anysense calibrate extrinsics --targetless` is off where the truth is known.

    python benchmarks/targetless.py --kitti data/kitti_0005 --runs 20
    python benchmarks/targetless.py --seeds 3

Guesses are drawn beforehand, by seed: each angle up to 2 degrees and each shift up to 10 cm off the truth.
An answer is wrong that is off by more than half a degree or 10 cm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.check import gray_picture
from calibration.joint import moved
from calibration.targetless import Targetless, calibrate_targetless
from perception.data.base import Recording
from perception.data.registry import open_recording
from perception.errors import CalibrationError
from perception.geometry.rig import Rig
from perception.geometry.transforms import Float64, RigidTransform
from perception.sim.generate import make_recording

LIDARS = ("os1-64", "hdl32", "vlp16")
MOST_DEG, MOST_M = 2.0, 0.10
WRONG_DEG, WRONG_M = 0.5, 0.10


@dataclass(frozen=True)
class Row:
    """One guess and what was found: (6,) errors and sigma, metres and degrees."""

    name: str
    guess: Float64
    error: Float64
    sigma: Float64
    trusted: bool
    kept: tuple[str, ...]
    seconds: float

    @property
    def wrong(self) -> bool:
        """Whether it is off by more than an answer may be."""
        turn, move = float(np.linalg.norm(self.error[3:])), float(np.linalg.norm(self.error[:3]))
        return turn > WRONG_DEG or move > WRONG_M


def off(found: RigidTransform, truth: RigidTransform) -> Float64:
    """(6,) by how much a transform is off: metres and degrees about the camera's axes."""
    turn = np.degrees(cv2.Rodrigues(found.rotation @ truth.rotation.T)[0].ravel())
    return np.concatenate([found.translation - truth.translation, turn])


def guess_of(truth: RigidTransform, seed: int) -> RigidTransform:
    """A guess that is off by chance."""
    rng = np.random.default_rng(seed)
    away = [*rng.uniform(-MOST_M, MOST_M, 3), *np.radians(rng.uniform(-MOST_DEG, MOST_DEG, 3))]
    return moved(truth, np.array(away))


def frames_of(
    recording: Recording, count: int
) -> tuple[Rig, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """The recording's rig, and so many frames, evenly spread."""
    rig, total = recording.rig, len(recording)
    assert rig is not None
    chosen = [recording.frame(i * total // min(count, total)) for i in range(min(count, total))]
    return rig, [(gray_picture(one["rgb"], rig), one["lidar"].data) for one in chosen]


def tried(name: str, frames: Sequence[Any], rig: Rig, seed: int) -> Row | None:
    """Calibrate from one guess; None where it is refused."""
    truth, camera = rig.between("lidar", "rgb"), rig.sensors["rgb"].camera
    assert camera is not None
    guess, start = guess_of(truth, seed), time.perf_counter()
    try:
        found: Targetless = calibrate_targetless(frames, camera, guess)
    except CalibrationError as error:
        print(f"{name:28} refused: {error}")
        return None
    sigma = found.sigma * [1, 1, 1, *[180 / np.pi] * 3]
    row = Row(
        name, off(guess, truth), off(found.transform, truth), sigma, found.trusted, found.kept,
        time.perf_counter() - start,
    )  # fmt: skip
    cm, degrees = (
        ", ".join(f"{100 * e:+.1f}" for e in row.error[:3]),
        ", ".join(f"{e:+.2f}" for e in row.error[3:]),
    )
    said = "trusted" if row.trusted else "not trusted"
    print(
        f"{name:28} off {cm} cm, {degrees} deg; worst {np.abs(row.error / sigma).max():.1f} sigma; {said}"
        f"{' WRONG' if row.wrong else ''}; kept {''.join(row.kept) or 'none'}; {row.seconds:.0f} s",
        flush=True,
    )
    return row


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and medians of many rows."""
    error, sigma = np.array([r.error for r in rows]), np.array([r.sigma for r in rows])
    move, turn = np.linalg.norm(error[:, :3], axis=1), np.linalg.norm(error[:, 3:], axis=1)
    good = np.array([r.trusted for r in rows])
    worst = np.round([100 * move[good].max(), turn[good].max()], 3).tolist() if good.any() else None
    return {
        "runs": len(rows),
        "trusted": int(good.sum()),
        "trusted_and_wrong": sum(r.trusted and r.wrong for r in rows),
        "wrong": sum(r.wrong for r in rows),
        "translation_cm_median_worst": np.round([100 * np.median(move), 100 * move.max()], 2).tolist(),
        "rotation_deg_median_worst": np.round([np.median(turn), turn.max()], 3).tolist(),
        "of_trusted_worst_cm_deg": worst,
        "within_two_sigma": np.round((np.abs(error) < 2 * sigma).mean(axis=0), 3).tolist(),
        "sigma_median_cm_deg": np.round(np.median(sigma, axis=0) * [100, 100, 100, 1, 1, 1], 2).tolist(),
        "seconds_median": round(float(np.median([r.seconds for r in rows])), 1),
    }  # fmt: skip


def streets(seeds: int, frames: int, size: tuple[int, int]) -> list[Row]:
    """Simulated streets, one guess for each."""
    rows = []
    for lidar in LIDARS:
        for kind in ("drive", "scenes"):
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as place:
                    out = Path(place) / "street"
                    own = {"size": size, "lidar": lidar, "progress": False}
                    make_recording(out, kind, frames, seed + 50, **own)  # type: ignore[arg-type]
                    rig, pairs = frames_of(open_recording("folder", out), frames)
                row = tried(f"{lidar} {kind} {seed}", pairs, rig, 1000 + seed)
                rows += [] if row is None else [row]
    return rows


def main() -> None:
    """Calibrate, and print a row for each guess and what they are together, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kitti", type=Path, help="a raw drive; simulated streets without")
    parser.add_argument("--runs", type=int, default=20, help="guesses of the drive")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="streets for each LiDAR and kind")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    args = parser.parse_args()
    if args.kitti is None:
        rows = streets(args.seeds, args.frames, tuple(args.size))
    else:
        rig, pairs = frames_of(open_recording("kitti", args.kitti), args.frames)
        tries = [tried(f"guess {seed}", pairs, rig, seed) for seed in range(args.runs)]
        rows = [row for row in tries if row is not None]
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()

"""Whether sigmas of `anysense calibrate extrinsics` are true: simulated rigs with exact truth, many times.

    python benchmarks/extrinsics_coverage.py --runs 200

Rays of a 16-line LiDAR meet a plate exactly, ranges get noise by point and a bias by line, the board's points
noise in pixels; edges lie half way between rays, as they do in clouds.  95 % of the truth should be within
two sigma (90 to 99 % are good), and the median sigma within 1.5 times of the spread that there is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import cv2
import numpy as np

from calibration.boards import Board, parse_board
from calibration.detection import BoardView
from calibration.fitting import project_view
from calibration.joint import Pair, board_pose, fit_joint, middle_of, moved
from calibration.plates import Plate, PlateView, parse_plate
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

BOARD, PLATE = parse_board("chessboard:5x7:0.095"), parse_plate("0.61x0.85")
CAMERA = CameraModel(1920, 1208, 1180.0, 1181.0, 962.0, 612.0)
LINES, STEP = np.radians(np.arange(-15, 16, 2.0)), np.radians(0.2)
FIRST = RigidTransform(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.array([0.02, -0.15, -0.09])
)


@dataclass(frozen=True)
class Coverage:
    """What a number of simulated rigs showed.

    Attributes:
        inside: (6,) share of runs whose truth was within two sigma: x, y, z, and rotations about them.
        ratio: (6,) the median sigma by the spread of the errors.
        sigma, spread: (6,) metres and radians.
    """

    inside: Float64
    ratio: Float64
    sigma: Float64
    spread: Float64


def plate_seen(
    pose: RigidTransform, plate: Plate, rng: np.random.Generator, noise: float, line_bias: float
) -> PlateView | None:
    """A plate under a pose in the LiDAR's frame, as its rays meet it; None where too few do."""
    normal, middle = pose.rotation[:, 2], pose.translation
    phase = rng.uniform(0, STEP)
    lines, offs, edges, sigma, left = [], [], [], [], []
    for elevation in LINES:
        azimuth = np.arctan2(middle[1], middle[0]) + np.arange(-200, 200) * STEP + phase
        rays = np.column_stack(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)]
        )
        rays = np.column_stack([rays, np.full(len(azimuth), np.sin(elevation))])
        ranges = (normal @ middle) / (rays @ normal)
        places = pose.inverse().apply(rays * ranges[:, None])
        hit = (ranges > 0) & (np.abs(places[:, :2]) < plate.halves).all(axis=1)
        if hit.sum() < 2:
            continue
        first, last = np.flatnonzero(hit)[[0, -1]]
        for mine, other in ((first, first - 1), (last, last + 1)):
            ends = rays[[mine, other]] * ranges[[mine, other], None]
            edges.append(ends.mean(axis=0))
            sigma.append(np.linalg.norm(ends[1] - ends[0]) / np.sqrt(12))
        measured = ranges[hit] + rng.normal(0, line_bias) + rng.normal(0, noise, int(hit.sum()))
        points = rays[hit] * measured[:, None]
        rows = np.column_stack([points, np.ones(len(points))])
        lines.append(rows.T @ rows)
        offs.append((points - middle) @ normal)
        left.append(offs[-1] - offs[-1].mean())
    if len(lines) < 4:
        return None
    total = np.sum(lines, axis=0)
    center = total[:3, 3] / total[3, 3]
    away = np.linalg.eigh(total[:3, :3] / total[3, 3] - np.outer(center, center))[1][:, 0]
    means = np.array([(line[:3, 3] / line[3, 3] - center) @ away for line in lines])
    rest = np.concatenate(left)
    return PlateView(
        pose,
        np.array(lines),
        float(np.sqrt(np.sum(rest**2) / (len(rest) - len(lines)))),
        means,
        np.array(edges),
        np.array(sigma),
        0.01,
    )


def board_seen(
    pose: RigidTransform, board: Board, rng: np.random.Generator, noise: float
) -> BoardView | None:
    """The board of a plate under a pose in the camera's frame; None where it is not wholly seen."""
    move = pose.translation - pose.rotation @ middle_of(board)
    vector = np.concatenate([cv2.Rodrigues(pose.rotation)[0].ravel(), move])
    pixels = project_view(CAMERA, vector, board.points)
    size = (CAMERA.width, CAMERA.height)
    if not ((pixels > 5).all() and (pixels < np.array(size) - 6).all()):
        return None
    seen = pixels + rng.normal(0, noise, pixels.shape)
    return BoardView("", size, np.arange(len(pixels)), seen, 3.0)


def rig(
    seed: int, poses: int, noise: float = 0.01, line_bias: float = 0.008
) -> tuple[list[Pair], RigidTransform]:
    """Poses of a board, and the truth from the LiDAR to the camera."""
    rng, pairs = np.random.default_rng(seed), list[Pair]()
    truth = moved(FIRST, rng.normal(0, [0.03] * 3 + [0.03] * 3))
    while len(pairs) < poses:
        tilt = cv2.Rodrigues(np.radians(rng.uniform(-35, 35, 3)) * [1, 1, 0])[0]
        roll = cv2.Rodrigues(np.array([0, 0, np.radians(rng.uniform(30, 60))]))[0]
        at = np.array([rng.uniform(-1, 1), rng.uniform(-0.4, 0.2), rng.uniform(1.6, 3.2)])
        pose = RigidTransform(tilt @ roll, at)
        view = board_seen(pose, BOARD, rng, 0.15)
        plate = plate_seen(truth.inverse() @ pose, PLATE, rng, noise, line_bias)
        board = None if view is None else board_pose(CAMERA, view, BOARD)
        if plate is not None and board is not None:
            pairs.append(Pair(str(len(pairs)), board, plate))
    return pairs, truth


def coverage(runs: int, poses: int = 12, seed: int = 0) -> Coverage:
    """Fit simulated rigs and compare what is off with what is said."""
    errors, sigmas = [], []
    for run in range(runs):
        pairs, truth = rig(seed + run, poses)
        rng = np.random.default_rng(seed + run)
        found = fit_joint(pairs, PLATE, moved(truth, rng.normal(0, [0.03] * 6)))
        turn = cv2.Rodrigues(found.transform.rotation @ truth.rotation.T)[0].ravel()
        errors.append([*(found.transform.translation - truth.translation), *turn])
        sigmas.append(np.sqrt(np.diag(found.covariance)))
    off, said = np.array(errors), np.array(sigmas)
    spread, median = off.std(axis=0), np.median(said, axis=0)
    return Coverage((np.abs(off) < 2 * said).mean(axis=0), median / spread, median, spread)


def main() -> None:
    """Print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--poses", type=int, default=12)
    args = parser.parse_args()
    found = coverage(args.runs, args.poses)
    content = {key: np.round(value, 5).tolist() for key, value in vars(found).items()}
    print(json.dumps({"all": round(float(found.inside.mean()), 4), **content}, indent=1))


if __name__ == "__main__":
    main()

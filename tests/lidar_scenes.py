"""A spinning LiDAR and a camera that see a board on a plate, with known truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from board_scenes import picture_of, view_of
from numpy.typing import NDArray

from calibration.boards import Board, parse_board
from calibration.detection import BoardView
from calibration.joint import middle_of
from calibration.plates import Plate, parse_plate
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

BOARD = parse_board("chessboard:5x7:0.095")
PLATE = parse_plate("0.61x0.85")
CAMERA = CameraModel(640, 480, 400.0, 402.0, 322.0, 236.0)
TRUTH = RigidTransform(
    cv2.Rodrigues(np.radians([3.0, -4.0, 2.0]))[0]
    @ np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),
    np.array([0.04, -0.15, -0.08]),
)
"""From the LiDAR (x forward, z up) to the camera's optical frame."""

LINES, STEP = np.radians(np.arange(-15, 16, 2.0)), np.radians(0.2)


def middles(count: int, seed: int = 0, tilt: float = 35.0) -> list[RigidTransform]:
    """Poses of the plate's middle in the camera's frame: turned like a diamond, and tilted."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        roll = np.radians(rng.uniform(30, 60))
        turn = cv2.Rodrigues(np.radians(rng.uniform(-tilt, tilt, 3)) * [1, 1, 0])[0]
        at = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.35, 0.1), rng.uniform(1.7, 3.0)])
        pose = RigidTransform(turn @ cv2.Rodrigues(np.array([0, 0, roll]))[0], at)
        corners = np.array([[x, y, 0] for x in (-1, 1) for y in (-1, 1)]) * [*PLATE.halves, 0]
        pixels, valid = CAMERA.project(pose.apply(corners))
        inside = (pixels > 4).all() and (pixels < [CAMERA.width - 5, CAMERA.height - 5]).all()
        if valid.all() and inside:
            found.append(pose)
    return found


def vector_of(middle: RigidTransform, board: Board = BOARD) -> NDArray:
    """(6,) the board's pose as of `calibration.fitting`, from that of its middle."""
    move = middle.translation - middle.rotation @ middle_of(board)
    return np.concatenate([cv2.Rodrigues(middle.rotation)[0].ravel(), move])


def board_view(
    middle: RigidTransform, name: str, rng: np.random.Generator, board: Board = BOARD
) -> BoardView:
    """The board's points with a tenth of a pixel of noise."""
    view = view_of(board, CAMERA, vector_of(middle, board), 0.1, rng, name)
    assert view is not None
    return view


def cloud_of(
    middle: RigidTransform,
    rng: np.random.Generator,
    noise: float = 0.008,
    plate: Plate = PLATE,
    truth: RigidTransform = TRUTH,
) -> NDArray[np.float32]:
    """(N, 3) metres: the plate before two walls and a floor, in the LiDAR's frame."""
    azimuth = np.arange(np.radians(-50), np.radians(50), STEP) + rng.uniform(0, STEP)
    a, e = np.meshgrid(azimuth, LINES)
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1).reshape(-1, 3)
    ranges = np.full(len(rays), np.inf)
    for normal, offset in (([1, 0, 0], 6.0), ([0, 1, 0], 4.0), ([0, 0, 1], -1.1)):
        with np.errstate(divide="ignore"):
            there = offset / (rays @ np.array(normal, float))
        ranges = np.where((there > 0) & (there < ranges), there, ranges)
    own = truth.inverse() @ middle
    normal = own.rotation[:, 2]
    there = (normal @ own.translation) / (rays @ normal)
    places = own.inverse().apply(rays * there[:, None])
    hit = (there > 0) & (np.abs(places[:, :2]) < plate.halves).all(axis=1)
    ranges = np.where(hit, there, ranges)
    seen = np.isfinite(ranges)
    ranges = ranges[seen] + rng.normal(0, noise, int(seen.sum()))
    return (rays[seen] * ranges[:, None]).astype(np.float32)


def write_clouds(folder: Path, poses: list[RigidTransform], seed: int = 1, **options) -> Path:
    """Clouds of poses as .npy files, named by number."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for index, pose in enumerate(poses):
        np.save(folder / f"{index:02}.npy", cloud_of(pose, rng, **options))
    return folder


def write_pictures(folder: Path, poses: list[RigidTransform]) -> Path:
    """Pictures of the board as .png files, named by number."""
    folder.mkdir(exist_ok=True)
    for index, pose in enumerate(poses):
        image = picture_of(BOARD, CAMERA, vector_of(pose))
        cv2.imwrite(str(folder / f"{index:02}.png"), image)
    return folder

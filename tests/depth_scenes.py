"""Depth pictures of a board by a camera whose depth is off by a known scale and bias."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from board_scenes import picture_of, pose_at, view_of
from numpy.typing import NDArray

from calibration.boards import Board, parse_board
from calibration.detection import BoardView, Detections
from calibration.values.planes import PlaneView, _sampled, board_pose
from perception.geometry.camera import CameraModel

BOARD = parse_board("chessboard:7x5:0.05")
CAMERA = CameraModel(320, 240, 270.0, 272.0, 161.0, 118.0)
SCALE, BIAS_M = 1.02, -0.015
"""True metres are BIAS_M + SCALE * those that the camera says."""

NOISE = 0.002  # of the square of the distance in metres


def poses(
    count: int, seed: int, board: Board = BOARD, camera: CameraModel = CAMERA
) -> list[NDArray]:
    """(6,) each, from near to three times as far, all of them wholly in the picture."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        pose = pose_at(board, rng, camera, 25.0)
        pose[3:] *= np.linspace(1.0, 2.2, count)[len(found)]
        if view_of(board, camera, pose, 0.0, rng, "") is not None:
            found.append(pose)
    return found


def plane_depth(pose: NDArray, camera: CameraModel = CAMERA) -> NDArray[np.float64]:
    """(H, W) metres along the optical axis of the board's plane; NaN where it is behind."""
    normal = cv2.Rodrigues(pose[:3])[0][:, 2]
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = camera.unproject(np.column_stack([x.ravel(), y.ravel()]), 1.0)
    depth = (normal @ pose[3:]) / (rays @ normal)
    return np.where(depth > 0.05, depth, np.nan).reshape(camera.height, camera.width)


def seen_depth(
    true: NDArray[np.float64],
    rng: np.random.Generator,
    scale: float = SCALE,
    bias: float = BIAS_M,
    noise: float = NOISE,
) -> NDArray[np.float64]:
    """What the camera says of true metres, with holes."""
    seen = (true - bias) / scale
    seen = seen + rng.normal(0, 1, true.shape) * noise * true**2
    seen[rng.random(true.shape) < 0.05] = np.nan
    return seen


def plane_views(count: int, seed: int, **change: float) -> list[PlaneView]:
    """Planes as they come of corners with a tenth of a pixel of noise, and of such depth."""
    rng = np.random.default_rng(seed)
    found = []
    for index, pose in enumerate(poses(count, seed)):
        view = view_of(BOARD, CAMERA, pose, 0.1, rng, f"{index:02}.png")
        assert view is not None
        at = board_pose(CAMERA, view, BOARD)
        assert at is not None
        one = _sampled(
            f"{index:02}", view, at, seen_depth(plane_depth(pose), rng, **change), CAMERA
        )
        assert isinstance(one, PlaneView), one
        found.append(one)
    return found


def detections(count: int, seed: int) -> tuple[Detections, list[NDArray]]:
    """The board's points in pictures, and its poses."""
    rng, at = np.random.default_rng(seed), poses(count, seed)
    views = [view_of(BOARD, CAMERA, p, 0.1, rng, f"{i:02}.png") for i, p in enumerate(at)]
    kept: list[BoardView] = [view for view in views if view is not None]
    return Detections(tuple(kept)), at


def write_pictures(folder: Path, at: list[NDArray]) -> Path:
    """Pictures of the board as PNG."""
    folder.mkdir(parents=True)
    for index, pose in enumerate(at):
        cv2.imwrite(str(folder / f"{index:02}.png"), picture_of(BOARD, CAMERA, pose))
    return folder


def write_depth(
    folder: Path, at: list[NDArray], seed: int = 0, suffix: str = ".png", **change: float
) -> Path:
    """Depth of the same poses: PNG of 16 bit millimetres, or .npy of float metres."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index, pose in enumerate(at):
        seen = seen_depth(plane_depth(pose), rng, **change)
        if suffix == ".npy":
            np.save(folder / f"{index:02}.npy", seen.astype(np.float32))
        else:
            steps = np.nan_to_num(seen * 1000).round().clip(0, 65535).astype(np.uint16)
            cv2.imwrite(str(folder / f"{index:02}{suffix}"), steps)
    return folder

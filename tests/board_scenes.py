"""Boards seen by cameras whose truth is known: points alone, and pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Board
from calibration.detection import BoardView
from calibration.fitting import project_view
from perception.geometry.camera import CameraModel

CAMERA = CameraModel(
    640, 480, 520.0, 525.0, 322.0, 236.0, "plumb_bob", (-0.2, 0.05, 0.001, -0.0005, 0.0)
)


def pose_at(
    board: Board, rng: np.random.Generator, camera: CameraModel, tilt: float = 35.0
) -> NDArray:
    """(6,) a pose that puts the board somewhere in the picture, turned about all axes."""
    turn = np.radians(rng.uniform(-tilt, tilt, 3)) * [1, 1, 0.5]
    distance = board.extent_m * camera.fx / camera.width * rng.uniform(1.3, 2.4)
    middle = board.points.mean(axis=0)
    at = np.array(
        [
            rng.uniform(-0.35, 0.35) * camera.width / camera.fx,
            rng.uniform(-0.35, 0.35) * camera.height / camera.fy,
            1.0,
        ]
    )
    rotation = cv2.Rodrigues(turn)[0]
    return np.concatenate([turn, at * distance - rotation @ middle])


def view_of(
    board: Board,
    camera: CameraModel,
    pose: NDArray,
    noise: float,
    rng: np.random.Generator,
    name: str,
) -> BoardView | None:
    """What the camera sees of it; None where it is not wholly in the picture."""
    pixels = project_view(camera, pose, board.points)
    inside = (pixels > 3).all() and (pixels < np.array([camera.width, camera.height]) - 4).all()
    if not inside:
        return None
    seen = pixels + rng.normal(0, noise, pixels.shape)
    return BoardView(name, (camera.width, camera.height), np.arange(len(pixels)), seen, 3.0)


def views_of(
    board: Board,
    camera: CameraModel,
    count: int,
    noise: float = 0.1,
    seed: int = 0,
    tilt: float = 35.0,
) -> list[BoardView]:
    """`count` views with noise of so many pixels on each coordinate."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        view = view_of(
            board, camera, pose_at(board, rng, camera, tilt), noise, rng, f"{len(found):03}.png"
        )
        if view is not None:
            found.append(view)
    return found


def pattern_of(board: Board, px: int = 40) -> tuple[NDArray[np.uint8], NDArray]:
    """A picture of the board with `px` pixels a square, and the homography from its plane to that picture."""
    per_m, margin = px / board.square_m, px
    if board.kind == "chessboard":
        rows, columns = board.rows + 1, board.columns + 1
        squares = np.indices((rows, columns)).sum(axis=0) % 2
        image = np.kron(squares, np.ones((px, px))) * 255
        origin = px
    elif board.kind == "circles":
        image = np.full((board.rows * px + px, board.columns * 2 * px + px), 255.0)
        for x, y, _ in board.points * per_m + px:
            cv2.circle(
                image, (round(x * 16), round(y * 16)), round(0.32 * px * 16), 0, -1, cv2.LINE_AA, 4
            )
        origin = px
    elif board.kind == "charuco":
        names = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100)
        size = (board.columns, board.rows)
        made = cv2.aruco.CharucoBoard(size, board.square_m, board.marker_m, names)
        image = made.generateImage((board.columns * px, board.rows * px)).astype(float)
        origin = px
    else:
        names = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36H11)
        pitch = (board.square_m + board.marker_m) * per_m
        image = np.full((round(board.rows * pitch) + px, round(board.columns * pitch) + px), 255.0)
        for tag in range(board.rows * board.columns):
            row, column = divmod(tag, board.columns)
            x, y = round(column * pitch), round(row * pitch)
            image[y : y + px, x : x + px] = cv2.aruco.generateImageMarker(names, tag, px)
        origin = 0
    image = cv2.copyMakeBorder(
        image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=255
    )
    shift = origin + margin - (0.5 if board.kind != "circles" else 0.0)
    if board.kind == "aprilgrid":
        shift = margin - 0.5
    return image.astype(np.uint8), np.array([[per_m, 0, shift], [0, per_m, shift], [0, 0, 1]])


def picture_of(board: Board, camera: CameraModel, pose: NDArray) -> NDArray[np.uint8]:
    """(H, W) what an undistorted camera sees, on gray."""
    pattern, to_pattern = pattern_of(board)
    rotation = cv2.Rodrigues(pose[:3])[0]
    plane = camera.matrix @ np.column_stack([rotation[:, :2], pose[3:]])
    whole = plane @ np.linalg.inv(to_pattern)
    size = (2 * camera.width, 2 * camera.height)  # twice as large, then averaged
    twice = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]) @ whole
    image = cv2.warpPerspective(
        pattern, twice, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=110
    )
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

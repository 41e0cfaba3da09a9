"""What `--board` says, and boards found in pictures."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from board_scenes import picture_of
from hypothesis import given
from hypothesis import strategies as st

from calibration.boards import Board, parse_board
from calibration.detection import detect, detect_folder
from calibration.fitting import project_view
from perception.errors import AnySenseError, CalibrationError, ConfigError
from perception.geometry.camera import CameraModel

PLAIN = CameraModel(640, 480, 520.0, 520.0, 320.0, 240.0)
BOARDS = {
    "chessboard": "chessboard:9x6:0.05",
    "circles": "circles:4x11:0.04",
    "charuco": "charuco:8x6:0.05:0.037",
    "aprilgrid": "aprilgrid:5x4:0.08:0.3",
}


def _pose(board: Board) -> np.ndarray:
    turn = np.array([0.3, -0.25, 0.1])
    middle = board.points.mean(axis=0)
    at = np.array([0.02, -0.01, 1.0]) * board.extent_m * 1.7
    return np.concatenate([turn, at - cv2.Rodrigues(turn)[0] @ middle])


@pytest.mark.parametrize("text", BOARDS.values(), ids=BOARDS)
@pytest.mark.parametrize("how", ["plain", "inverted", "16 bit", "faint"])
def test_points_are_found_where_they_are(text: str, how: str) -> None:
    board = parse_board(text)
    if how == "inverted" and board.kind in ("charuco", "aprilgrid"):
        pytest.skip("markers have one contrast")
    pose = _pose(board)
    image = picture_of(board, PLAIN, pose)
    if how == "inverted":
        image = 255 - image
    if how == "16 bit":
        image = image.astype(np.uint16) * 37 + 20_000
    if how == "faint":
        image = (image // 8 + 90).astype(np.uint8)
    view = detect(image, board, "one.png")
    assert view is not None and view.size == (640, 480)
    truth = project_view(PLAIN, pose, board.points)[view.ids]
    if board.kind == "chessboard":  # which end is the first cannot be told
        ends = [truth, truth[::-1]]
        truth = min(ends, key=lambda one: float(np.abs(one - view.pixels).max()))
    missed = np.hypot(*(truth - view.pixels).T)
    assert np.median(missed) < 0.15 and missed.max() < 0.8, (np.median(missed), missed.max())
    assert len(view.ids) >= 0.9 * len(board.points)


def test_a_heated_board_is_found_though_its_middle_is_brighter_than_its_squares_differ() -> None:
    board = parse_board(BOARDS["chessboard"])
    image = picture_of(board, PLAIN, _pose(board)).astype(np.float64)
    y, x = np.mgrid[:480, :640]
    heat = 30_000 * np.exp(-((x - 330) ** 2 + (y - 230) ** 2) / 2 / 150**2)
    rng = np.random.default_rng(0)
    hot = (8_000 + heat + 4 * image + rng.normal(0, 20, image.shape)).astype(np.uint16)
    assert detect(hot, board) is not None


def test_a_picture_without_a_board_gives_none() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), np.uint8)
    for text in BOARDS.values():
        assert detect(noise, parse_board(text)) is None
        assert detect(np.zeros((240, 320), np.uint8), parse_board(text)) is None


def test_a_wrong_size_says_what_the_picture_shows(tmp_path) -> None:
    board = parse_board("chessboard:9x6:0.05")
    cv2.imwrite(str(tmp_path / "a.png"), picture_of(board, PLAIN, _pose(board)))
    with pytest.raises(CalibrationError, match="a.png shows one of 9x6 inner corners"):
        detect_folder(tmp_path, parse_board("chessboard:10x7:0.05"))


def test_a_mirrored_picture_is_named(tmp_path) -> None:
    board = parse_board(BOARDS["charuco"])
    image = np.ascontiguousarray(picture_of(board, PLAIN, _pose(board))[:, ::-1])
    cv2.imwrite(str(tmp_path / "a.png"), image)
    with pytest.raises(CalibrationError, match="mirrored"):
        detect_folder(tmp_path, board)


@pytest.mark.parametrize("text", BOARDS.values())
def test_a_board_is_read_as_it_is_written(text: str) -> None:
    board = parse_board(text)
    assert parse_board(str(board)) == board
    assert board.points.shape[1] == 3 and (board.points[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("chesboard:9x6:0.05", "chessboard"),
        ("chessboard:9x6", "metres"),
        ("chessboard:9:0.05", "metres"),
        ("chessboard:9x6:50", "in metres"),
        ("chessboard:9x6:nan", "metres"),
        ("chessboard:1x6:0.05", "2 to 100"),
        ("charuco:8x6:0.03:0.04", "smaller than its square"),
        ("aprilgrid:6x6:0.08:30", "share"),
        ("", "no board is said"),
    ],
)
def test_a_board_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_board(text)


def test_an_unknown_dictionary_is_refused_with_the_nearest() -> None:
    board = parse_board("charuco:8x6:0.05:0.03:5x5_10")
    with pytest.raises(ConfigError, match="5x5_100"):
        detect(np.full((100, 100), 9, np.uint8) + np.eye(100, dtype=np.uint8), board)


@given(st.text(max_size=40))
def test_any_text_is_a_board_or_refused(text: str) -> None:
    with contextlib.suppress(AnySenseError):
        parse_board(text)

"""The picture for whoever holds the board, of every type that sensors give."""

from __future__ import annotations

import numpy as np
import pytest
from board_scenes import CAMERA, picture_of, views_of

from calibration.boards import parse_board
from calibration.fitting import fit_pose
from calibration.live.drawing import Panel, draw_panels
from calibration.live.hints import wish_of
from calibration.live.sighting import Sighting, sighting_of

BOARD = parse_board("chessboard:7x5:0.05")


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, Sighting]:
    (view,) = views_of(BOARD, CAMERA, 1, seed=4)
    found = fit_pose(CAMERA, view, BOARD)
    assert found is not None
    image = (picture_of(BOARD, CAMERA, found[0]) * 0.8).astype(np.uint8)
    sighting = sighting_of(image, view, BOARD, CAMERA)
    assert sighting is not None
    return image, sighting


def panel(image: np.ndarray, now: Sighting | None, problem: str = "", taken: tuple = ()) -> Panel:
    return Panel("front", image, now, problem, taken, wish_of(taken, 10, intrinsics=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_points_are_drawn_where_they_are_seen(seen: tuple, dtype: type) -> None:
    image, sighting = seen
    drawn = draw_panels([panel(image.astype(dtype), sighting)], "1 of 10 views")
    assert drawn.dtype == np.uint8 and drawn.shape[1:] == (480, 3)
    top = 30
    for x, y in (sighting.view.pixels + 0.5) * 0.75 - 0.5:
        red, green, blue = drawn[top + round(y), round(x)].astype(int)
        assert green > red + 60 and green > blue + 60
    bad = draw_panels([panel(image.astype(dtype), sighting, "blurred")], "")
    x, y = (sighting.view.pixels[0] + 0.5) * 0.75 - 0.5
    red, green, blue = bad[top + round(y), round(x)].astype(int)
    assert red > green + 60


def test_where_it_has_been_is_tinted_and_cameras_stand_side_by_side(seen: tuple) -> None:
    image, sighting = seen
    plain = draw_panels([panel(image, None)], "")
    tinted = draw_panels([panel(image, None, "", (sighting,))], "")
    pictures = (d[30:390].astype(int) for d in (plain, tinted))
    before, after = (picture[:, :, 2] - picture[:, :, 0] for picture in pictures)
    cells = np.unique(((sighting.view.pixels + 0.5) / [64, 48]).astype(int), axis=0)
    changed = (after - before).reshape(10, 36, 10, 48).mean(axis=(1, 3)) > 10
    assert {(int(c), int(r)) for r, c in np.argwhere(changed)} == {tuple(c) for c in cells.tolist()}
    colour = np.repeat(image[:, :, None], 3, axis=2)
    both = draw_panels([panel(colour, None), panel(image[:240], None)], "")
    assert both.shape == (plain.shape[0], 480 + 960, 3)


def test_nothing_odd_breaks_it() -> None:
    nan = np.full((48, 64), np.nan, np.float32)
    for image in (nan, np.zeros((48, 64), np.uint16), np.zeros((480, 4), np.uint8)):
        assert draw_panels([panel(image, None, "äöü")], "x" * 500).size
    assert draw_panels([], "no camera yet").shape[1] == 640

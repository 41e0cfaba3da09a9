"""Which views of a board are taken: rendered ones, whose pose, blur and light are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from board_scenes import CAMERA as LENS
from board_scenes import picture_of, pose_at, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.boards import parse_board
from calibration.detection import detect
from calibration.joint import middle_of
from calibration.live.choosing import (
    BLURRED,
    MOVING,
    NO_BOARD,
    TOO_BRIGHT,
    TOO_FAINT,
    Chooser,
    Look,
    Rules,
    moved_px,
)
from calibration.live.sighting import Sighting, sighting_of
from perception.errors import ConfigError
from perception.geometry.camera import CameraModel

BOARD = parse_board("chessboard:7x5:0.05")
CAMERA = CameraModel(LENS.width, LENS.height, LENS.fx, LENS.fy, LENS.cx, LENS.cy)
STEP_NS = 300_000_000


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.7, turn: tuple = (0, 0, 0)) -> np.ndarray:
    """(6,) the board's middle at x, y, z in metres, turned by degrees about x, y, z."""
    vector = np.radians(np.array(turn, float))
    at = np.array([x, y, z]) - cv2.Rodrigues(vector)[0] @ middle_of(BOARD)
    return np.concatenate([vector, at])


def rendered(at: np.ndarray) -> np.ndarray:
    return (picture_of(BOARD, CAMERA, at) * 0.8).astype(np.uint8)


def shown(chooser: Chooser, image: np.ndarray, times: int = 2, start: int = 0) -> Look:
    """The last of some looks at one picture."""
    view = detect(image, BOARD)
    for index in range(times):
        look = chooser.look("front", start + index * STEP_NS, image, view)
    return look


def seen(at: np.ndarray) -> Sighting:
    image = rendered(at)
    view = detect(image, BOARD)
    assert view is not None
    found = sighting_of(image, view, BOARD, CAMERA)
    assert found is not None
    return found


def test_a_good_view_is_still_sharp_and_new_until_it_is_taken() -> None:
    chooser = Chooser(BOARD, ["front"])
    image = rendered(pose())
    assert shown(chooser, image, 1).problem == MOVING  # nothing tells yet that it stands still
    look = shown(chooser, image, 2, STEP_NS)
    assert look.problem == "" and look.new and look.sighting is not None
    chooser.take("front", look.sighting)
    assert not shown(chooser, image, 2, 9 * STEP_NS).new
    chooser.forget()
    assert shown(chooser, image, 2, 20 * STEP_NS).new


def _bright(image: np.ndarray) -> np.ndarray:
    """Over-exposed: white spreads into black."""
    lens = cv2.GaussianBlur(image, (0, 0), 1.5).astype(float)
    return np.minimum((lens + 15) * 5, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda image: cv2.GaussianBlur(image, (0, 0), 4), BLURRED),
        (_bright, TOO_BRIGHT),
        (lambda image: image // 16 + 90, TOO_FAINT),
        (lambda image: np.full_like(image, 90), NO_BOARD),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 0.8), ""),
        (lambda image: np.minimum(image.astype(int) * 3, 255).astype(np.uint8), ""),
    ],
    ids=["blurred", "bright", "faint", "none", "a lens", "white is white"],
)
def test_what_is_wrong_with_a_picture_is_said(change, problem: str) -> None:  # type: ignore[no-untyped-def]
    chooser = Chooser(BOARD, ["front"])
    assert shown(chooser, rendered(pose(x=0.1, z=0.8)), 5).problem == ""  # what this camera can do
    look = shown(chooser, change(rendered(pose())), 2, 30 * STEP_NS)
    assert look.problem == problem
    assert (look.sighting is None) == (problem == NO_BOARD)


def test_motion_blur_is_blur() -> None:
    kernel = np.zeros((15, 15), np.float32)
    kernel[7] = 1 / 15
    image = cv2.filter2D(rendered(pose(turn=(0, 0, 30))), -1, kernel)
    chooser = Chooser(BOARD, ["front"])
    shown(chooser, rendered(pose()), 5)
    assert shown(chooser, image, 2, 30 * STEP_NS).problem in (BLURRED, NO_BOARD)


def test_a_heated_board_is_never_sharp_and_brighter_in_its_middle() -> None:
    """Edges of a third of a square are its own; what is twice as soft is blurred."""
    chooser, found = Chooser(BOARD, ["front"]), []
    rows, columns = np.indices((CAMERA.height, CAMERA.width))
    glow = 800 * np.exp(-((columns - 320) ** 2 + (rows - 240) ** 2) / 2 / 150**2)
    for index, sigma in enumerate((2.2, 2.2, 2.2, 6.0)):
        soft = cv2.GaussianBlur(rendered(pose(x=0.03 * index)).astype(np.float32), (0, 0), sigma)
        warm = (29_000 + soft + glow).astype(np.float32)
        found.append(shown(chooser, warm, 3, 10 * index * STEP_NS).problem)
    assert found == ["", "", "", BLURRED]


def test_a_board_that_drifts_is_not_still() -> None:
    """By less than half a pixel a picture; each is near the one before, not the one of a while ago."""
    chooser, found = Chooser(BOARD, ["front"]), []
    for index in range(8):
        image = rendered(pose(x=0.0006 * index))
        look = chooser.look("front", index * 100_000_000, image, detect(image, BOARD))
        found.append(look.problem)
    assert set(found) == {MOVING}
    image = rendered(pose(x=0.0006 * 7))
    for index in range(8, 12):
        look = chooser.look("front", index * 100_000_000, image, detect(image, BOARD))
    assert look.problem == ""


def test_a_long_silence_or_a_clock_set_back_says_nothing_of_standing_still() -> None:
    chooser, image = Chooser(BOARD, ["front"]), rendered(pose())
    view = detect(image, BOARD)
    assert chooser.look("front", 10 * STEP_NS, image, view).problem == MOVING
    assert chooser.look("front", 10 * STEP_NS + 5_000_000_000, image, view).problem == MOVING
    assert chooser.look("front", 0, image, view).problem == MOVING
    assert chooser.look("front", STEP_NS, image, view).problem == ""


@pytest.mark.parametrize(
    ("other", "new"),
    [
        (pose(x=0.02), False),
        (pose(x=0.15), True),
        (pose(y=-0.12), True),
        (pose(z=0.74), False),
        (pose(z=0.95), True),
        (pose(turn=(5, 0, 0)), False),
        (pose(turn=(20, 0, 0)), True),
        (pose(turn=(0, -20, 0)), True),
        (pose(turn=(0, 0, 25)), True),
        (pose(turn=(0, 0, 180)), False),  # either end may be up
    ],
)
def test_what_is_a_new_pose(other: np.ndarray, new: bool) -> None:
    chooser = Chooser(BOARD, ["front"])
    assert chooser.differs(seen(other), seen(pose())) is new
    assert chooser.differs(seen(pose()), seen(other)) is new


def test_either_end_may_be_up_also_where_the_board_stands_on_its_side() -> None:
    chooser = Chooser(BOARD, ["front"])
    one, other = seen(pose(turn=(0, 0, 88))), seen(pose(turn=(0, 0, -88)))
    assert one.roll * other.roll < 0 and not chooser.differs(one, other)


def test_a_heated_board_may_come_nearer() -> None:
    """Its edges grow with its squares, and are no wider as a share of them."""
    chooser = Chooser(BOARD, ["front"])
    for index, (far, sigma) in enumerate(((1.3, 1.5), (0.5, 3.9))):
        soft = cv2.GaussianBlur(rendered(pose(z=far)).astype(np.float32), (0, 0), sigma)
        look = shown(chooser, 29_000 + soft, 3, 10 * index * STEP_NS)
        assert look.problem == "" and look.sighting is not None
    assert look.sighting.edge_px > 2 * 1.5 * 2.5 * 0.9  # twice what the far one's were


def test_tilts_have_the_signs_that_they_are_said_to_have() -> None:
    """Positive about x: the lower edge is farther away; about y: the left side is."""
    assert seen(pose(turn=(25, 0, 0))).tilt == pytest.approx([25, 0], abs=2)
    assert seen(pose(turn=(0, -25, 0))).tilt == pytest.approx([0, -25], abs=2)
    lower = cv2.Rodrigues(np.radians([25.0, 0, 0]))[0] @ [0, 1, 0]
    left = cv2.Rodrigues(np.radians([0, 25.0, 0]))[0] @ [-1, 0, 0]
    assert lower[2] > 0 and left[2] > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_sighting_is_where_the_board_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = pose_at(BOARD, rng, CAMERA)
    view = view_of(BOARD, CAMERA, at, 0.0, rng, "x.png")
    if view is None:
        return
    image = rendered(at)
    found = sighting_of(image, view, BOARD, CAMERA)
    assert found is not None
    turn = cv2.Rodrigues(at[:3])[0]
    x, y, z = turn[:, 2]
    assert found.tilt == pytest.approx(np.degrees([np.arctan2(-y, z), np.arctan2(x, z)]), abs=0.5)
    assert 0 < found.size < 1 and ((found.middle > 0) & (found.middle < 1)).all()
    guessed = sighting_of(image, view, BOARD)  # under a usual lens: the way that it is tilted holds
    assert guessed is not None
    steep = np.abs(found.tilt) > 15
    assert (np.sign(guessed.tilt[steep]) == np.sign(found.tilt[steep])).all()


def test_pictures_of_another_size_are_not_taken() -> None:
    chooser, image = Chooser(BOARD, ["front"]), rendered(pose())
    look = shown(chooser, image)
    assert look.sighting is not None
    chooser.take("front", look.sighting)
    half = cv2.resize(rendered(pose(x=0.15)), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    other = shown(chooser, half, 2, 10 * STEP_NS)
    assert other.problem == "480x360, the views that are there 640x480" and not other.new


def test_points_that_two_views_share_are_compared() -> None:
    rng = np.random.default_rng(0)
    view = view_of(BOARD, CAMERA, pose(), 0.0, rng, "x.png")
    moved = view_of(BOARD, CAMERA, pose(x=0.01), 0.0, rng, "y.png")
    assert view is not None and moved is not None
    assert moved_px(view, moved) == pytest.approx(0.01 / 0.7 * CAMERA.fx, rel=0.02)
    assert moved_px(view, view) == 0
    some = type(view)("x", view.size, view.ids[::2], view.pixels[::2])
    assert moved_px(some, moved) == pytest.approx(moved_px(view, moved), rel=0.02)
    none = type(view)("x", view.size, view.ids[:0], view.pixels[:0])
    assert moved_px(none, view) == float("inf")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_rules_that_cannot_be_are_refused_by_name(value: float) -> None:
    with pytest.raises(ConfigError, match="still_s"):
        Rules(still_s=value)

"""What is asked for next, until it is enough."""

from __future__ import annotations

import numpy as np
import pytest
from board_scenes import CAMERA, views_of

from calibration.boards import parse_board
from calibration.detection import BoardView, Detections
from calibration.intrinsics import calibrate
from calibration.live.hints import ENOUGH, FARTHER, MORE, NEARER, wish_of
from calibration.live.sighting import Sighting

BOARD = parse_board("chessboard:7x5:0.05")
ALL = [(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8), (0.5, 0.5)]
TILTS = [(20.0, 0.0), (-20.0, 0.0), (0.0, 20.0), (0.0, -20.0), (0.0, 0.0)]
SIZES = [0.5, 0.3, 0.5, 0.3, 0.5]


def sighting(middle: tuple, tilt: tuple = (0.0, 0.0), size: float = 0.4) -> Sighting:
    """A square board of that size about that middle."""
    half = size / 2
    grid = np.stack(np.meshgrid(np.linspace(-half, half, 8), np.linspace(-half, half, 8)), -1)
    pixels = (grid.reshape(-1, 2) + middle) * [640, 480]
    view = BoardView("x", (640, 480), np.arange(64), pixels)
    return Sighting(view, np.array(middle), size, np.array(tilt), 0.0, 2.0, 20.0, 0.0, 0.7)


def everywhere() -> list[Sighting]:
    return [sighting(m, t, s) for m, t, s in zip(ALL, TILTS, SIZES, strict=True)]


def test_nothing_is_asked_for_when_it_was_everywhere() -> None:
    wish = wish_of(everywhere(), 5, intrinsics=True)
    assert wish.enough and wish.text == ENOUGH and set(wish.progress.values()) == {1.0}
    more = wish_of(everywhere(), 6, intrinsics=True)
    assert not more.enough and more.text == MORE and more.progress["views"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda m, t, s: m[0] > 0.4, "left"),
        (lambda m, t, s: m[0] < 0.6, "right"),
        (lambda m, t, s: m[1] > 0.4, " up "),
        (lambda m, t, s: m[1] < 0.6, " down "),
    ],
    ids=["left", "right", "up", "down"],
)
def test_where_it_was_not_is_asked_for(keep, words: str) -> None:  # type: ignore[no-untyped-def]
    places = zip(ALL, TILTS, SIZES, strict=True)
    some = [sighting(m, t, s) for m, t, s in places if keep(m, t, s)]
    wish = wish_of(some, 3, intrinsics=True)
    assert words in wish.text and not wish.enough


@pytest.mark.parametrize(
    ("missing", "words"),
    [(0, "lower edge"), (1, "upper edge"), (2, "left side"), (3, "right side")],
)
def test_a_tilt_that_is_missing_is_asked_for(missing: int, words: str) -> None:
    tilts = [(0.0, 0.0) if i == missing else t for i, t in enumerate(TILTS)]
    some = [sighting(m, t, s) for m, t, s in zip(ALL, tilts, SIZES, strict=True)]
    assert words in wish_of(some, 5, intrinsics=True).text
    assert words in wish_of(some, 5, intrinsics=False).text


def test_sizes_are_asked_for() -> None:
    far = [sighting(m, t, 0.3) for m, t in zip(ALL, TILTS, strict=True)]
    far = [sighting((0.08, 0.08)), sighting((0.92, 0.92)), *far]
    small = [s for s in far if s.size < 0.35]
    assert wish_of([*small, *_rim(0.3)], 5, intrinsics=True).text == NEARER
    near = [sighting(m, t, 0.5) for m, t in zip(ALL, TILTS, strict=True)]
    assert wish_of(near, 5, intrinsics=True).text == FARTHER


def _rim(size: float) -> list[Sighting]:
    return [sighting(m, size=size) for m in ((0.1, 0.1), (0.9, 0.9))]


def test_where_intrinsics_are_known_less_is_asked_for() -> None:
    some = [
        sighting(m, t, s)
        for m, t, s in zip([(0.35, 0.35), (0.7, 0.7)] * 2 + [(0.5, 0.5)], TILTS, SIZES, strict=True)
    ]
    assert wish_of(some, 5, intrinsics=False).enough
    assert not wish_of(some, 5, intrinsics=True).enough
    assert "coverage" not in wish_of(some, 5, intrinsics=False).progress


def test_shares_grow_with_the_views_and_enough_is_enough_for_the_fit() -> None:
    """Random poses: where nothing is asked for any more, the fit asks for no tilt and no coverage."""
    from calibration.live.sighting import sighting_of

    image = np.zeros((480, 640), np.uint8)
    views = views_of(BOARD, CAMERA, 40, noise=0.05, seed=3)
    taken, before, enough = [], dict[str, float](), None
    for view in views:
        found = sighting_of(image, view, BOARD, CAMERA)
        assert found is not None
        taken.append(found)
        wish = wish_of(taken, 12, intrinsics=True)
        assert all(wish.progress[k] >= v - 1e-9 for k, v in before.items())
        assert all(0 <= v <= 1 for v in wish.progress.values())
        before = wish.progress
        if wish.enough and enough is None:
            enough = len(taken)
    assert enough is not None and 12 <= enough < 40
    fit = calibrate(Detections(tuple(views[:enough])), BOARD, "plumb_bob")
    assert not [r for r in fit.remarks if "tilt" in r or "saw the board" in r], fit.remarks


def test_nothing_was_taken_yet() -> None:
    wish = wish_of([], 12, intrinsics=True)
    assert not wish.enough and wish.text and max(wish.progress.values()) == 0

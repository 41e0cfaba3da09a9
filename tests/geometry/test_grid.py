"""The reference grid: where a picture comes to lie on it, how it gets there, and the way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import InputError
from perception.geometry.grid import GridMap, GridSpec

STRETCH = GridSpec(height=64, width=96, fit="stretch")
LETTERBOX = GridSpec(height=64, width=96, fit="letterbox")


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "scaled"),
    [
        ((64, 96), (64, 96)),
        ((128, 192), (64, 96)),
        ((100, 400), (24, 96)),  # as wide as the grid: 96 / 400 = 0.24
        ((400, 100), (64, 16)),  # as high as the grid: 64 / 400 = 0.16
        ((50, 77), (62, 96)),  # 50 * 96 / 77 = 62.3
        ((51, 77), (64, 96)),  # 63.6
        ((1, 1000), (1, 96)),  # 0.1, but a pixel there must be
        ((1000, 1), (64, 1)),
        ((16, 12), (64, 48)),  # small pictures grow
    ],
)
def test_letterbox_keeps_the_ratio_as_large_as_fits(
    source: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert GridMap.fit(source, LETTERBOX) == GridMap(source, (64, 96), scaled)
    assert GridMap.fit(source, STRETCH) == GridMap(source, (64, 96), (64, 96))


@pytest.mark.parametrize("source", [(0, 5), (5, 0), (-1, 5), (0, 0)])
def test_empty_pictures_are_refused_with_their_size(source: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"image of {source[1]}x{source[0]} pixels is empty"):
        GridMap.fit(source, STRETCH)


def test_one_pixel_is_a_picture() -> None:
    assert GridMap.fit((1, 1), LETTERBOX).scaled == (64, 64)


def test_scale_is_x_then_y() -> None:
    assert GridMap.fit((32, 24), STRETCH).scale == (4.0, 2.0)
    assert GridMap.fit((128, 384), STRETCH).scale == (0.25, 0.5)
    assert GridMap.fit((100, 400), LETTERBOX).scale == (0.24, 0.24)


def test_a_picture_that_is_the_grid_is_left_alone() -> None:
    image = _random(64, 96, 3)
    for spec in (STRETCH, LETTERBOX):
        grid = GridMap.fit((64, 96), spec)
        assert grid.identity
        assert grid.to_grid(image) is image
    for source in ((64, 95), (63, 96), (32, 48)):
        assert not GridMap.fit(source, STRETCH).identity
        assert not GridMap.fit(source, LETTERBOX).identity


def test_a_picture_of_another_size_than_said_is_refused() -> None:
    grid = GridMap.fit((10, 20), STRETCH)
    with pytest.raises(InputError, match="image has 10x20 pixels, expected 20x10"):
        grid.to_grid(_random(20, 10))
    with pytest.raises(InputError, match="image has 20x11 pixels"):
        grid.to_grid(_random(11, 20))


def test_halving_averages_and_doubling_blends() -> None:
    blocks = np.zeros((128, 192), np.float32)
    blocks[::2, ::2], blocks[1::2, 1::2] = 4, 8
    assert (GridMap.fit((128, 192), STRETCH).to_grid(blocks) == 3).all()
    steps = np.repeat(np.array([0, 4], np.float32), 24)[None].repeat(32, axis=0)
    grown = GridMap.fit((32, 48), STRETCH).to_grid(steps)
    # Pixel centers at half: between the steps one quarter and three quarters of the way.
    assert grown[0, 46:50].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("source", "mode"),
    [
        ((200, 192), cv2.INTER_AREA),
        ((65, 97), cv2.INTER_AREA),
        ((64, 290), cv2.INTER_LINEAR),  # one side alone does not shrink a picture
        ((190, 96), cv2.INTER_LINEAR),
        ((128, 48), cv2.INTER_LINEAR),
        ((32, 192), cv2.INTER_LINEAR),
        ((32, 48), cv2.INTER_LINEAR),
    ],
)
def test_values_are_averaged_only_where_both_sides_shrink(
    source: tuple[int, int], mode: int
) -> None:
    image = _random(*source).astype(np.float32)
    grid = GridMap.fit(source, STRETCH)
    assert np.array_equal(grid.to_grid(image), cv2.resize(image, (96, 64), interpolation=mode))
    other = cv2.INTER_AREA if mode == cv2.INTER_LINEAR else cv2.INTER_LINEAR
    assert not np.array_equal(grid.to_grid(image), cv2.resize(image, (96, 64), interpolation=other))
    nearest = cv2.resize(image, (96, 64), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(grid.to_grid(image, nearest=True), nearest)


def test_padding_is_right_and_below_and_holds_what_is_asked() -> None:
    image = _random(32, 96, 3)
    grid = GridMap.fit((32, 96), LETTERBOX)
    padded = grid.to_grid(image, fill=7)
    assert padded.shape == (64, 96, 3) and padded.dtype == np.uint8
    assert np.array_equal(padded[:32], image)  # as wide as the grid: not resampled
    assert (padded[32:] == 7).all()
    assert (grid.to_grid(image)[32:] == 0).all()
    depth = GridMap.fit((64, 24), LETTERBOX).to_grid(np.ones((64, 24), np.float32), fill=np.nan)
    assert (depth[:, :24] == 1).all() and np.isnan(depth[:, 24:]).all()


def test_a_map_of_any_resolution_is_cut_where_the_picture_ends() -> None:
    grid = GridMap.fit((100, 400), LETTERBOX)  # rows 0 to 23 of 64
    assert grid.crop(np.zeros((64, 96))).shape == (24, 96)
    assert grid.crop(np.zeros((5, 16, 24))).shape == (5, 6, 24)
    tall = GridMap.fit((400, 100), LETTERBOX)  # columns 0 to 15 of 96
    assert tall.crop(np.zeros((3, 32, 48))).shape == (3, 32, 8)
    assert tall.crop(np.zeros((2, 3))).shape == (2, 1)
    assert grid.crop(np.zeros((2, 2))).shape == (1, 2)
    numbers = np.arange(64 * 96).reshape(64, 96)
    assert np.array_equal(grid.crop(numbers), numbers[:24])
    whole = GridMap.fit((100, 400), STRETCH)
    assert whole.crop(numbers) is numbers


def test_boxes_by_hand() -> None:
    grid = GridMap.fit((128, 384), STRETCH)  # a quarter in x, half in y
    source = np.array([[40, 20, 80, 60], [0, 0, 384, 128]], np.float32)
    there = grid.boxes_to_grid(source)
    assert there.tolist() == [[10, 10, 20, 30], [0, 0, 96, 64]]
    assert there.dtype == np.float32
    assert grid.boxes_to_source(there).tolist() == source.tolist()
    beyond = np.array([[-5, -6, 100, 70]], np.float32)
    assert grid.boxes_to_source(beyond).tolist() == [[0, 0, 384, 128]]
    # Clipped to the picture, not to the padding beside it.
    narrow = GridMap.fit((400, 100), LETTERBOX)
    assert narrow.boxes_to_source(np.array([[8, 32, 96, 64]], np.float32)).tolist() == [
        [50, 200, 100, 400]
    ]


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 99),
    channels=st.sampled_from([0, 3]),
)
def test_letterbox_changes_nothing_but_size_and_place(
    height: int, width: int, seed: int, channels: int
) -> None:
    shape = (height, width, channels) if channels else (height, width)
    image = np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
    grid = GridMap.fit((height, width), LETTERBOX)
    assert grid.scaled[0] == 64 or grid.scaled[1] == 96
    assert grid.scaled[0] <= 64 and grid.scaled[1] <= 96
    placed = grid.to_grid(image, nearest=True)
    assert placed.shape == (64, 96, *shape[2:])
    inside = placed[: grid.scaled[0], : grid.scaled[1]]
    assert set(np.unique(inside)) <= set(np.unique(image))
    assert int((placed != 0).sum()) == inside.size

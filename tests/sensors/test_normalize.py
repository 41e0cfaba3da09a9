"""Network channels from decoded values, computed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.sensors.depth import DepthSpec
from perception.sensors.depth.preprocess import normalize_depth
from perception.sensors.lidar import LidarSpec
from perception.sensors.lidar.preprocess import dilate_nearest, normalize_lidar
from perception.sensors.rgb import RgbSpec
from perception.sensors.rgb.preprocess import normalize_rgb
from perception.sensors.thermal import ThermalRule, ThermalSpec
from perception.sensors.thermal.preprocess import normalize_thermal
from tests.slow_lidar import dilate_slowly


def _dirty(channels: int, *size: int) -> np.ndarray:
    """A buffer that holds what was there before."""
    return np.full((channels, *size), np.nan, np.float32)


def test_channels_without_a_buffer_to_fill() -> None:
    flat, none = np.ones((2, 3), np.float32), np.zeros((2, 3), bool)
    made = [
        normalize_rgb(np.zeros((2, 3, 3), np.uint8), RgbSpec()),
        normalize_depth(flat, DepthSpec()),
        normalize_thermal(flat, "kelvin", ThermalSpec()),
        normalize_lidar(flat, flat, flat, none, LidarSpec()),
    ]
    assert [x.shape for x in made] == [(3, 2, 3), (2, 2, 3), (2, 2, 3), (4, 2, 3)]
    assert {x.dtype for x in made} == {np.dtype(np.float32)}


# rgb


def test_every_gray_value_of_every_channel() -> None:
    spec = RgbSpec(mean=(10, 100, 200), std=(2, 4, 5))
    image = np.stack([np.arange(256, dtype=np.uint8)] * 3, axis=-1)[None]
    out = _dirty(3, 1, 256)
    got = normalize_rgb(image, spec, out)
    assert got is out
    values = np.arange(256)
    assert got[:, 0].tolist() == [
        ((values - 10) / 2).tolist(),
        ((values - 100) / 4).tolist(),
        pytest.approx(((values - 200) / 5).tolist(), abs=1e-5),
    ]


def test_red_comes_first_and_rows_stay_rows() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = (10, 20, 30)
    got = normalize_rgb(image, RgbSpec(mean=(0, 0, 0), std=(1, 1, 1)))
    assert got.shape == (3, 2, 3) and got.dtype == np.float32
    assert got[:, 1, 2].tolist() == [10, 20, 30]
    assert got.sum() == 60


# depth


def test_depth_is_inverse_between_its_limits_which_belong_to_it() -> None:
    spec = DepthSpec(min_m=0.5, max_m=2.0)  # 1/z from 2 to 0.5
    near, far = np.nextafter(np.float32([0.5, 2.0]), np.float32([0, 9]))
    depth = np.array([[0.5, 1.0, 2.0], [near, far, 0.0], [-1, np.nan, np.inf]], np.float32)
    out = _dirty(2, 3, 3)
    assert normalize_depth(depth, spec, out) is out
    assert out[1].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    # (1/z - 1/2) / (2 - 1/2)
    assert out[0, 0].tolist() == pytest.approx([1, 1 / 3, 0], abs=1e-6)
    assert not out[0, 1:].any()


def test_zero_and_infinite_depth_warn_of_nothing() -> None:
    depth = np.array([[0, np.nan, np.inf, -np.inf]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not normalize_depth(depth, DepthSpec()).any()


@given(arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_any_depth_gives_values_in_0_to_1_and_falls_with_distance(depth: np.ndarray) -> None:
    spec = DepthSpec(min_m=0.4, max_m=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = normalize_depth(depth, spec)
    assert (got[0] > -1e-6).all() and (got[0] < 1 + 1e-5).all()
    seen = got[1] == 1
    assert np.array_equal(seen, np.isfinite(depth) & (depth >= 0.4) & (depth <= 20))
    order = np.argsort(depth[seen])
    assert (np.diff(got[0][seen][order]) <= 1e-6).all()


# thermal


def _rules(kind: str, low: float, high: float) -> ThermalSpec:
    rule = ThermalRule(kind=kind, low=low, high=high)  # type: ignore[arg-type]
    other = ThermalRule(kind="linear", low=-9, high=9)
    return ThermalSpec(counts16=rule, counts8=other, kelvin=other)


def test_a_linear_rule_runs_from_minus_two_to_two() -> None:
    values = np.array([[100, 150, 200, 125, 0, 300, np.nan, np.inf, -np.inf]], np.float32)
    out = _dirty(2, 1, 9)
    assert normalize_thermal(values, "counts16", _rules("linear", 100, 200), out) is out
    assert out[0, 0].tolist() == pytest.approx([-2, 0, 2, -1, -2, 2, 0, 0, 0], abs=1e-5)
    assert out[1, 0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_each_unit_has_its_own_rule() -> None:
    spec = ThermalSpec(
        counts8=ThermalRule(low=0, high=4),
        counts16=ThermalRule(low=0, high=8),
        kelvin=ThermalRule(low=0, high=16),
    )
    values = np.full((1, 1), 4, np.float32)
    got = [
        float(normalize_thermal(values, unit, spec)[0, 0, 0]) for unit in ("counts8", "counts16")
    ]
    assert [*got, float(normalize_thermal(values, "kelvin", spec)[0, 0, 0])] == [2, 0, -1]


def test_percentiles_are_those_of_every_fourth_pixel_of_every_fourth_row() -> None:
    values = np.full((8, 12), 5000, np.float32)  # what is not looked at
    values[::4, ::4] = [[10, 20, 30], [40, 50, 60]]
    got = normalize_thermal(values, "counts16", _rules("percentile", 20, 80))
    # Of 10..60 in steps of ten, the 20th percentile is 20 and the 80th 50.
    assert got[0, ::4, ::4].ravel().tolist() == pytest.approx(
        [-2, -2, -2 + 4 / 3, -2 + 8 / 3, 2, 2], abs=1e-4
    )
    assert got[0, 1, 1] == 2


def test_percentiles_leave_out_what_is_not_finite() -> None:
    values = np.full((8, 8), np.nan, np.float32)
    values[0, 0], values[0, 4], values[4, 0] = 100, 200, 300
    got = normalize_thermal(values, "counts16", _rules("percentile", 0, 100))
    assert [float(got[0, y, x]) for y, x in ((0, 0), (0, 4), (4, 0), (4, 4))] == pytest.approx(
        [-2, 0, 2, 0], abs=1e-5
    )
    assert got[1].sum() == 3


def test_a_picture_of_one_value_and_one_of_none() -> None:
    rules = _rules("percentile", 1, 99)
    flat = normalize_thermal(np.full((8, 8), 300, np.float32), "counts16", rules)
    assert np.allclose(flat[0], -2, atol=0.1) and (flat[1] == 1).all()
    barely = np.full((8, 8), 300, np.float32)
    barely[::2] += np.float32(5e-4)  # half of the least span that is taken
    low, high = (
        normalize_thermal(barely, "counts16", _rules("percentile", 0, 100))[0, y, 0] for y in (0, 1)
    )
    assert abs(float(low) - float(high)) < 2.2
    none = normalize_thermal(np.full((8, 8), np.nan, np.float32), "counts16", rules)
    assert not none.any()
    hidden = np.full((8, 8), np.nan, np.float32)
    hidden[1, 1], hidden[2, 3] = 0.25, 7  # valid, but not among the pixels that are looked at
    got = normalize_thermal(hidden, "counts16", rules)
    assert got[0, 1, 1] == pytest.approx(-1, abs=1e-6) and got[0, 2, 3] == 2
    assert got[1].sum() == 2


@given(
    arrays(np.float32, (9, 9), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from(["linear", "percentile"]),
)
def test_any_thermal_picture_stays_within_two_and_keeps_its_order(
    values: np.ndarray, kind: str
) -> None:
    got = normalize_thermal(values, "counts16", _rules(kind, 1, 99))
    assert np.isfinite(got).all() and (np.abs(got[0]) <= 2).all()
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(got[0].ravel()[order]) >= -1e-3).all()


# lidar


def _returns(shape: tuple[int, int], **at: tuple[int, int, float, float, float]):  # type: ignore[no-untyped-def]
    layers = np.zeros((3, *shape), np.float32)
    valid = np.zeros(shape, bool)
    for row, column, range_m, intensity, height in at.values():
        layers[:, row, column] = range_m, intensity, height
        valid[row, column] = True
    return (*layers, valid)


def test_lidar_channels_by_hand() -> None:
    spec = LidarSpec(max_range_m=40, height_scale_m=4, dilate_px=0)
    beyond = float(np.nextafter(np.float32(40), np.float32(41)))
    returns = _returns(
        (2, 3), a=(0, 0, 10, 0.5, 2), b=(0, 2, 40, 0.25, -1), c=(1, 1, beyond, 0.9, 3)
    )
    returns[0][1, 2] = 5  # a range that is marked as none
    out = _dirty(4, 2, 3)
    assert normalize_lidar(*returns, spec, out) is out
    assert out[:, 0, 0].tolist() == [0.25, 0.5, 0.5, 1]
    assert out[:, 0, 2].tolist() == [1, 0.25, -0.25, 1]
    assert out.sum() == pytest.approx(2.25 + 2.0)
    assert np.count_nonzero(out[3]) == 2


def test_dilation_grows_a_square_for_every_step_and_does_not_wrap() -> None:
    for radius in (0, 1, 2, 3):
        for row, column in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
            image = np.zeros((4, 9, 9), np.float32)
            image[:, row, column] = 0.5, 0.25, 0.125, 1
            grown = dilate_nearest(image.copy(), radius)
            wanted = np.zeros((9, 9), np.float32)
            top, left = max(0, row - radius), max(0, column - radius)
            wanted[top : row + radius + 1, left : column + radius + 1] = 1
            assert np.array_equal(grown[3], wanted), (radius, row, column)
            assert np.array_equal(grown[:3], np.array([0.5, 0.25, 0.125])[:, None, None] * wanted)


def test_the_nearest_return_wins_wherever_two_meet() -> None:
    line = np.zeros((4, 1, 7), np.float32)
    line[:, 0, 1] = 0.5, 0.1, 0.1, 1
    line[:, 0, 3] = 0.2, 0.2, 0.2, 1
    line[:, 0, 5] = 0.4, 0.3, 0.3, 1
    grown = dilate_nearest(line, 1)
    assert grown[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.2, 0.2, 0.2, 0.4, 0.4])
    assert grown[1, 0].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3])
    beside = np.zeros((4, 1, 2), np.float32)
    beside[:, 0, 0], beside[:, 0, 1] = (0.5, 0.1, 0, 1), (0.2, 0.2, 0, 1)
    assert dilate_nearest(beside, 1)[0, 0].tolist() == pytest.approx([0.2, 0.2])


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 3), st.integers(0, 2**32 - 1)
)
def test_dilation_is_that_of_the_definition(size: tuple[int, int], radius: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((4, *size), dtype=np.float32)
    image[0] = np.round(image[0] * 5) / 5  # many are equally far
    image[3] = rng.random(size) < rng.random()
    image[:3] *= image[3]
    assert np.array_equal(dilate_nearest(image.copy(), radius), dilate_slowly(image.copy(), radius))


def test_of_two_equally_far_returns_each_keeps_its_pixel() -> None:
    image = np.zeros((4, 1, 2), np.float32)
    image[:, 0, 0], image[:, 0, 1] = (0.5, 0.1, 0.1, 1), (0.5, 0.9, 0.9, 1)
    grown = dilate_nearest(image, 1)
    assert grown[1, 0].tolist() == pytest.approx([0.1, 0.9])


@given(
    arrays(np.bool_, (6, 7)),
    arrays(np.float32, (6, 7), elements=st.floats(0.5, 90, width=32)),
    st.integers(0, 3),
)
def test_a_pixel_holds_the_nearest_return_of_its_square(
    valid: np.ndarray, ranges: np.ndarray, radius: int
) -> None:
    spec = LidarSpec(max_range_m=80, dilate_px=radius)
    got = normalize_lidar(ranges, ranges / 100, ranges / 10, valid, spec)
    kept = valid & (ranges <= 80)
    for row in range(6):
        for column in range(7):
            window = (
                slice(max(0, row - radius), row + radius + 1),
                slice(max(0, column - radius), column + radius + 1),
            )
            near = ranges[window][kept[window]]
            assert got[3, row, column] == bool(near.size)
            if near.size:
                assert got[0, row, column] == pytest.approx(near.min() / 80, rel=1e-5)

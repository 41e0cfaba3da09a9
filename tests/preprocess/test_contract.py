"""What a contract may hold, and what one that leaves values out stands for."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perception.frame import MODALITIES
from perception.preprocess import CHANNELS, GridSpec, PreprocessContract
from perception.sensors.depth import DepthSpec
from perception.sensors.depth.preprocess import normalize_depth
from perception.sensors.lidar import LidarSpec
from perception.sensors.lidar.preprocess import normalize_lidar
from perception.sensors.rgb import RgbSpec
from perception.sensors.rgb.preprocess import normalize_rgb
from perception.sensors.thermal import ThermalRule, ThermalSpec
from perception.sensors.thermal.preprocess import normalize_thermal


def _taken(spec: type, **fields: object) -> bool:
    try:
        spec(**fields)
    except ValidationError:
        return False
    return True


@given(st.sampled_from(["height", "width"]), st.integers(-40, 5000) | st.sampled_from([32, 4096]))
def test_a_side_of_the_grid_is_a_multiple_of_32_up_to_4096(side: str, pixels: int) -> None:
    assert _taken(GridSpec, **{side: pixels}) == (32 <= pixels <= 4096 and pixels % 32 == 0)


@given(st.integers(1, 128).map(lambda n: 32 * n))
def test_any_grid_of_the_right_sides_is_taken(pixels: int) -> None:
    assert _taken(GridSpec, height=pixels) and _taken(GridSpec, width=pixels)


@given(st.floats(-1e7, 1e7) | st.sampled_from([1e-6, 1e-5, 0.0, 1.0, 1e6, float("nan")]))
def test_scales_are_positive_and_within_float32(value: float) -> None:
    good = 1e-6 <= value <= 1e6
    assert _taken(RgbSpec, std=(value, 1, 1)) == good
    assert _taken(LidarSpec, max_range_m=value) == good
    assert _taken(RgbSpec, mean=(1, value, 1)) == (-1e6 <= value <= 1e6)


@given(st.floats(-5, 120), st.floats(-5, 120), st.sampled_from(["linear", "percentile"]))
def test_rules_go_from_low_to_high_and_percentiles_to_100(
    low: float, high: float, kind: str
) -> None:
    inside = kind == "linear" or (low >= 0 and high <= 100)
    assert _taken(ThermalRule, kind=kind, low=low, high=high) == (low < high and inside)


def test_the_ends_of_rules_and_ranges() -> None:
    assert _taken(ThermalRule, kind="percentile", low=0, high=100)
    assert not _taken(ThermalRule, low=5, high=5)
    assert not _taken(DepthSpec, min_m=2, max_m=2)
    assert _taken(DepthSpec, min_m=2, max_m=2.1)
    assert [_taken(LidarSpec, dilate_px=n) for n in (-1, 0, 8, 9)] == [False, True, True, False]


def test_modalities_are_named_once_in_their_order() -> None:
    for count in range(5):
        for chosen in permutations(MODALITIES, count):
            places = [MODALITIES.index(m) for m in chosen]
            good = bool(chosen) and places == sorted(places)
            assert _taken(PreprocessContract, modalities=chosen) == good
    assert not _taken(PreprocessContract, modalities=("rgb", "rgb"))


def test_the_channels_are_those_that_are_made() -> None:
    flat = np.ones((32, 64), np.float32)
    made = {
        "rgb": normalize_rgb(np.zeros((32, 64, 3), np.uint8), RgbSpec()),
        "depth": normalize_depth(flat, DepthSpec()),
        "thermal": normalize_thermal(flat, "counts8", ThermalSpec()),
        "lidar": normalize_lidar(flat, flat, flat, flat > 0, LidarSpec()),
    }
    contract = PreprocessContract(modalities=MODALITIES, grid=GridSpec(height=32, width=64))
    assert set(made) == set(CHANNELS)
    for modality, array in made.items():
        assert contract.input_shape(modality) == (1, *array.shape)  # type: ignore[arg-type]


def test_pictures_are_standardized_by_imagenet_where_nothing_else_is_said() -> None:
    """Its mean and deviation are published on the scale 0..1."""
    assert RgbSpec().mean == pytest.approx(255 * np.array([0.485, 0.456, 0.406]))
    assert RgbSpec().std == pytest.approx(255 * np.array([0.229, 0.224, 0.225]))


def test_a_contract_that_leaves_values_out_goes_on_to_mean_what_it_was_trained_with() -> None:
    depth = normalize_depth(np.array([[0.4, 20.0, 0.39, 20.1]], np.float32), DepthSpec())
    assert depth[0, 0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert depth[1, 0].tolist() == [1, 1, 0, 0]
    counts = normalize_thermal(np.array([[0, 127.5, 255]], np.float32), "counts8", ThermalSpec())
    assert counts[0, 0].tolist() == pytest.approx([-2, 0, 2], abs=1e-6)
    # One in a hundred lies beyond either end of the percentiles, whatever the camera counts.
    ramp = np.repeat(np.repeat(np.linspace(0, 100, 101, dtype=np.float32)[None], 4, 0), 4, 1)
    for unit in ("counts16", "kelvin"):
        scaled = normalize_thermal(7000 + ramp, unit, ThermalSpec())[0, 0, ::4]
        assert scaled[[0, 1, 50, 99, 100]].tolist() == pytest.approx([-2, -2, 0, 2, 2], abs=1e-3)
        assert -2 < scaled[2] < scaled[98] < 2
    ones = np.ones((3, 3), np.float32)
    alone = np.zeros((3, 3), bool)
    alone[1, 1] = True
    lidar = normalize_lidar(40 * ones, ones, 1.5 * ones, alone, LidarSpec())
    assert lidar[:, 0, 0].tolist() == [0.5, 1, 0.5, 1]  # a return grows by one pixel to all sides
    far = np.zeros((5, 5), bool)
    far[2, 2] = True
    grown = normalize_lidar(np.full((5, 5), 80.0, np.float32), *[np.ones((5, 5), np.float32)] * 2,
                            far, LidarSpec())  # fmt: skip
    assert grown[3].sum() == 9 and grown[0].max() == 1
    assert (GridSpec().height, GridSpec().width) == (480, 640)
    assert LidarSpec().sensor_height_m == 1.7

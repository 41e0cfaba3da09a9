"""The preprocessing contract: values, geometry, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perception.errors import CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.preprocess import (
    CHANNELS,
    GridMap,
    GridSpec,
    PreprocessContract,
    preprocess_sample,
    source_size,
)
from perception.sensors.depth import DepthSpec
from perception.sensors.depth.preprocess import normalize_depth
from perception.sensors.lidar import LidarSpec
from perception.sensors.lidar.preprocess import dilate_nearest, normalize_lidar
from perception.sensors.rgb import RgbSpec
from perception.sensors.rgb.preprocess import normalize_rgb
from perception.sensors.thermal import ThermalRule, ThermalSpec
from perception.sensors.thermal.preprocess import normalize_thermal

CONTRACT = PreprocessContract(
    modalities=("rgb", "depth", "thermal", "lidar"), grid=GridSpec(height=64, width=96)
)


def made(
    sample: Sample, contract: PreprocessContract = CONTRACT, out: np.ndarray | None = None
) -> np.ndarray:
    given = None if out is None else {"image": out}
    return preprocess_sample(sample, contract[sample.kind], given)["image"]


def test_rgb_is_standardized_per_channel() -> None:
    spec = RgbSpec(mean=(10, 20, 30), std=(1, 2, 4))
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    wanted = (image.astype(np.float64) - spec.mean) / spec.std
    assert np.allclose(normalize_rgb(image, spec), wanted.transpose(2, 0, 1), atol=1e-4)


def test_inverse_depth_runs_from_one_at_the_nearest_to_zero_at_the_farthest() -> None:
    spec = DepthSpec(min_m=0.5, max_m=10.0)
    depth = np.array([[0.5, 10.0, 1.0, np.nan, np.inf, -np.inf, 0.4, 10.1, 0.0]], np.float32)
    got = normalize_depth(depth, spec)
    assert np.allclose(got[0, 0, :3], [1.0, 0.0, (1 - 0.1) / (2 - 0.1)], atol=1e-6)
    assert got[1, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert (got[0, 0, 3:] == 0).all()


def test_thermal_rules() -> None:
    spec = ThermalSpec(kelvin=ThermalRule(kind="linear", low=270, high=310))
    values = np.array([[270, 290, 310, 400, np.nan]], np.float32)
    got = normalize_thermal(values, "kelvin", spec)
    assert np.allclose(got[0, 0], [-2, 0, 2, 2, 0], atol=1e-5)
    assert got[1, 0].tolist() == [1, 1, 1, 1, 0]
    ramp = np.linspace(1000, 2000, 64 * 64, dtype=np.float32).reshape(64, 64)
    shifted = normalize_thermal(ramp + 5000, "counts16", spec)
    assert np.allclose(normalize_thermal(ramp, "counts16", spec), shifted, atol=1e-3)


def test_lidar_channels_and_dilation() -> None:
    shape = (5, 5)
    valid = np.zeros(shape, bool)
    valid[2, 2] = valid[2, 3] = True
    distance = np.where(valid, 8.0, 0).astype(np.float32)
    distance[2, 3] = 4.0
    got = normalize_lidar(distance, valid * 0.5, valid * 1.5, valid, LidarSpec(dilate_px=1))
    assert got[:, 2, 2].tolist() == pytest.approx([0.05, 0.5, 0.5, 1.0])  # the nearer one wins
    assert got[0, 2, 1] == pytest.approx(0.1)
    assert got[3].sum() == 12  # 3 x 3 around each of the two
    assert dilate_nearest(np.zeros((4, 3, 3), np.float32), 2).sum() == 0


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["stretch", "letterbox"]),
    st.integers(0, 99),
)
def test_boxes_go_to_the_grid_and_back(height: int, width: int, fit: str, seed: int) -> None:
    grid = GridMap.fit((height, width), GridSpec(height=64, width=96, fit=fit))  # type: ignore[arg-type]
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (3, 2, 2)), axis=1)
    boxes = (corners * [width, height]).reshape(3, 4).astype(np.float32)
    there = grid.boxes_to_grid(boxes)
    assert (there <= [96.5, 64.5, 96.5, 64.5]).all()
    assert np.allclose(grid.boxes_to_source(there), boxes, atol=1e-2)


def test_letterbox_keeps_the_ratio_and_can_be_cut_off_again() -> None:
    grid = GridMap.fit((100, 400), GridSpec(height=64, width=96, fit="letterbox"))
    assert grid.scaled == (24, 96)
    image = np.full((100, 400), 9, np.uint8)
    padded = grid.to_grid(image, nearest=True)
    assert (padded[:24] == 9).all()
    assert (padded[24:] == 0).all()
    assert grid.crop(np.zeros((3, 16, 24))).shape == (3, 6, 24)


def _samples() -> dict[str, Sample]:
    camera = CameraModel(48, 32, 40, 40, 23.5, 15.5)
    ahead = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
    rng = np.random.default_rng(0)
    cloud = rng.uniform((2, -1, -1, 0), (20, 1, 1, 1), (500, 4)).astype(np.float32)
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (32, 48, 3), dtype=np.uint8), camera=camera),
        "depth": Sample("depth", rng.uniform(1, 5, (32, 48)).astype(np.float32)),
        "thermal": Sample(
            "thermal", rng.uniform(280, 300, (32, 48)).astype(np.float32), unit="kelvin"
        ),
        "lidar": Sample("lidar", cloud, camera=camera, extrinsics=ahead),
    }


@pytest.mark.parametrize("kind", list(CHANNELS))
def test_inputs_have_the_stated_shape_and_are_finite(kind: str) -> None:
    got = made(_samples()[kind])
    assert got.shape == CONTRACT.input_shape(kind)  # type: ignore[arg-type]
    assert got.dtype == np.float32
    assert np.isfinite(got).all()


def test_a_buffer_is_filled_completely() -> None:
    for kind, sample in _samples().items():
        buffer = np.full(CONTRACT.input_shape(kind), np.nan, np.float32)  # type: ignore[arg-type]
        got = made(sample, out=buffer)
        assert got is buffer
        assert np.array_equal(buffer, made(sample))


def test_foreign_kinds_and_calibrations_are_refused() -> None:
    only_rgb = PreprocessContract(modalities=("rgb",))
    samples = _samples()
    with pytest.raises(InputError, match="depth: is depth, this input takes rgb"):
        preprocess_sample(samples["depth"], only_rgb["rgb"])
    wrong = Sample("rgb", np.zeros((10, 10, 3), np.uint8), camera=samples["rgb"].camera)
    with pytest.raises(CalibrationError, match="calibrated for 48x32"):
        made(wrong, only_rgb)


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": ()},
        {"modalities": ("depth", "rgb")},
        {"modalities": ("rgb", "rgb")},
        {"modalities": ("rgb",), "grid": {"height": 50}},
        {"modalities": ("rgb",), "depth": {"min_m": 5, "max_m": 1}},
        {"modalities": ("rgb",), "colour": 1},
    ],
)
def test_impossible_contracts_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        PreprocessContract.model_validate(fields)


def _refused(data: object, kind: str = "thermal", unit: str = "") -> str:
    sample = Sample(kind, data, unit=unit)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        made(sample)
    line = str(caught.value)
    assert line.startswith(f"{kind}: ")
    assert "\n" not in line
    return line


FLAT = np.full((32, 48), 290, np.float32)
COLOR = np.zeros((32, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("thermal", FLAT[None], r"shape \(1, 32, 48\), expected \(H, W\) .*data\[0\]"),
        ("thermal", FLAT[..., None], r"shape \(32, 48, 1\), expected \(H, W\) .*data\[..., 0\]"),
        ("thermal", FLAT[:0], r"shape \(0, 48\).*empty"),
        ("thermal", FLAT[0], r"shape \(48,\), expected \(H, W\)$"),
        ("thermal", COLOR, r"shape \(32, 48, 3\), expected \(H, W\) .*colour picture"),
        ("thermal", FLAT.astype(np.uint16), "dtype uint16, expected float32 .*perception.adapters"),
        ("depth", FLAT[..., None], r"shape \(32, 48, 1\), expected \(H, W\) .*data\[..., 0\]"),
        ("depth", FLAT[None], r"shape \(1, 32, 48\), expected \(H, W\) .*data\[0\]"),
        ("depth", FLAT.astype(np.uint16), "dtype uint16, expected float32 .*metres"),
        ("depth", FLAT.astype(">f4"), "dtype >f4, expected float32 .*byte order"),
        ("depth", FLAT, "no pixel between 0.4 and 20 m .*not in metres"),
        ("depth", FLAT.tolist(), "data is a list, expected a numpy array"),
        ("rgb", COLOR[..., 0], r"shape \(32, 48\), expected \(H, W, 3\) .*gray"),
        ("rgb", COLOR[..., :1], r"shape \(32, 48, 1\), expected \(H, W, 3\) .*gray"),
        ("rgb", COLOR[None], r"shape \(1, 32, 48, 3\), expected \(H, W, 3\) .*data\[0\]"),
        ("rgb", COLOR.transpose(2, 0, 1), r"shape \(3, 32, 48\), .*data.transpose\(1, 2, 0\)"),
        ("rgb", np.zeros((32, 48, 4), np.uint8), r"shape \(32, 48, 4\), .*data\[..., :3\]"),
        ("rgb", COLOR.astype(np.float32), "dtype float32, expected uint8"),
        ("lidar", np.zeros((4, 90), np.float32), r"cloud is float32 \(4, 90\), .*data.T"),
        (
            "lidar",
            np.zeros((3, 2), np.float32),
            r"cloud is float32 \(3, 2\), expected float \(N, 3",
        ),
        ("lidar", np.zeros(9, [("x", "f4")]), "structured array"),
        ("lidar", np.zeros((9, 3), np.int32), r"cloud is int32 \(9, 3\)"),
        ("lidar", np.zeros((0, 4), np.float32), "empty cloud"),
    ],
)
def test_wrong_shapes_and_dtypes_are_named_with_their_cure(
    kind: str, data: object, said: str
) -> None:
    assert re.search(said, _refused(data, kind, "kelvin" if kind == "thermal" else ""))


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("", 290.0, "unknown unit ''.*counts8, counts16 or kelvin"),
        ("0.04 K", 290.0, "unknown unit '0.04 K'"),
        ("kelvin", 0.04, "median temperature of 0.04 K is impossible"),
        ("kelvin", 21.0, "21 K is impossible.*Celsius"),
        ("kelvin", 29315.0, r"2.93e\+04 K is impossible.*centikelvin"),
        ("kelvin", 6e6, "impossible.*raw counts"),
        ("kelvin", -200.0, "-200 K is impossible"),
        ("counts8", 290.0, "values from 290 to 290 are no counts8, which go from 0 to 255"),
        ("counts8", -2.0, "no counts8"),
        ("counts8", -0.6, "no counts8"),
        ("counts8", 256.0, "no counts8"),
        ("counts16", 65536.0, "no counts16"),
        ("kelvin", float(np.nextafter(np.float32(100), np.float32(0))), "100 K is impossible"),
        (
            "kelvin",
            float(np.nextafter(np.float32(5000), np.float32(9000))),
            "5e.03 K is impossible",
        ),
        ("kelvin", -60.0, "Celsius"),
        ("kelvin", -61.0, "raw counts"),
        ("kelvin", 10000.0, "centikelvin"),
        ("kelvin", 500000.0, "centikelvin"),
        ("kelvin", 500100.0, "raw counts"),
        ("kelvin", 9000.0, "raw counts"),
        ("counts16", 70000.0, "no counts16, which go from 0 to 65535"),
        ("counts16", np.nan, "no finite value"),
    ],
)
def test_impossible_thermal_units_are_named_with_the_value(
    unit: str, values: float, said: str
) -> None:
    assert re.search(said, _refused(np.full((32, 48), values, np.float32), "thermal", unit))


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("kelvin", 100.0),
        ("kelvin", 5000.0),
        ("counts8", 0.0),
        ("counts8", -0.4),  # interpolation and calibration overshoot a little
        ("counts8", 255.4),
        ("counts8", 255.0),
        ("counts16", 0.0),
        ("counts16", 65535.0),
    ],
)
def test_the_ends_of_a_thermal_unit_are_taken(unit: str, values: float) -> None:
    image = np.full((32, 48), np.nan, np.float32)
    image[8, 8] = values
    image[1, 1] = np.inf
    got = made(Sample("thermal", image, unit=unit))
    assert np.isfinite(got).all()


def test_a_few_dead_pixels_do_not_make_a_unit_impossible() -> None:
    image = np.full((32, 48), 290, np.float32)
    image[:16] = 0.0
    image[16, 0] = 290
    assert made(Sample("thermal", image, unit="kelvin")).shape[1] == 2


@pytest.mark.parametrize("fields", [3, 4, 8])
def test_a_cloud_in_columns_is_told_from_a_small_one(fields: int) -> None:
    """Some points of many fields are a cloud; few rows of many columns are one that lies on its side."""
    assert "data.T" in _refused(np.ones((fields, 33), np.float32), "lidar")
    for shape in ((fields, 32), (9, 33), (2, 33), (40, fields)):
        # These are taken as clouds; what they lack is a calibration.
        with pytest.raises(CalibrationError, match="needs intrinsics"):
            made(Sample("lidar", np.ones(shape, np.float32)))
    for missing in ("camera", "extrinsics"):
        sample = replace(_samples()["lidar"], **{missing: None})
        with pytest.raises(CalibrationError, match="needs intrinsics"):
            made(sample)


@pytest.mark.parametrize("kind", ["rgb", "depth", "thermal"])
@pytest.mark.parametrize(("height", "width"), [(32, 49), (33, 48), (48, 32)])
def test_a_picture_must_have_the_size_of_its_calibration(
    kind: str, height: int, width: int
) -> None:
    sample = _samples()[kind]
    made(replace(sample, camera=CameraModel(48, 32, 40, 40, 24, 16)))
    other = CameraModel(width, height, 40, 40, 24, 16)
    with pytest.raises(CalibrationError, match=f"{width}x{height} pixels, image has 48x32"):
        made(replace(sample, camera=other))


def test_results_are_given_in_the_size_of_the_picture_or_of_the_camera() -> None:
    samples = _samples()
    for kind, sample in samples.items():
        assert source_size(sample) == (32, 48), kind
    with pytest.raises(CalibrationError, match="no camera to project into"):
        source_size(replace(samples["lidar"], camera=None))


def test_a_cloud_beside_the_picture_is_refused_and_one_return_in_it_is_not() -> None:
    sample = _samples()["lidar"]
    behind = sample.data * np.array([-1, 1, 1, 1], np.float32)
    with pytest.raises(InputError, match="no point falls into the camera image"):
        made(replace(sample, data=behind))
    behind[0] = 5, 0, 0, 1
    assert made(replace(sample, data=behind))[0, 3].any()
    one = np.full((32, 48), np.nan, np.float32)
    one[0, 0] = 3
    near = PreprocessContract(modalities=("depth",), grid=GridSpec(height=32, width=64))
    assert made(Sample("depth", one), near)[0, 1].any()

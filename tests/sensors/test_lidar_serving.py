"""From a cloud to the network's input, as serving goes and as training does: the slow definition's bits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.frame import Sample, is_return
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec
from perception.preprocess.sample import empty_tensors, on_grid, preprocess_sample
from perception.sensors.lidar import LidarSpec
from perception.sensors.lidar.preprocess import LAYERS, check, normalize
from tests.slow_lidar import in_unit_range_slowly, normalize_slowly, project_slowly

AHEAD = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.array([0.0, 0.3, 0.1]))
CAMERA = CameraModel(90, 50, 45, 47, 44.1, 25.3)
INTENSITIES: dict[str, Any] = {
    "shares": lambda rng, n: rng.random(n),
    "none": None,
    "rounded shares": lambda rng, n: rng.uniform(-0.1, 1.4, n),
    "8 bit counts": lambda rng, n: rng.integers(0, 256, n),
    "16 bit counts": lambda rng, n: rng.integers(0, 65536, n),
    "few counts": lambda rng, n: np.where(np.arange(n) == n - 1, 200, rng.random(n)),
    "NaN and shares": lambda rng, n: rng.choice([np.nan, 0.2, 1.0], n),
    "NaN and counts": lambda rng, n: rng.choice([np.nan, 7, 200], n),
    "infinite": lambda rng, n: rng.choice([np.inf, 0.2, -np.inf], n),
    "infinite and counts": lambda rng, n: rng.choice([np.inf, 0.2, 99], n),
}


def _input(spec: LidarSpec, fit: str = "stretch") -> InputSpec:
    view = ViewSpec(height=32, width=64, fit=fit, type="projection")
    return InputSpec(kind="lidar", view=view, preprocess=spec)


def _cloud(rng: np.random.Generator, count: int, intensity: str, dtype: str) -> np.ndarray:
    cloud = rng.uniform((-3, -8, -3, 0), (40, 8, 3, 1), (count, 4))
    cloud[:, :3] = np.where(rng.random((count, 1)) < 0.4, np.round(cloud[:, :3]), cloud[:, :3])
    cloud[rng.random(count) < 0.05, :3] = rng.choice([0, np.nan, np.inf])
    draw = INTENSITIES[intensity]
    if draw is None:
        return cloud[:, :3].astype(dtype)
    cloud[:, 3] = draw(rng, count)
    return cloud.astype(dtype)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([40, 300, 3000]),
    st.sampled_from(sorted(INTENSITIES)),
    st.sampled_from(["<f4", "<f8", ">f4"]),
    st.builds(
        LidarSpec, max_range_m=st.sampled_from([5.0, 20.0, 80.0]), dilate_px=st.integers(0, 3)
    ),
    st.sampled_from(["stretch", "letterbox"]),
)
def test_serving_and_training_give_what_is_defined(
    seed: int, count: int, intensity: str, dtype: str, spec: LidarSpec, fit: str
) -> None:
    points = _cloud(np.random.default_rng(seed), count, intensity, dtype)
    input = _input(spec, fit)
    sample = Sample("lidar", points, camera=CAMERA, extrinsics=AHEAD)
    camera = CAMERA.scaled(*GridMap.fit((50, 90), input.view).scale)
    mount = spec.sensor_height_m
    layers = project_slowly(in_unit_range_slowly(points), camera, AHEAD, 32, 64, mount)
    want = normalize_slowly(layers, spec)
    if not want[3].any():
        return
    served = preprocess_sample(sample, input)["image"][0]
    assert served.tobytes() == want.tobytes()
    grid = on_grid(sample, input)
    for name in LAYERS:
        assert grid.layers[name].tobytes() == layers[name].tobytes(), name
    assert np.array_equal(grid.own.index, layers["index"])
    trained = empty_tensors(input, None)
    normalize(grid, input, trained)
    assert trained["image"].tobytes() == want.tobytes()


def test_a_layer_that_was_changed_counts() -> None:
    input = _input(LidarSpec(dilate_px=0))
    points = np.array([[4.0, 0, 0, 0.5], [6.0, 1, 0, 0.25]], np.float32)
    grid = on_grid(Sample("lidar", points, camera=CAMERA, extrinsics=AHEAD), input)
    grid.layers["intensity"][grid.layers["valid"]] = 0.75
    out = empty_tensors(input, None)
    normalize(grid, input, out)
    assert out["image"][1].max() == 0.75 and out["image"][1].sum() == 1.5


def test_layers_are_a_mapping_of_their_names() -> None:
    points = np.array([[4.0, 0, 0, 0.5]], np.float32)
    sample = Sample("lidar", points, camera=CAMERA, extrinsics=AHEAD)
    layers = on_grid(sample, _input(LidarSpec())).layers
    assert tuple(layers) == LAYERS and len(layers) == 4 and "image" not in layers
    with pytest.raises(KeyError):
        layers["image"]
    assert {name: layer.shape for name, layer in layers.items()} == dict.fromkeys(LAYERS, (32, 64))
    assert layers["valid"] is layers["valid"]


def test_a_buffer_that_is_not_contiguous_is_filled() -> None:
    input = _input(LidarSpec(dilate_px=2))
    rng = np.random.default_rng(3)
    sample = Sample("lidar", _cloud(rng, 500, "shares", "<f4"), camera=CAMERA, extrinsics=AHEAD)
    want = preprocess_sample(sample, input)["image"]
    apart = np.full((1, 32, 64, 4), np.nan, np.float32).transpose(0, 3, 1, 2)
    preprocess_sample(sample, input, {"image": apart})
    assert np.array_equal(apart, want)


@given(
    st.lists(st.sampled_from([0.0, 1.0, np.nan]), max_size=3000),
    st.sampled_from([0, 1, 50, 1024, 1025]),
)
def test_a_cloud_of_too_few_returns_is_dark(ranges: list[float], least: int) -> None:
    points = np.zeros((len(ranges), 3), np.float32)
    points[:, 0] = ranges
    enough = np.count_nonzero(is_return(points)) >= least
    found = check(Sample("lidar", points), SimpleNamespace(min_points=least))
    assert found == ("ok" if enough else "dark")

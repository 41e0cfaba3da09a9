"""LiDAR projection is that of the slow definition to the last bit, however points come."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry import scratch
from perception.geometry.camera import CameraModel
from perception.geometry.projection import project_lidar
from perception.geometry.transforms import RigidTransform
from tests.slow_lidar import project_slowly

CAMERAS = (
    CameraModel(16, 12, 10, 10, 7.5, 5.5),
    CameraModel(40, 30, 18.3, 17.1, 20.2, 14.4, "plumb_bob", (-0.31, 0.12, 0.001, -0.002, 0)),
    CameraModel(33, 21, 20, 21, 16, 10, "rational_polynomial", (0.3, 0.1, 0, 0, 0.01, 0.5, 0.2, 0)),
    CameraModel(24, 24, 9, 9, 11.5, 11.5, "equidistant", (0.02, -0.01, 0.003, 0)),
)
AXES = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
ODD = (0.0, np.nan, np.inf, -np.inf, 1e-30, 1e30, -1e38, 255.0, 1.6)
LAYERS = ("range_m", "intensity", "height_m", "index", "valid")
LAYOUTS = {
    "rows": lambda cloud: cloud,
    "columns": lambda cloud: np.asfortranarray(cloud),
    "every other": lambda cloud: np.repeat(cloud, 2, axis=0)[::2],
    "backwards": lambda cloud: np.ascontiguousarray(cloud[::-1])[::-1],
    "part of a message": lambda cloud: _within_a_message(cloud, 3),
    "unaligned": lambda cloud: _within_a_message(cloud, 1),
    "read only": lambda cloud: np.frombuffer(cloud.tobytes(), cloud.dtype).reshape(cloud.shape),
    "big-endian": lambda cloud: cloud.astype(cloud.dtype.newbyteorder(">")),
    "float64": lambda cloud: cloud.astype(np.float64),
    "float16": lambda cloud: cloud.astype(np.float16),
}
"""Ways in which one cloud may lie in memory."""


def _within_a_message(cloud: np.ndarray[Any, Any], before: int) -> np.ndarray[Any, Any]:
    """As fields of points with others before and behind, as in a `PointCloud2`."""
    step = cloud.shape[1] * cloud.itemsize + before + 5
    raw = np.zeros(len(cloud) * step + before + 16, np.uint8)
    found = np.ndarray(cloud.shape, cloud.dtype, raw, before, (step, cloud.itemsize))
    found[...] = cloud
    return found


def _cloud(rng: np.random.Generator, count: int, columns: int) -> np.ndarray[Any, Any]:
    cloud = rng.uniform(-6, 12, (count, columns)).astype(np.float32)
    cloud[:, 3:] = rng.random((count, columns - 3))
    few = np.round(cloud * 2) / 2  # many are equally far
    cloud = np.where(rng.random((count, 1)) < 0.3, few, cloud).astype(np.float32)
    odd = rng.random(cloud.shape) < rng.choice([0, 0.05])
    return np.where(odd, rng.choice(ODD, cloud.shape), cloud).astype(np.float32)


def _same(cloud: np.ndarray[Any, Any], camera: CameraModel, mount: RigidTransform) -> None:
    size = camera.height, camera.width
    got = project_lidar(cloud, camera, mount, *size, sensor_height_m=1.7)
    want = project_slowly(cloud, camera, mount, *size, sensor_height_m=1.7)
    for name in LAYERS:
        layer = getattr(got, name)
        assert layer.dtype == want[name].dtype and layer.tobytes() == want[name].tobytes(), name


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, 7, 30, 400, 1500]),
    st.integers(3, 6),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(CAMERAS),
    st.sampled_from([8, 64, 2**15]),
)
def test_the_image_is_that_of_the_definition(
    seed: int, count: int, columns: int, layout: str, camera: CameraModel, block: int
) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(0, 0.05, (3, 3)) + np.eye(3))
    turn *= np.sign(np.linalg.det(turn))
    mount = RigidTransform(AXES @ turn, rng.normal(0, 0.5, 3))
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(scratch, "BLOCK", block)
        _same(LAYOUTS[layout](_cloud(rng, count, columns)), camera, mount)


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 70_000])
def test_clouds_of_several_blocks_are_no_different(more: int) -> None:
    cloud = _cloud(np.random.default_rng(more + 1), scratch.BLOCK + more, 4)
    _same(cloud, CAMERAS[0], RigidTransform(AXES, np.zeros(3)))


def test_images_of_more_pixels_than_float32_has_numbers() -> None:
    camera = CameraModel(4096, 4098, 4000, 4000, 2000, 2000)
    rng = np.random.default_rng(0)
    cloud = rng.uniform((4, -2, -2, 0), (5, 2, 2, 1), (2000, 4)).astype(np.float32)
    _same(cloud, camera, RigidTransform(AXES, np.zeros(3)))


def test_threads_do_not_disturb_each_other() -> None:
    clouds = [_cloud(np.random.default_rng(i), 3000 + 40_000 * (i % 2), 4) for i in range(12)]
    mount = RigidTransform(AXES, np.zeros(3))
    want = [project_lidar(c, CAMERAS[i % 4], mount, 21, 16).index for i, c in enumerate(clouds)]

    def again(i: int) -> bool:
        found = project_lidar(clouds[i], CAMERAS[i % 4], mount, 21, 16).index
        return np.array_equal(found, want[i])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(again, list(range(12)) * 6))

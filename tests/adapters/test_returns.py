"""Beams without a return: dropped on every way in, never projected, and a cloud of them is dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters import PointField, decode_pointcloud2, points_from_array
from perception.errors import InputError
from perception.frame import LEAST_RANGE_M, Sample, is_return
from perception.geometry.camera import CameraModel
from perception.geometry.projection import project_lidar
from perception.geometry.transforms import RigidTransform
from perception.runtime.health import HealthConfig, HealthMonitor
from perception.sensors.lidar.decode import load_lidar
from perception.sensors.samples import to_sample
from perception.tasks.spatial import pixel_points

FIELDS = [PointField(n, 4 * i, 7) for i, n in enumerate(("x", "y", "z", "intensity"))]
BODY_TO_OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
CAMERA = CameraModel(64, 48, 50, 50, 31.5, 23.5)


def organized(height: int = 8, width: int = 32) -> np.ndarray:
    """(H * W, 4) as an Ouster sends it: every second beam misses."""
    cloud = np.zeros((height, width, 4), np.float32)
    azimuth, elevation = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.3, 0.3, height))
    cloud[..., 0] = 10 * np.cos(elevation) * np.cos(azimuth)
    cloud[..., 1] = 10 * np.cos(elevation) * np.sin(azimuth)
    cloud[..., 2] = 10 * np.sin(elevation)
    cloud[..., 3] = 0.5
    cloud[:, ::2] = 0
    return cloud.reshape(-1, 4)


def _pointcloud2(cloud: np.ndarray, folder: Path, least: float) -> np.ndarray:
    return decode_pointcloud2(
        FIELDS, cloud.tobytes(), width=len(cloud), height=1, point_step=16, least_range_m=least
    )


def _message(cloud: np.ndarray, folder: Path, least: float) -> np.ndarray:
    stamp = SimpleNamespace(sec=1, nanosec=0)
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id="lidar"),
        fields=FIELDS, data=cloud.tobytes(), width=len(cloud), height=1, point_step=16,
        row_step=0, is_bigendian=False,
    )  # fmt: skip
    return to_sample("lidar", message, least_range_m=least).data


def _array(cloud: np.ndarray, folder: Path, least: float) -> np.ndarray:
    return points_from_array(cloud, least_range_m=least)


def _file(suffix: str) -> Callable[[np.ndarray, Path, float], np.ndarray]:
    def read(cloud: np.ndarray, folder: Path, least: float) -> np.ndarray:
        path = folder / f"cloud{suffix}"
        if suffix == ".npy":
            np.save(path, cloud)
        elif suffix == ".npz":
            np.savez(path, points=cloud)
        elif suffix == ".bin":
            cloud.astype("<f4").tofile(path)
        elif suffix == ".pcd.bin":
            np.column_stack([cloud, np.zeros(len(cloud))]).astype("<f4").tofile(path)
        else:
            form = suffix.split(".")[1]
            header = (
                "FIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
                f"WIDTH {len(cloud)}\nHEIGHT 1\nPOINTS {len(cloud)}\nDATA {form}\n"
            ).encode()
            rows = "\n".join(" ".join(map(repr, row)) for row in cloud.tolist()).encode()
            path.write_bytes(header + (rows if form == "ascii" else cloud.tobytes()))
        return load_lidar(path, least_range_m=least).data

    return read


WAYS = {
    "PointCloud2": _pointcloud2,
    "message": _message,
    "array": _array,
    **{s: _file(s) for s in (".npy", ".npz", ".bin", ".pcd.bin", ".ascii.pcd", ".binary.pcd")},
}


@pytest.mark.parametrize("way", WAYS)
def test_beams_without_a_return_are_dropped(tmp_path: Path, way: str) -> None:
    cloud = organized()
    cloud[1, :3] = np.nan
    cloud[3, :3] = [0.002, -0.001, 0.003]  # zero range after the beam's own offset
    cloud[5, :3] = [0.2, 0.2, 0.1]
    kept = WAYS[way](cloud, tmp_path, LEAST_RANGE_M)
    real = cloud[is_return(cloud)]
    assert len(real) == len(cloud) // 2 - 2
    assert np.allclose(kept[:, :3], real[:, :3], atol=1e-6)
    assert len(WAYS[way](cloud, tmp_path, 0.5)) == len(real) - 1  # the sensor's own least range
    assert len(WAYS[way](np.zeros((60, 4), np.float32), tmp_path, LEAST_RANGE_M)) == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-1e5, 1e5, width=32)] * 3), min_size=1, max_size=20),
    st.floats(0, 100, width=32),
)
def test_a_return_is_what_lies_at_the_least_range_or_beyond(
    rows: list[tuple[float, ...]], least: float
) -> None:
    points = np.array(rows, np.float32)
    distance = np.linalg.norm(points.astype(np.float64), axis=1)
    got = is_return(points, least)
    clear = np.abs(distance - least) > 1e-5 * (least + distance)  # rounding decides the rest
    clear &= (distance == 0) | (distance > 1e-15)
    assert np.array_equal(got[clear], distance[clear] > least)
    assert not got[distance == 0].any()


def test_the_least_range_itself_is_a_return() -> None:
    points = np.array([[0.5, 0, 0], [0, -0.5, 0], [0, 0, 0.49999]])
    assert is_return(points, 0.5).tolist() == [True, True, False]
    assert is_return(np.array([[1e-6, 0, 0], [0, 0, 0]]), 0).tolist() == [True, False]
    assert is_return(np.array([[np.inf, 0, 0], [0, np.nan, 1], [0, 0, -np.inf]])).sum() == 0
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="least range"):
            is_return(points, wrong)


@pytest.mark.parametrize("offset", [[0, -0.1, 0.3], [0, 0, 1.0]])
def test_the_sensors_own_place_is_not_projected(offset: list[float]) -> None:
    """Of a LiDAR before the camera: samples that come from elsewhere may still hold zeros."""
    cloud, mount = organized(), RigidTransform(BODY_TO_OPTICAL, np.array(offset))
    real = cloud[is_return(cloud)]
    image, want = (project_lidar(c, CAMERA, mount, 48, 64) for c in (cloud, real))
    assert image.valid.any() and image.range_m[image.valid].min() > 9
    assert np.array_equal(image.range_m, want.range_m)
    assert np.array_equal(cloud[image.index[image.valid]], real[want.index[want.valid]])
    sample = Sample("lidar", cloud, camera=CAMERA, extrinsics=mount)
    lifted = pixel_points(sample, (48, 64))
    assert lifted is not None
    assert len(lifted.points) and np.linalg.norm(lifted.points, axis=1).min() > 9


def test_a_cloud_without_returns_is_dark() -> None:
    config = HealthConfig(min_points=50)
    real = np.tile(np.array([[5, 1, 0, 0.5]], np.float32), (50, 1))
    nothing = np.zeros((20_000, 4), np.float32)
    for cloud, want in (
        (nothing, "dark"),
        (np.full((20_000, 4), np.nan, np.float32), "dark"),
        (np.vstack([nothing, real]), "ok"),
        (np.vstack([nothing, real[1:]]), "dark"),
        (nothing[:0], "dark"),
    ):
        assert HealthMonitor(config).check(Sample("lidar", cloud)) == want

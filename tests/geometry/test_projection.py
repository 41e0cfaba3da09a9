"""LiDAR projection against a slow loop, and rig files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera_info import load_camera_info, save_camera_info
from perception.errors import CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.projection import LidarImage, project_lidar
from perception.geometry.rig import Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

BODY_TO_OPTICAL = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), [0.1, -0.2, 0.05])
CAMERA = CameraModel(16, 12, 10, 10, 7.5, 5.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_pixel_holds_its_nearest_return(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cloud = rng.uniform((-5, -8, -6, 0), (12, 8, 6, 1), (400, 4)).astype(np.float32)
    cloud[rng.integers(0, 400, 10), rng.integers(0, 3, 10)] = rng.choice(
        [np.nan, np.inf, -np.inf], 10
    )
    image = project_lidar(cloud, CAMERA, BODY_TO_OPTICAL, 12, 16, sensor_height_m=1.5)
    nearest: dict[tuple[int, int], tuple[float, int]] = {}
    for row, point in enumerate(cloud):
        if not np.isfinite(point[:3]).all():
            continue
        x, y, z = BODY_TO_OPTICAL.apply(point[None, :3])[0]
        if z <= 0.05:
            continue
        u, v = np.rint(np.float32(x / z * 10 + 7.5)), np.rint(np.float32(y / z * 10 + 5.5))
        if -0.5 < x / z * 10 + 7.5 < 15.5 and -0.5 < y / z * 10 + 5.5 < 11.5:
            distance = float(np.linalg.norm(point[:3]))
            if (v, u) not in nearest or distance < nearest[v, u][0]:
                nearest[v, u] = (distance, row)
    assert image.valid.sum() == len(nearest)
    for (v, u), (distance, row) in nearest.items():
        assert image.index[int(v), int(u)] == row
        assert image.range_m[int(v), int(u)] == pytest.approx(distance, rel=1e-5)
        assert image.height_m[int(v), int(u)] == pytest.approx(cloud[row, 2] + 1.5, abs=1e-5)


def test_point_zero_counts() -> None:
    image = project_lidar(np.array([[5.0, 0, 0]]), CAMERA, BODY_TO_OPTICAL, 12, 16)
    assert image.index.max() == 0
    assert image.valid.sum() == 1


def test_a_rig_file_comes_back_as_it_was(tmp_path: Path) -> None:
    rig = Rig(
        {
            "rgb": SensorCalibration(CAMERA, None, "camera"),
            "lidar": SensorCalibration(CAMERA, BODY_TO_OPTICAL, "lidar", -5_000_000),
        }
    )
    save_rig(rig, tmp_path / "rig.yaml")
    back = load_rig(tmp_path / "rig.yaml")
    assert back.sensors["rgb"].camera == CAMERA
    assert np.allclose(back.sensors["lidar"].extrinsics.matrix, BODY_TO_OPTICAL.matrix)
    sample = back.attach(Sample("lidar", np.zeros((1, 4), np.float32), 10_000_000))
    assert (sample.stamp_ns, sample.frame_id) == (5_000_000, "lidar")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "sensors: 3",
        "sensors: {radar: {}}",
        "schema: 9\nsensors: {}",
        "sensors: {rgb: {camera: {width: 4}}}",
        "sensors: {lidar: {to_reference: [[1, 2], [3, 4]]}}",
    ],
)
def test_wrong_rig_files_give_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "rig.yaml").write_text(text)
    with pytest.raises(CalibrationError) as caught:
        load_rig(tmp_path / "rig.yaml")
    assert "rig.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ros_camera_calibration_files_round_trip(tmp_path: Path) -> None:
    camera = CameraModel(640, 480, 500, 510, 320, 240, "plumb_bob", (0.1, 0, 0, 0, 0), "left")
    save_camera_info(camera, tmp_path / "left.yaml")
    assert load_camera_info(tmp_path / "left.yaml") == camera
    assert load_camera_info(tmp_path / "left.yaml", rectified=True).distortion == ()
    (tmp_path / "bad.yaml").write_text("image_width: 3")
    with pytest.raises(CalibrationError, match=r"bad\.yaml"):
        load_camera_info(tmp_path / "bad.yaml")


def test_a_printed_camera_info_message_is_read_with_its_binning(tmp_path: Path) -> None:
    text = """header:
  stamp: {sec: 5, nanosec: 0}
  frame_id: left_optical
height: 480
width: 640
distortion_model: plumb_bob
d: [0.1, 0.0, 0.0, 0.0, 0.0]
k: [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
p: [480.0, 0.0, 319.5, 0.0, 0.0, 480.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 2
binning_y: 2
roi: {x_offset: 160, y_offset: 120, height: 240, width: 320, do_rectify: false}
---
"""
    (tmp_path / "info.yaml").write_text(text)
    camera = load_camera_info(tmp_path / "info.yaml")
    assert (camera.width, camera.height, camera.fx, camera.cx) == (160, 120, 250, 79.5)
    assert camera.frame_id == "left_optical"
    assert load_camera_info(tmp_path / "info.yaml", rectified=True).fx == 240
    (tmp_path / "info.yaml").write_text(text.replace("width: 320", "width: 3200"))
    with pytest.raises(CalibrationError, match=r"info\.yaml: CameraInfo has a roi of 3200x240"):
        load_camera_info(tmp_path / "info.yaml")
    (tmp_path / "large.yaml").write_text(
        text.replace("height: 480\nwidth: 640", "height: 70000\nwidth: 70000")
    )
    with pytest.raises(CalibrationError, match="70000x70000"):
        load_camera_info(tmp_path / "large.yaml")


def _one(points: list[list[float]], **options: float) -> LidarImage:
    return project_lidar(np.array(points, np.float32), CAMERA, STRAIGHT, 12, 16, **options)


STRAIGHT = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), [0, 0, 0])


def test_columns_beyond_the_fourth_are_left_alone_and_intensity_is_bounded() -> None:
    """x, y, z alone; with intensity; with a ring beside it."""
    ahead = [4.0, 0.2, -0.3]
    for extra, want in (
        ([], 0.0),
        ([0.25], 0.25),
        ([0.25, 7], 0.25),
        ([1.75], 1.0),
        ([-1.0], 0.0),
        ([np.nan], 0.0),
    ):
        image = _one([ahead + extra])
        (row, column) = np.argwhere(image.valid)[0]
        assert image.intensity[row, column] == np.float32(want)
        assert image.intensity.sum() == np.float32(want)
        assert image.height_m[row, column] == np.float32(-0.3)  # unless a sensor height is said
        assert image.range_m[row, column] == pytest.approx(np.linalg.norm(ahead), rel=1e-6)
    assert _one([ahead], sensor_height_m=2.0).height_m.max() == pytest.approx(1.7)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (1, 5, 3), (0,)])
def test_what_is_no_cloud_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(N, 3 or more\)"):
        project_lidar(np.ones(shape, np.float32), CAMERA, STRAIGHT, 12, 16)


def test_pixels_without_a_return_are_empty() -> None:
    image = _one([[4.0, 0, 0, 0.5]])
    empty = ~image.valid
    assert empty.sum() == 12 * 16 - 1
    assert (image.index[empty] == -1).all() and image.index[image.valid].tolist() == [0]
    for layer in (image.range_m, image.intensity, image.height_m):
        assert layer.shape == (12, 16) and layer.dtype == np.float32
        assert (layer[empty] == 0).all()
    nothing = project_lidar(np.zeros((0, 4), np.float32), CAMERA, STRAIGHT, 12, 16)
    assert not nothing.valid.any() and (nothing.range_m == 0).all()


def test_of_equal_returns_the_first_row_stays() -> None:
    far, near = [8.0, 0, 0, 0.1], [4.0, 0, 0, 0.2]
    image = _one([far, near, [*near[:3], 0.9], far])
    assert image.index.max() == 1 and image.intensity.max() == np.float32(0.2)


def test_the_nearest_in_range_wins_not_the_nearest_in_depth() -> None:
    mount = RigidTransform(STRAIGHT.rotation, [0, 0, 3.0])  # the LiDAR stands 3 m before the camera
    cloud = np.array([[-2.5, 0, 0, 0.1], [1.0, 0, 0, 0.2]], np.float32)
    image = project_lidar(cloud, CAMERA, mount, 12, 16)
    assert image.range_m[image.valid].tolist() == [1.0]


@pytest.mark.parametrize(
    ("before", "seen"), [(0.04, False), (0.05, False), (0.06, True), (0.9, True)]
)
def test_points_at_the_lens_are_left_out(before: float, seen: bool) -> None:
    """Nearer than 5 cm before the camera nothing is projected; the LiDAR is half a metre aside."""
    mount = RigidTransform(STRAIGHT.rotation, [0, 0.5, 0])
    cloud = np.array([[before, 0, 0.5, 1]], np.float32)
    assert project_lidar(cloud, CAMERA, mount, 12, 16).valid.any() == seen


def test_a_pixel_reaches_half_a_pixel_around_its_center() -> None:
    """The whole image, and nothing beside it."""
    for u in (-0.51, -0.49, 0.49, 0.51, 7.2, 14.6, 15.49, 15.51):
        for v in (-0.51, -0.49, 3.4, 11.49, 11.51):
            x, y = (u - 7.5) / 10, (v - 5.5) / 10
            image = _one([[2.0, -2 * x, -2 * y, 1.0]])
            inside = -0.5 < u < 15.5 and -0.5 < v < 11.5
            assert image.valid.any() == inside, (u, v)
            if inside:
                assert np.argwhere(image.valid).tolist() == [[round(v), round(u)]]


def test_the_border_of_the_image_is_outside() -> None:
    """Focal lengths and points for which the border is hit exactly, in float32 too."""
    camera = CameraModel(16, 12, 8, 8, 7.5, 5.5)
    for x, y, inside in (
        (-1, 0, False),
        (1, 0, False),
        (0, -0.75, False),
        (0, 0.75, False),
        (-0.9375, -0.6875, True),
        (0.9375, 0.6875, True),
    ):
        cloud = np.array([[4, -4 * x, -4 * y, 1]], np.float32)
        assert project_lidar(cloud, camera, STRAIGHT, 12, 16).valid.any() == inside, (x, y)

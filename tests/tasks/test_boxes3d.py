"""Labeled points and 3D boxes against scenes whose geometry is known."""

from __future__ import annotations

import numpy as np
import pytest

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.tasks.boxes2d import Detections
from perception.tasks.boxes3d import lift_boxes
from perception.tasks.spatial import pixel_points

CAMERA = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5)
TO_OPTICAL = RigidTransform(
    np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.array([0.0, -0.5, 0.0])
)


def _boxes(*xyxy: tuple[float, float, float, float]) -> Detections:
    count = len(xyxy)
    return Detections(np.array(xyxy, np.float32), np.ones(count, np.float32), np.zeros(count, int))


def _wall_with_a_box() -> Sample:
    depth = np.full((96, 128), 10.0, np.float32)
    depth[30:60, 40:80] = 4.0
    depth[0, :] = np.nan
    return Sample("depth", depth, camera=CAMERA)


def test_depth_points_lie_where_their_pixels_look() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128), stride=2)
    assert found is not None
    assert len(found.points) == 47 * 64
    uv, valid = CAMERA.project(found.points)
    assert valid.all()
    assert np.allclose(uv, np.stack([found.column, found.row], axis=1), atol=1e-3)


def test_distorted_depth_points_too() -> None:
    bent = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5, "plumb_bob", (-0.2, 0.05, 0.0, 0.0, 0.0))
    found = pixel_points(
        Sample("depth", np.full((96, 128), 3.0, np.float32), camera=bent), (96, 128)
    )
    assert found is not None
    uv, _ = bent.project(found.points)
    assert np.abs(uv - np.stack([found.column, found.row], axis=1)).max() < 0.01


def test_lidar_points_keep_their_own_frame() -> None:
    points = np.array([[10, 0, 0, 1], [10, 3, 1, 1], [-10, 0, 0, 1], [10, 50, 0, 1]], np.float32)
    sample = Sample("lidar", points, camera=CAMERA, extrinsics=TO_OPTICAL)
    found = pixel_points(sample, (192, 256))  # a result of twice the camera's size
    assert found is not None
    assert np.array_equal(found.points, points[:2, :3])
    uv, _ = CAMERA.project(TO_OPTICAL.apply(points[:2, :3]))
    expected = np.floor((uv + 0.5) * 2)
    assert np.array_equal(np.stack([found.column, found.row], axis=1), expected)


def test_boxes_get_the_distance_of_what_fills_them() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128))
    assert found is not None
    lifted = lift_boxes(found, _boxes((40, 30, 80, 60), (200, 200, 220, 220)), CAMERA)
    assert lifted.index.tolist() == [0]
    assert lifted.center[0, 2] == pytest.approx(4.0)
    assert lifted.size[0, :2] == pytest.approx([40 / 100 * 4, 30 / 100 * 4])
    assert lifted.center[0, 0] == pytest.approx((60 - 63.5) / 100 * 4, abs=1e-5)


def test_a_wall_behind_the_object_is_not_the_object() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128))
    assert found is not None
    loose = lift_boxes(found, _boxes((36, 26, 84, 64)), CAMERA)
    assert loose.center[0, 2] == pytest.approx(4.0)


def test_without_calibration_there_are_no_points() -> None:
    assert pixel_points(Sample("depth", np.ones((4, 4), np.float32)), (4, 4)) is None
    lidar = Sample("lidar", np.ones((4, 4), np.float32), camera=CAMERA)
    assert pixel_points(lidar, (4, 4)) is None

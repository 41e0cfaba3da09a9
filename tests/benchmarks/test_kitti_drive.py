"""Boxes of a drive as KITTI's labels have them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmark_modules import load_benchmark

from perception.data.kitti import KITTI
from perception.data.tracklets import read_tracklets
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

OPTICAL = RigidTransform(np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]]), np.zeros(3))
CAMERA = CameraModel(1242, 375, 700.0, 700.0, 620.0, 187.0)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("kitti_drive")


@pytest.fixture
def eye(benchmark: ModuleType) -> Any:
    return benchmark.Eye(CAMERA, OPTICAL)


def test_a_box_ahead_has_kittis_fields(eye: Any) -> None:
    """20 m ahead and 3 m to the left, its middle 0.9 m below the LiDAR, heading away, then to the left."""
    row = eye.row((20.0, 3.0, -0.9), (4.0, 1.8, 1.5), 0.0)
    assert row is not None
    assert row["hwl"] == [1.5, 1.8, 4.0]
    np.testing.assert_allclose(row["xyz"], [-3.0, 0.9 + 0.75, 20.0], atol=1e-9)
    assert row["ry"] == pytest.approx(-np.pi / 2)
    assert row["alpha"] == pytest.approx(-np.pi / 2 - np.arctan2(-3.0, 20.0))
    # The near face, at 18 m, is 1.8 m wide about x = -3 and reaches from 0.15 to 1.65 m below.
    left, top, right, bottom = row["bbox"]
    assert left == pytest.approx(620 + 700 * -3.9 / 18)
    assert bottom == pytest.approx(187 + 700 * 1.65 / 18)
    assert top == pytest.approx(187 + 700 * 0.15 / 22)
    assert right == pytest.approx(620 + 700 * -2.1 / 22)
    assert row["truncated"] == pytest.approx(0)
    turned = eye.row((20.0, 3.0, -0.9), (4.0, 1.8, 1.5), np.pi / 2)
    assert turned is not None and abs(abs(turned["ry"]) - np.pi) < 1e-9


def test_what_is_cut_off_or_beside_the_picture(eye: Any) -> None:
    half = eye.row((20.0, 20 * 620 / 700, -0.9), (0.01, 1.8, 1.5), 0.0)
    assert half is not None and half["truncated"] == pytest.approx(0.5, abs=0.01)
    assert half["bbox"][0] == 0
    for center in ((20.0, 40.0, -0.9), (-20.0, 0.0, -0.9), (0.1, 0.0, -0.9)):
        assert eye.row(center, (4.0, 1.8, 1.5), 0.0) is None


@pytest.mark.realdata
def test_outlines_are_those_of_the_reader(
    benchmark: ModuleType, real_data: Path, tmp_path: Path
) -> None:
    drive = KITTI(real_data / "kitti_0005", "val")
    lidar = drive.rig.sensors["lidar"]
    assert lidar.camera is not None and lidar.extrinsics is not None
    eye, tracklets = (
        benchmark.Eye(lidar.camera, lidar.extrinsics),
        read_tracklets(drive.root / "tracklet_labels.xml"),
    )
    rows = [benchmark.true_rows(tracklets, int(name), eye) for name in drive.ids]
    for index, own in enumerate(rows):
        boxes = drive.truth(index).boxes
        assert boxes is not None
        known = [row["bbox"] for row in own if row["type"] in ("Car", "Pedestrian", "Cyclist")]
        np.testing.assert_allclose(known, boxes.xyxy[~boxes.ignore], atol=1.01)
        assert {row["truncated"] < 0.5 for row in own} == {True}
    best = benchmark.perfect(rows, tmp_path)
    assert best == pytest.approx({"easy": 5.0, "moderate": 35.0, "hard": 47.5})

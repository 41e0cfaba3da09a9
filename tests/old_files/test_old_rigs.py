"""Rig files of schema 1 mean what they meant, number for number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.live import LiveCalibration
from perception.geometry.rig import Rig, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

OLD = Path(__file__).parent / "schema1"
PINHOLE = CameraModel(96, 48, 80.0, 80.0, 47.5, 23.5)
COLOR = CameraModel(
    96, 48, 80.25, 79.5, 47.125, 23.625, "rational_polynomial",
    (0.1, -0.05, 0.001, 0.002, 0.01, 0.2, 0.03, -0.004), "color_lens",
)  # fmt: skip
INFRARED = CameraModel(
    64, 48, 30.0, 30.5, 31.5, 23.5, "equidistant", (0.01, 0.002, -0.001, 0.0), "ir_lens"
)
THERMAL_AT = [
    [0.9974036349111244, -0.0603155582184941, -0.03934491711603755, 0.06],
    [0.05951667665268623, 0.9980027960854804, -0.021170361493908527, -0.0125],
    [0.040543239464749345, 0.01877371679648492, 0.9990013980427401, 0.003],
]
LIDAR_AT = [
    [-0.00019996000799871183, 0.019996000799840152, 0.999800039992002, 0.05],
    [-0.999800039992002, -0.01999600079984032, 0.00019996000799843427, -0.1],
    [0.019996000799840152, -0.9996000799840035, 0.019996000799839875, 0.02],
]
BODY_AT = [[0.0, -1, 0, 0.05], [0, 0, -1, -0.1], [1, 0, 0, 0.02]]
CASES = {
    # file: {sensor: (camera, to the reference, frame, offset)}
    "recording/rig.yaml": {
        "rgb": (PINHOLE, None, "cam_optical", 0),
        "depth": (PINHOLE, None, "cam_optical", 0),
        "thermal": (PINHOLE, None, "thermal_optical", -2_000_000),
        "lidar": (PINHOLE, BODY_AT, "velodyne", 5_000_000),
    },
    "rig_apart.yaml": {
        "rgb": (COLOR, None, "color_optical", 0),
        "depth": (None, None, "", 1_234_567),
        "thermal": (INFRARED, THERMAL_AT, "ir_optical", -2_000_001),
        "lidar": (None, LIDAR_AT, "roof", 5_000_000),
    },
}
OTHER = CameraModel(8, 6, 9.0, 9.0, 4.0, 3.0)
THERE = RigidTransform(np.eye(3), np.array([1.0, 2, 3]))
SHAPES = {"rgb": (48, 96, 3), "depth": (48, 96), "thermal": (48, 64), "lidar": (5, 4)}


def bare(sensor: str) -> Sample:
    kind = np.uint8 if sensor == "rgb" else np.float32
    return Sample(sensor, np.ones(SHAPES[sensor], kind), 10**9)  # type: ignore[arg-type]


def at(transform: RigidTransform | None) -> list[list[float]] | None:
    return None if transform is None else transform.matrix[:3].tolist()


def assert_is(rig: Rig, name: str) -> None:
    assert list(rig.sensors) == list(CASES[name])
    for sensor, (camera, place, frame, offset) in CASES[name].items():
        own = rig.sensors[sensor]  # type: ignore[index]
        found = own.camera, at(own.extrinsics), own.frame_id, own.time_offset_ns
        assert found == (camera, place, frame, offset), sensor
        for sample in (bare(sensor), replace(bare(sensor), camera=OTHER, extrinsics=THERE)):
            got = rig.attach(sample)
            assert got.camera == (camera or sample.camera), sensor
            assert at(got.extrinsics) == (place or at(sample.extrinsics)), sensor
            assert (got.frame_id, got.stamp_ns) == (frame, 10**9 + offset), sensor
            assert got.data is sample.data
        assert rig.attach(replace(bare(sensor), frame_id="said")).frame_id == "said"
        assert rig.attach(replace(bare(sensor), stamp_ns=None)).stamp_ns is None


@pytest.mark.parametrize("name", CASES)
def test_a_rig_of_schema_1_means_what_it_meant(name: str) -> None:
    assert_is(load_rig(OLD / name), name)


@pytest.mark.parametrize("name", CASES)
def test_written_anew_it_means_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    save_rig(load_rig(OLD / name), path)
    assert_is(load_rig(path), name)


@pytest.mark.parametrize("name", CASES)
def test_running_sensors_get_what_they_got(name: str, tmp_path: Path) -> None:
    save_rig(load_rig(OLD / name), tmp_path / "rig.yaml")
    for path in (OLD / name, tmp_path / "rig.yaml"):
        calibration = LiveCalibration()
        calibration.load(str(path))
        known = {sensor: entry[0] for sensor, entry in CASES[name].items()}
        for sensor in ("rgb", "depth", "thermal"):
            got = calibration.attach(bare(sensor))
            assert got.camera == known[sensor]
            assert at(got.extrinsics) == CASES[name][sensor][1]  # by which it is registered
        got = calibration.attach(bare("lidar"))
        assert got.camera == (known["lidar"] or known["rgb"])
        assert at(got.extrinsics) == CASES[name]["lidar"][1]
        assert calibration.unaligned == {}  # where thermal sits in rig_apart.yaml is known
        cameras = [f"{s} rig file" for s in ("rgb", "depth", "thermal") if known[s] is not None]
        assert calibration.sources() == [*cameras, "lidar rig file"]
        assert not calibration.needs_tree(("rgb", "lidar")) and calibration.follows_changes()
        assert calibration.offset_ns("thermal") == CASES[name]["thermal"][3]


def test_the_files_are_of_schema_1() -> None:
    for name in CASES:
        assert yaml.safe_load((OLD / name).read_text())["schema"] == 1

"""Calibration files that are wrong or hostile: one line that names the file, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.camera_info import load_camera_info
from calibration.kitti import rig_from_kitti
from perception.errors import CalibrationError
from perception.geometry.rig import load_rig

RIG = """schema: 1
sensors:
  rgb:
    frame_id: camera
    camera: {width: 64, height: 48, intrinsics: [50, 50, 32, 24]}
  lidar:
    to_reference: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    time_offset_ns: 5
"""
RIG_2 = """schema: 2
base: base_link
reference: front
date: 2026-11-26
source: board, 16 poses
sensors:
  front:
    kind: rgb
    frame_id: front_optical
    camera: {width: 64, height: 48, intrinsics: [50, 50, 32, 24]}
    camera_sigma: [0.1, 0.1, 0.2, 0.2]
    pose: {matrix: [[0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]}
  depth: {aligned_with: front, clock: {offset_ns: 5, sigma_ns: 1, drift_ppm: 0, epoch: unix}}
  roof:
    kind: lidar
    pose:
      matrix: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
      covariance: [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0],
                   [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0.5], [0, 0, 0, 0, 0.5, 1]]
"""
INFO = """image_width: 64
image_height: 48
camera_name: left
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 32, 0, 50, 24, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
"""
CAMERAS = (
    "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 1242 375\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
    "P_rect_02: 720 0 620 36 0 720 187 0 0 0 1 0.01\n"
)
VELODYNE = (
    "calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0.1 0.2 0.3\ndelta_f: 0 0\n"
)


def _load_rig(path: Path, text: str) -> Any:
    path.joinpath("rig.yaml").write_text(text)
    return load_rig(path / "rig.yaml")


def _load_info(path: Path, text: str) -> Any:
    path.joinpath("info.yaml").write_text(text)
    return load_camera_info(path / "info.yaml")


def _load_kitti(path: Path, cameras: str = CAMERAS, velodyne: str = VELODYNE) -> Any:
    path.joinpath("calib_cam_to_cam.txt").write_text(cameras)
    path.joinpath("calib_velo_to_cam.txt").write_text(velodyne)
    return rig_from_kitti(path)


def test_the_files_themselves_are_right(tmp_path: Path) -> None:
    rig = _load_rig(tmp_path, RIG)
    assert rig.sensors["rgb"].camera.width == 64
    assert rig.sensors["lidar"].time_offset_ns == 5
    rig = _load_rig(tmp_path, RIG_2)
    assert rig.kinds == {"front": "rgb", "depth": "depth", "roof": "lidar"}
    assert (rig.date, rig.source) == ("2026-11-26", "board, 16 poses")
    assert rig.sensors["depth"].time_offset_ns == 5
    assert _load_info(tmp_path, INFO).frame_id == "left"
    sensor = _load_kitti(tmp_path).sensors["lidar"]
    assert (sensor.camera.width, sensor.camera.height, sensor.camera.fx) == (1242, 375, 720)
    # x ahead in the LiDAR is z ahead in the camera; P_rect_02 shifts by t with P = K [I | t]
    shift = np.linalg.solve(sensor.camera.matrix, [36, 0, 0.01])
    assert np.allclose(sensor.extrinsics.apply(np.array([[10.0, 0, 0]])), [0.1, 0.2, 10.3] + shift)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width: 64", "width: 7000000", "7000000x48"),
        ("width: 64, height: 48", "width: 70000, height: 70000", "70000x70000"),
        ("width: 64", "width: 0", "0x48"),
        ("width: 64", "width: -4", "-4x48"),
        ("width: 64", "width: 64.5", "64.5 is no whole number"),
        ("width: 64", "width: wide", "garbles"),
        ("width: 64", "width: .nan", "garbles"),
        ("width: 64", "width: 1e400", "garbles"),
        ("width: 64, ", "", "width"),
        ("[50, 50, 32, 24]", "[0, 50, 32, 24]", "focal"),
        ("[50, 50, 32, 24]", "[50, .nan, 32, 24]", "focal"),
        ("[50, 50, 32, 24]", "[50, 50, .inf, 24]", "finite"),
        ("[50, 50, 32, 24]", "[50, 50, 32]", "garbles"),
        ("[50, 50, 32, 24]", "[a, b, c, d]", "garbles"),
        ("[50, 50, 32, 24]", "7", "garbles"),
        ("[50, 50, 32, 24]", "{a: 1}", "garbles"),
        ("{width", "{width: 3, width", "given twice"),
        ("{width", "{widht: 3, width", "widht"),
        ("frame_id: camera", "frame_id: camera\n    frame_id: other", "given twice"),
        ("frame_id: camera", "frame_id: [1]", "frame_id"),
        ("  lidar", "  rgb", "'rgb' is given twice"),
        ("  lidar", "  sonar", "sonar"),
        ("[[1, 0, 0, 0]", "[[1, 0, 0, .nan]", "finite"),
        ("[[1, 0, 0, 0]", "[[2, 0, 0, 0]", "rotation"),
        ("[[1, 0, 0, 0]", "[[1, 0, 0, x]", "numeric"),
        ("[[1, 0, 0, 0], ", "[[0, 0, 0, 0], [1, 0, 0, 0], ", "shape"),
        ("time_offset_ns: 5", "time_offset_ns: 0.5", "time_offset_ns"),
        ("time_offset_ns: 5", "time_offset_ns: soon", "time_offset_ns"),
        ("time_offset_ns: 5", "time_offset_ns: true", "time_offset_ns"),
        ("time_offset_ns: 5", "time_offset_ns: 9300000000000000000", "time_offset_ns"),
        ("time_offset_ns: 5", "offset: 5", "offset"),
        ("schema: 1", "schema: 3", "schema is 3, this version reads 1 and 2"),
        ("schema: 1", "schema: 2", "unknown field 't"),
        ("sensors:", "others:", "sensors"),
        ("schema: 1", "schema: [", "not YAML"),
        ("schema: 1", "schema: \x01", "not YAML"),
    ],
)
def test_wrong_rigs(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in RIG
    with pytest.raises(CalibrationError, match=message) as caught:
        _load_rig(tmp_path, RIG.replace(old, new, 1))
    assert "rig.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base: base_link", "bass: base_link", "unknown field 'bass'"),
        ("base: base_link", "base: [1]", "base: expected a name"),
        ("base: base_link", "", "front: the reference has a pose where a base"),
        ("reference: front", "reference: rear", "reference: 'rear' is not known"),
        ("reference: front", "reference: roof", "reference: 'roof' is not known"),
        ("reference: front", "", "reference: is missing"),
        ("source: board, 16", "source: [16]  #", "source: expected"),
        ("  front:", "  Front:", "'Front' is no name of a sensor"),
        ("  front:", "  health:", "no sensor can be called 'health'"),
        ("  roof:", "  front:", "'front' is given twice"),
        ("  roof:", "  1:", "'1' is no name"),
        ("kind: rgb", "kind: radar", "front: cannot be of kind 'radar'"),
        ("kind: rgb", "kind: lidar", "reference: 'front' is not known"),
        ("kind: rgb", "kind: [rgb]", "front: kind: expected"),
        ("kind: rgb", "frame: rgb", "unknown field 'frame'"),
        ("    kind: lidar", "", "roof: has no kind"),
        ("kind: lidar", "kind: rgb\n    aligned_with: front", "roof: cannot be aligned with front"),
        (
            "kind: lidar",
            "kind: lidar\n    aligned_with: front",
            "roof: cannot be aligned with front",
        ),
        ("{aligned_with: front", "{kind: thermal", "depth: cannot be of kind 'thermal'"),
        ("aligned_with: front", "aligned_with: roof", "depth: aligned_with: 'roof' is not known"),
        ("aligned_with: front", "aligned_with: ghost", "depth: aligned_with: 'ghost' is not known"),
        ("aligned_with: front", "aligned_with: depth", "depth: cannot be aligned with depth"),
        ("[0.1, 0.1, 0.2, 0.2]", "[0.1, 0.1, 0.2]", "front: camera_sigma"),
        (
            "[0.1, 0.1, 0.2, 0.2]",
            "[0.1, -0.1, 0.2, 0.2]",
            "front: a standard deviation is negative",
        ),
        ("[0.1, 0.1, 0.2, 0.2]", "[0.1, .nan, 0.2, 0.2]", "front: a standard deviation"),
        ("[0.1, 0.1, 0.2, 0.2]", "[0.1, x, 0.2, 0.2]", "camera_sigma is not numeric"),
        ("[0.1, 0.1, 0.2, 0.2]", "soon", "camera_sigma is not numeric"),
        ("offset_ns: 5", "offset_ns: 5.5", "clock.offset_ns: expected a whole number"),
        ("offset_ns: 5", "offset_ns: 9300000000000000000", "clock.offset_ns"),
        ("offset_ns: 5", "offset: 5", "depth: clock: unknown field 'offset'"),
        ("sigma_ns: 1", "sigma_ns: -1", "depth: a standard deviation is negative"),
        ("sigma_ns: 1", "sigma_ns: [1, 2]", "clock.sigma_ns has shape"),
        ("sigma_ns: 1", "sigma_ns: .inf", "clock.sigma_ns holds values that are not finite"),
        ("drift_ppm: 0", "drift_ppm: 20.0", "clock.drift_ppm other than 0 is not supported yet"),
        ("drift_ppm: 0", "drift_ppm: .nan", "clock.drift_ppm other than 0"),
        ("epoch: unix", "epoch: boot", "clock.epoch other than unix is not supported yet"),
        ("clock: {", "clock: 5, date: {", "depth: date: expected"),
        (
            "clock: {offset_ns: 5, sigma_ns: 1, drift_ppm: 0, epoch: unix}",
            "clock: 5",
            "depth: clock: expected a table",
        ),
        ("{matrix: [[0, 0, 1, 1]", "{matrix: [[0, 0, 1, 1000]", "are these millimetres"),
        ("{matrix: [[0, 0, 1, 1]", "{matrix: [[0, 0, 1, .inf]", "not finite"),
        ("{matrix: [[0, 0, 1, 1]", "{matrix: [[0, 0, 2, 1]", "not a rotation"),
        ("matrix: [[1, 0, 0, 0]", "to_base: [[1, 0, 0, 0]", "pose: unknown field 'to_base'"),
        (
            "      matrix: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]",
            "",
            "roof: transform",
        ),
        ("covariance: [[1, 0, 0, 0, 0, 0], ", "covariance: [", "roof: covariance has shape"),
        ("covariance: [[1", "covariance: [[-1", "roof: covariance has a negative variance"),
        ("covariance: [[1", "covariance: [[.nan", "covariance holds values that are not finite"),
        ("covariance: [[1", "covariance: [[one", "covariance is not numeric"),
        ("0.5, 1]]", "0.4, 1]]", "roof: covariance is not symmetric"),
        ("0.5], [0, 0, 0, 0, 0.5, 1]", "1.5], [0, 0, 0, 0, 1.5, 1]", "negative variance in some"),
        ("schema: 2", "schema: 1", "unknown kind of sensor 'front'"),
        ("schema: 2", "schema: [2]", r"schema is \[2\]"),
    ],
)
def test_wrong_rigs_of_schema_2(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in RIG_2
    with pytest.raises(CalibrationError, match=message) as caught:
        _load_rig(tmp_path, RIG_2.replace(old, new, 1))
    assert "rig.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_width: 64", "image_width: 7000000", "7000000x48"),
        ("image_width: 64", "image_width: 64.5", "64.5"),
        ("image_width: 64", "image_width: 0", "0x48"),
        ("image_width: 64", "image_width: null", "garbles"),
        ("image_width: 64\n", "", "image_width"),
        ("camera_matrix", "matrix", "camera_matrix"),
        ("[50, 0, 32, 0, 50", "[0, 0, 32, 0, 0", "uncalibrated"),
        ("[50, 0, 32, 0, 50", "[.nan, 0, 32, 0, 50", "uncalibrated"),
        ("[50, 0, 32, 0, 50", "[50, 0, 32, 0", "8 entries"),
        ("[50, 0, 32, 0, 50", "[50, 3, 32, 0, 50", "skew"),
        ("[50, 0, 32, 0, 50", "[a, 0, 32, 0, 50", "garbles"),
        ("[0, 0, 0, 0, 0]", "[1, 0, 0, 0]\n  more: 1", "not YAML"),
        ("[0, 0, 0, 0, 0]", "[1, 0, 0]", "3 coefficients"),
        ("[0, 0, 0, 0, 0]", "[.nan, 0, 0, 0, 0]", "plausible"),
        ("[0, 0, 0, 0, 0]", "[1e30, 0, 0, 0, 0]", "plausible"),
        ("plumb_bob", "wobbly", "unknown distortion model"),
        ("camera_matrix: {", "camera_matrix: 7 #", "no camera calibration"),
    ],
)
def test_wrong_camera_info_files(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in INFO
    with pytest.raises(CalibrationError, match=message) as caught:
        _load_info(tmp_path, INFO.replace(old, new, 1))
    assert "info.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("S_rect_02: 1242 375", "S_rect_02: 70000 70000", "70000x70000"),
        ("S_rect_02: 1242 375", "S_rect_02: 1242.5 375", "1242.5"),
        ("S_rect_02: 1242 375", "S_rect_02: 1242", ":2: 'S_rect_02' has 1 numbers, expected 2"),
        ("S_rect_02: 1242 375", "S_rect_02: wide 375", ":2: 'S_rect_02' is not numeric"),
        ("S_rect_02: 1242 375", "S_rect_02: nan 375", ":2: 'S_rect_02' is not finite"),
        ("S_rect_02: 1242 375\n", "", "no entry 'S_rect_02'"),
        ("R_rect_00: 1", "R_rect_00: 2", "rotation"),
        ("P_rect_02: 720", "P_rect_02: inf", "not finite"),
        ("P_rect_02: 720", "P_rect_02: 0", "singular|focal"),
        ("0 0 1 0.01", "0 0 0 0.01", "singular"),
        ("R_rect_00", "S_rect_02: 1 1\nR_rect_00", ":3: 'S_rect_02' is given twice"),
    ],
)
def test_wrong_kitti_texts(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in CAMERAS
    with pytest.raises(CalibrationError, match=message) as caught:
        _load_kitti(tmp_path, CAMERAS.replace(old, new, 1))
    assert "calib_cam_to_cam.txt" in str(caught.value)
    with pytest.raises(CalibrationError, match=r"velo_to_cam\.txt:3: 'T' has 2 numbers"):
        _load_kitti(tmp_path, velodyne=VELODYNE.replace("T: 0.1", "T:"))


@pytest.mark.parametrize("text", [RIG, RIG_2, INFO, CAMERAS])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_spoiled_bytes_give_one_line_or_are_read(
    text: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spoiled")
    content = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    name = {RIG: "rig.yaml", RIG_2: "rig.yaml", INFO: "info.yaml", CAMERAS: "calib_cam_to_cam.txt"}[
        text
    ]
    (folder / name).write_bytes(content)
    (folder / "calib_velo_to_cam.txt").write_text(VELODYNE)
    try:
        if text == CAMERAS:
            rig_from_kitti(folder)
        elif text in (RIG, RIG_2):
            load_rig(folder / name)
        else:
            load_camera_info(folder / name)
    except CalibrationError as error:
        assert name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("depth", [50_000, 200])
def test_deep_or_doubling_yaml_is_refused(depth: int, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"rig\.yaml"):
        _load_rig(tmp_path, "[" * depth)
    bomb = "a0: &a0 [1, 1]\n" + "".join(
        f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)
    )
    with pytest.raises(CalibrationError, match="more than"):
        _load_rig(tmp_path, bomb)
    assert yaml.safe_load(RIG)["schema"] == 1

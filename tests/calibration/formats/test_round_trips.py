"""What a format holds of a rig comes back from it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from calibration_rigs import cameras, rigs, transforms
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from calibration.formats.nearest import nearest
from calibration.formats.registry import FORMATS, read_calibration, write_calibration
from calibration.formats.ros import published
from calibration.formats.rotations import angles_of, rotation_of
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

EVERY = ("none", "plumb_bob", "rational_polynomial", "equidistant", "omni")


def there_and_back(rig: Rig, name: str, suffix: str = "") -> tuple[Rig, list[str]]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"out{suffix}"
        files, lost = write_calibration(rig, path, name)
        assert files and all(file.is_file() for file in files)
        known, found = read_calibration(path)
    assert known.name == name
    return found.rig, lost


def same_places(rig: Rig, back: Rig, names: Iterable[str]) -> None:
    for one, other in combinations(names, 2):
        off = rig.between(one, other).matrix - back.between(one, other).matrix
        assert np.abs(off).max() < 1e-9, (one, other)


def same_cameras(rig: Rig, back: Rig) -> None:
    for name in rig.cameras:
        own, found = rig.sensors[name].camera, back.sensors[name].camera
        assert own is not None and found is not None
        assert (own.width, own.height) == (found.width, found.height)
        assert np.allclose(own.matrix, found.matrix, rtol=1e-12)
        if not any(own.distortion):
            assert not any(found.distortion)
            continue
        assert own.distortion_model == found.distortion_model
        padded = [*found.distortion, 0.0, 0.0][: len(own.distortion)]
        assert np.allclose(own.distortion, padded, rtol=1e-12, atol=0)


@given(rig=rigs(EVERY))
@settings(max_examples=30)
def test_rig(rig: Rig) -> None:
    back, lost = there_and_back(rig, "rig", ".yaml")
    assert back.to_dict() == rig.to_dict() and not lost


@given(rig=rigs(("none", "radtan", "equidistant", "omni"), lidars=False, bases=("", "imu0")))
@settings(max_examples=40)
def test_kalibr(rig: Rig) -> None:
    back, lost = there_and_back(rig, "kalibr", ".yaml")
    assert back.kinds == rig.kinds and bool(back.base) == bool(rig.base)
    same_places(rig, back, rig.sensors)
    same_cameras(rig, back)
    if rig.base:
        for name in rig.sensors:
            pose, found = rig.sensors[name].pose, back.sensors[name].pose
            assert pose and found
            assert np.abs(pose.transform.matrix - found.transform.matrix).max() < 1e-9
    framed = any(own.frame_id not in ("", name) for name, own in rig.sensors.items())
    assert [line.partition(" of ")[0] for line in lost] == ["the frame's name"] * framed


@given(rig=rigs(("none", "plumb_bob", "rational_polynomial", "equidistant")))
@settings(max_examples=40)
def test_ros(rig: Rig) -> None:
    back, lost = there_and_back(rig, "ros")
    assert back.kinds == rig.kinds and not lost
    same_places(rig, back, rig.sensors)
    same_cameras(rig, back)
    for name, own in rig.sensors.items():
        assert back.sensors[name].frame_id == (own.frame_id or name)


@given(rig=rigs(EVERY, lidars=False))
@settings(max_examples=30)
def test_opencv(rig: Rig) -> None:
    for suffix in ("", ".yml", ".xml") if len(rig.sensors) < 3 else ("",):
        back, _ = there_and_back(rig, "opencv", suffix)
        assert back.kinds == rig.kinds
        same_places(rig, back, rig.sensors)
        same_cameras(rig, back)


ALONE = Rig(
    {
        "front_cam": SensorCalibration(
            CameraModel(64, 64, 64.0, 64.6, 32.0, 32.0),
            frame_id="front_cam_optical_frame",
            kind="rgb",
        )
    }
)
"""One sensor, whose frame no transform leads to."""


@example(rig=ALONE)
@given(rig=rigs(("none",)))
@settings(max_examples=30)
def test_urdf(rig: Rig) -> None:
    back, lost = there_and_back(rig, "urdf", ".urdf")
    assert back.kinds == rig.kinds
    same_places(rig, back, rig.sensors)
    assert all(line.startswith("intrinsics") for line in lost)


@example(rig=ALONE)
@given(rig=rigs(("none",)))
@settings(max_examples=30)
def test_autoware(rig: Rig) -> None:
    back, _ = there_and_back(rig, "autoware", ".yaml")
    assert back.kinds == rig.kinds
    same_places(rig, back, rig.sensors)


@example(rig=ALONE)
@given(rig=rigs(("none",)))
@settings(max_examples=30)
def test_nuscenes(rig: Rig) -> None:
    back, lost = there_and_back(rig, "nuscenes")
    same_places(rig, back, rig.sensors)
    told = " ".join(lost)
    for name, kind in rig.kinds.items():
        assert back.kinds[name] == kind or f"{name} ({kind})" in told


@given(
    cameras=st.lists(cameras(("none",)), min_size=1, max_size=4),
    places=st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=9, max_size=9),
    lidar=transforms(),
    base=transforms(),
    raw=st.booleans(),
)
@settings(max_examples=30)
def test_kitti(
    cameras: list[CameraModel],
    places: list[float],
    lidar: RigidTransform,
    base: RigidTransform,
    raw: bool,
) -> None:
    names = ["rgb", "camera_0", "camera_1", "camera_3"]
    moves = [np.zeros(3), *np.reshape(places, (3, 3))]
    # Two cameras in one place are one camera to KITTI, whose files repeat it where there is no other.
    assume(min(float(np.abs(a - b).max()) for a, b in combinations(moves, 2)) > 1e-3)
    sensors = {
        name: SensorCalibration(
            camera, frame_id=name, kind="rgb", pose=Pose(base @ RigidTransform(np.eye(3), move))
        )
        for name, camera, move in zip(names, cameras, moves, strict=False)
    }
    if not raw:  # whose text tells the size of one camera
        first = cameras[0]
        sensors = {
            name: SensorCalibration(
                CameraModel(first.width, first.height, c.fx, c.fy, c.cx, c.cy),
                kind="rgb",
                pose=own.pose,
            )
            for (name, own), c in zip(sensors.items(), cameras, strict=False)
        }
    sensors["lidar"] = SensorCalibration(pose=Pose(lidar))
    rig = Rig(sensors, "base_link", "rgb")
    back, lost = there_and_back(rig, "kitti", "" if raw else ".txt")
    assert list(back.sensors) == list(sensors)
    same_places(rig, back, sensors)
    same_cameras(rig, back)
    assert lost == ["the pose in base_link of rgb: KITTI cannot hold it"]


@given(st.lists(st.floats(-7, 7), min_size=3, max_size=3), st.booleans())
def test_angles_are_those_of_the_rotation_also_where_two_axes_are_one(
    angles: list[float], locked: bool
) -> None:
    roll, pitch, yaw = angles
    turn = rotation_of(roll, np.pi / 2 if locked else pitch, yaw)
    assert np.abs(rotation_of(*angles_of(turn)) - turn).max() < 1e-12


def test_rotation_is_about_fixed_axes() -> None:
    """90 degrees about x, then 90 about the world's z: y goes to z and stays, z goes to -y, then to x."""
    turn = rotation_of(np.pi / 2, 0.0, np.pi / 2)
    assert np.allclose(turn @ [0, 1, 0], [0, 0, 1]) and np.allclose(turn @ [0, 0, 1], [1, 0, 0])


@pytest.mark.parametrize(
    ("model", "values", "most_px"),
    [
        ("rational_polynomial", (0.1, -0.05, 0.001, 0.0, 0.01, 0.2, 0.01, 0.0), 0.2),
        ("omni", (0.8, -0.1, 0.02, 0.0005, 0.0), 0.5),
        ("plumb_bob", (-0.3, 0.1, 0.0005, -0.001, -0.02), 0.6),
    ],
)
def test_the_nearest_camera_of_another_model(
    model: str, values: tuple[float, ...], most_px: float
) -> None:
    scale = 1.8 if model == "omni" else 1.0
    camera = CameraModel(640, 480, 520 * scale, 522 * scale, 321, 238, model, values)
    found, off = nearest(camera, [("plumb_bob", 4), ("equidistant", 4)])
    assert off < most_px
    rng = np.random.default_rng(0)
    points = camera.unproject(rng.uniform(0, [639, 479], (500, 2)), 1.0)
    apart = np.linalg.norm(found.project(points)[0] - camera.project(points)[0], axis=1)
    assert apart.max() < off * 1.2


def test_a_camera_that_a_format_lacks_is_written_as_the_nearest_and_told() -> None:
    camera = CameraModel(640, 480, 900, 900, 320, 240, "omni", (0.8, -0.1, 0.02, 0, 0))
    back, lost = there_and_back(Rig({"rgb": SensorCalibration(camera)}), "ros", ".yaml")
    assert len(lost) == 1 and "omni" in lost[0] and "px off" in lost[0]
    assert back.sensors["rgb"].camera is not None


def test_every_quantity_that_is_lost_has_a_line() -> None:
    camera = CameraModel(640, 480, 500, 500, 320, 240)
    full = SensorCalibration(
        camera,
        frame_id="cam",
        time_offset_ns=5_000_000,
        pose=Pose(RigidTransform.identity(), np.eye(6)),
        camera_sigma=(1.0, 1.0, 1.0, 1.0),
        offset_sigma_ns=3.0,
        date="2026-01-01",
    )
    depth = SensorCalibration(camera, frame_id="cam", aligned_with="rgb")
    rig = Rig({"rgb": full, "depth": depth}, "imu", "rgb", source="a board")
    quantities = ("covariance", "standard deviations", "time offset's", "aligned_with", "date")
    for name, suffix in (("kalibr", ".yaml"), ("ros", ""), ("opencv", ".yml"), ("kitti", ".txt")):
        with tempfile.TemporaryDirectory() as place:
            _, lost = write_calibration(rig, Path(place) / f"out{suffix}", name)
        told = "\n".join(lost)
        assert all(quantity in told for quantity in quantities), (name, told)
        assert ("the time offset of" in told) == (name != "kalibr")
        assert all("\n" not in line for line in lost)
    assert set(FORMATS) >= {"kalibr", "ros", "kitti", "opencv", "urdf", "autoware"}


def test_kalibr_holds_the_time_offset() -> None:
    camera = CameraModel(640, 480, 500, 500, 320, 240)
    pose = Pose(RigidTransform.identity())
    rig = Rig({"rgb": SensorCalibration(camera, time_offset_ns=-1234567, pose=pose)}, "imu", "rgb")
    back, lost = there_and_back(rig, "kalibr", ".yaml")
    assert back.sensors["rgb"].time_offset_ns == -1234567 and not lost


def test_topics_say_what_the_files_for_ros_say() -> None:
    camera = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0)
    turned = RigidTransform(np.eye(3), np.array([0.1, 0.0, 0.0]))
    own = {
        "front": SensorCalibration(camera, frame_id="front_optical", kind="rgb"),
        "top": SensorCalibration(frame_id="velodyne", kind="lidar", pose=Pose(turned)),
        "low": SensorCalibration(
            frame_id="velodyne", kind="lidar", pose=Pose(RigidTransform.identity())
        ),
        "lost": SensorCalibration(frame_id="lost", kind="lidar"),
    }
    cameras, links, lines = published(Rig(own))
    assert cameras == {"front": replace(camera, frame_id="front_optical")}
    assert [(one.parent, one.child) for one in links if one.child != one.parent] == [
        ("front_optical", "velodyne")
    ]
    assert np.allclose(links[-1].transform.matrix, turned.matrix)
    assert "low left out: top sits elsewhere in frame 'velodyne'" in lines
    assert "lost left out: the rig does not say where" in lines
    lens = CameraModel(640, 480, 700, 702, 318, 242, "omni", (1.1, -0.1, 0.02, 0.0, 0.0))
    cameras, links, lines = published(Rig({"rgb": SensorCalibration(lens)}))
    assert cameras["rgb"].distortion_model == "equidistant" and cameras["rgb"].frame_id == "rgb"
    assert len(lines) == 1 and "no omni model" in lines[0]

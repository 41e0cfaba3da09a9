"""The rig file: what it says comes back, is attached, and is refused where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import CalibrationError
from perception.frame import KINDS, NAME_PATTERN, RESERVED, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

CAMERA = CameraModel(4, 3, 5, 6, 1.5, 1, "plumb_bob", (0.1, 0, 0, 0), "optical")
OTHER = CameraModel(8, 6, 9, 9, 4, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rigs")


PLACES = st.builds(
    RigidTransform.from_quaternion_xyzw,
    st.tuples(*[st.floats(-1, 1)] * 3, st.floats(0.1, 1)),
    st.tuples(*[st.floats(-10, 10)] * 3),
)
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)
SIGMAS = st.floats(0, 1e9)


@st.composite
def poses(draw: st.DrawFn) -> Pose:
    covariance = None
    if draw(st.booleans()):
        root = np.array(draw(st.lists(st.floats(-1, 1), min_size=36, max_size=36))).reshape(6, 6)
        covariance = root @ root.T * draw(st.sampled_from([1e-12, 1.0, 1e6]))
    return Pose(draw(PLACES), covariance)


@st.composite
def rigs(draw: st.DrawFn) -> Rig:
    """One of a kind, as of schema 1: no base, places are extrinsics."""
    sensors: dict[str, SensorCalibration] = {}
    for kind in draw(st.sets(st.sampled_from(KINDS))):
        sensors[kind] = SensorCalibration(
            draw(st.sampled_from([None, CAMERA, OTHER])),
            draw(st.none() | PLACES),
            draw(st.sampled_from(["", "lens", "7"])),
            draw(st.integers(1 - 2**63, 2**63 - 1)),
        )
    return Rig(sensors)


@st.composite
def rigs_with_a_base(draw: st.DrawFn) -> Rig:
    """Any number of a kind, on a named base; the first camera is the reference."""
    names = draw(st.lists(st.from_regex(NAME_PATTERN, fullmatch=True), unique=True, max_size=5))
    kinds: dict[str, str] = {"front": "rgb"}
    for name in [*draw(st.sets(st.sampled_from(KINDS))), *(n.rstrip() for n in names)]:
        if name not in RESERVED:
            kinds[name] = name if name in KINDS else draw(st.sampled_from(KINDS))
    sensors = {}
    for name, kind in kinds.items():
        camera = draw(st.sampled_from([None, CAMERA, OTHER]))
        most = 0 if camera is None else 4 + len(camera.distortion)
        aligned = name != "front" and kind != "lidar" and draw(st.booleans())
        sensors[name] = SensorCalibration(
            camera,
            frame_id=draw(TEXTS),
            time_offset_ns=draw(st.integers(1 - 2**63, 2**63 - 1)),
            kind=kind,
            pose=None if aligned else draw(poses() if name == "front" else st.none() | poses()),
            aligned_with="front" if aligned else "",
            camera_sigma=tuple(draw(st.lists(SIGMAS, min_size=most, max_size=most))),
            offset_sigma_ns=draw(st.none() | SIGMAS),
            date=draw(st.sampled_from(["", "2026-11-26", "12"])),
            source=draw(TEXTS),
        )
    return Rig(sensors, draw(TEXTS) or "base_link", "front", "2026-11-26", draw(TEXTS))


def assert_same(one: Pose | RigidTransform | None, other: Pose | RigidTransform | None) -> None:
    assert (one is None) == (other is None)
    if isinstance(one, Pose) and isinstance(other, Pose):
        assert_same(one.transform, other.transform)
        assert (one.covariance is None) == (other.covariance is None)
        assert np.array_equal(one.covariance, other.covariance)  # type: ignore[arg-type]
    elif isinstance(one, RigidTransform) and isinstance(other, RigidTransform):
        assert np.allclose(one.matrix, other.matrix, atol=1e-12)


@settings(max_examples=60)
@given(rigs() | rigs_with_a_base())
def test_a_rig_comes_back_from_its_file(folder: Path, rig: Rig) -> None:
    path = folder / "rig.yaml"
    save_rig(rig, path)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == rig.to_dict()
    for found in (load_rig(path), replace(rig, source=rig.source)):
        assert list(found.sensors) == list(rig.sensors) and found.kinds == rig.kinds
        assert replace(found, sensors={}, reference="") == replace(rig, sensors={}, reference="")
        assert found.reference == rig.reference
        for name, wanted in rig.sensors.items():
            own = found.sensors[name]
            assert_same(own.pose, wanted.pose)
            assert_same(own.extrinsics, wanted.extrinsics)
            assert replace(own, pose=None, extrinsics=None) == replace(
                wanted, pose=None, extrinsics=None
            )


@settings(max_examples=25)
@given(rigs_with_a_base())
def test_extrinsics_lead_through_the_base(rig: Rig) -> None:
    point = np.array([[1.0, -2.0, 3.0]])
    front = rig.sensors["front"].pose
    assert front is not None
    for name, own in rig.sensors.items():
        if own.pose is None:
            with pytest.raises(
                CalibrationError, match=f"{name}: the rig does not say where it sits"
            ):
                rig.between(name, "front")
            continue
        in_base = own.pose.transform.apply(point)
        there = rig.between(name, "front").apply(point)
        assert np.allclose(front.transform.apply(there), in_base, atol=1e-9)
        assert np.allclose(rig.between("front", name).apply(there), point, atol=1e-9)
        if own.extrinsics is not None:
            assert np.allclose(own.extrinsics.apply(point), there, atol=1e-9)
        else:
            assert name == "front" or own.aligned_with == "front"
        assert own.extrinsics is None or not own.aligned_with


def _at(x: float, y: float, z: float) -> Pose:
    return Pose(RigidTransform(np.eye(3), np.array([x, y, z])))


ROBOT = Rig(
    {
        "front": SensorCalibration(CAMERA, kind="rgb", pose=_at(1, 0, 0)),
        "rear": SensorCalibration(OTHER, kind="rgb", pose=_at(-1, 0, 0)),
        "depth": SensorCalibration(aligned_with="rear"),
        "thermal": SensorCalibration(),
        "roof": SensorCalibration(kind="lidar", pose=_at(0, 0, 2), time_offset_ns=5),
        "lidar": SensorCalibration(),
    },
    "base_link",
    "front",
)


def test_samples_of_several_sensors_of_a_kind_get_their_own() -> None:
    cloud = Sample("lidar", np.ones((2, 4), np.float32), 100, sensor="roof")
    got = ROBOT.attach(cloud)
    assert got.camera == CAMERA and got.stamp_ns == 105
    assert got.extrinsics is not None and got.extrinsics.translation.tolist() == [-1, 0, 2]
    got = ROBOT.attach(cloud, into="rear")
    assert got.camera == OTHER
    assert got.extrinsics is not None and got.extrinsics.translation.tolist() == [1, 0, 2]
    image = Sample("rgb", np.ones((3, 4, 3), np.uint8), 100, sensor="rear")
    got = ROBOT.attach(image)
    assert got.camera == OTHER
    assert got.extrinsics is not None and got.extrinsics.translation.tolist() == [-2, 0, 0]
    assert ROBOT.attach(replace(image, sensor="front")).extrinsics is None
    assert ROBOT.attach(replace(image, sensor="rgb")).camera is None  # no such sensor is known
    depth = ROBOT.sensors["depth"].extrinsics
    assert depth is not None and depth.translation.tolist() == [-2, 0, 0]


@pytest.mark.parametrize(
    ("sensor", "into", "line"),
    [
        ("roof", "ghost", "rig: 'ghost' is not known"),
        ("roof", "thermal", "thermal: the rig does not say where it sits"),
        ("roof", "depth", "depth: the rig has no intrinsics of it"),
        ("lidar", "front", "lidar: the rig does not say where it sits"),
        ("front", "", "front: rgb in the rig, not lidar"),
    ],
)
def test_what_a_cloud_cannot_be_projected_into_is_told(sensor: str, into: str, line: str) -> None:
    with pytest.raises(CalibrationError, match=line):
        ROBOT.attach(Sample("lidar", np.ones((2, 4), np.float32), sensor=sensor), into)


def test_cameras_of_a_rig_without_a_base_are_aligned_with_the_reference_unless_placed() -> None:
    away = RigidTransform(np.eye(3), np.array([1.0, 2, 3]))
    rig = Rig({"rgb": SensorCalibration(CAMERA), "lidar": SensorCalibration(extrinsics=away)})
    assert rig.between("lidar", "rgb").matrix.tolist() == away.matrix.tolist()
    cloud = Sample("lidar", np.ones((2, 4), np.float32))
    assert rig.attach(cloud).camera is None and rig.attach(cloud, "rgb").camera == CAMERA
    assert replace(rig, reference="rgb").attach(cloud).camera == CAMERA


def test_a_lidars_own_camera_goes_before_the_references() -> None:
    roof = replace(ROBOT.sensors["roof"], camera=OTHER)
    rig = replace(ROBOT, sensors={**ROBOT.sensors, "roof": roof})
    cloud = Sample("lidar", np.ones((2, 4), np.float32), sensor="roof")
    assert rig.attach(cloud).camera == OTHER and rig.attach(cloud, "front").camera == CAMERA


def test_a_rig_of_lidars_needs_no_reference(tmp_path: Path) -> None:
    one, two = (SensorCalibration(kind="lidar", pose=_at(x, 0, 0)) for x in (1, 3))
    rig = Rig({"left": one, "right": two}, "base_link")
    assert rig.between("left", "right").translation.tolist() == [-2, 0, 0]
    save_rig(rig, tmp_path / "rig.yaml")
    assert load_rig(tmp_path / "rig.yaml").sensors["left"].extrinsics is None


def test_extrinsics_alone_are_no_pose_in_a_base() -> None:
    with pytest.raises(CalibrationError, match="lidar: has no pose in 'base_link'"):
        Rig({"lidar": SensorCalibration(extrinsics=RigidTransform.identity())}, "base_link")


def test_covariances_of_few_digits_and_of_sure_directions_are_fine() -> None:
    root = np.random.default_rng(0).normal(size=(6, 3)) * np.array(
        [[1e-3] * 3] * 3 + [[1e-6] * 3] * 3
    )
    rounded = [[float(f"{v:.6g}") for v in row] for row in root @ root.T]
    assert Pose(RigidTransform.identity(), np.array(rounded)).covariance is not None
    Pose(RigidTransform.identity(), np.zeros((6, 6)))


def test_what_the_rig_knows_replaces_what_came_with_the_sample() -> None:
    here, there = RigidTransform.identity(), RigidTransform(np.eye(3), np.ones(3))
    bare = Sample("lidar", np.ones((2, 4), np.float32), 100)
    full = replace(bare, camera=OTHER, extrinsics=there, frame_id="its own")
    rig = Rig({"lidar": SensorCalibration(CAMERA, here, "rig's", -30)})
    for sample, frame in ((bare, "rig's"), (full, "its own")):
        got = rig.attach(sample)
        assert (got.camera, got.extrinsics, got.frame_id) == (CAMERA, here, frame)
        assert got.stamp_ns == 70
    assert rig.attach(replace(bare, stamp_ns=None)).stamp_ns is None
    # What it does not know is kept.
    kept = Rig({"lidar": SensorCalibration()}).attach(full)
    assert (kept.camera, kept.extrinsics, kept.frame_id) == (OTHER, there, "its own")
    assert kept.stamp_ns == 100
    assert Rig({"rgb": SensorCalibration(CAMERA)}).attach(full) is full


PLACE = np.eye(4).tolist()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "no 'sensors' table"),
        ({}, "no 'sensors' table"),
        ({"sensors": []}, "no 'sensors' table"),
        ({"sensors": {}, "schema": 3}, "schema is 3, this version reads 1 and 2"),
        ({"sensors": {}, "schema": 0}, "schema is 0"),
        ({"sensors": {"sonar": {}}}, "sonar"),
        ({"sensors": {"rgb": []}}, "rgb: expected a table"),
        ({"sensors": {"rgb": {"to_refrence": PLACE}}}, "unknown field 'to_refrence'"),
        ({"sensors": {"rgb": {"camera": [1]}}}, "camera: expected a table"),
        ({"sensors": {"rgb": {"camera": {}}}}, "lacks or garbles"),
        ({"sensors": {"rgb": {"to_reference": [1, 2]}}}, "shape"),
        ({"sensors": {"rgb": {"frame_id": [1]}}}, "frame_id: expected a name"),
        ({"sensors": {"rgb": {"time_offset_ns": 1.5}}}, "whole number"),
        ({"sensors": {"rgb": {"time_offset_ns": True}}}, "whole number"),
        ({"sensors": {"rgb": {"time_offset_ns": 2**63}}}, "whole number"),
        ({"sensors": {"rgb": {"time_offset_ns": -(2**63)}}}, "whole number"),
    ],
)
def test_a_rig_that_cannot_be_is_named(content: Any, word: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(CalibrationError, match=word) as caught:
        load_rig(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_rig_may_say_little(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump({"sensors": {"rgb": {"frame_id": 7}, "lidar": {}}}))
    assert load_rig(path).sensors == {
        "rgb": SensorCalibration(frame_id="7"),
        "lidar": SensorCalibration(None, None, "", 0),
    }


def test_sensors_further_apart_than_any_robot_is_large_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    for metres, fine in ((100.0, True), (100.5, False), (1200.0, False)):
        for way in ([metres, 0, 0], [0, 0.6 * metres, -0.8 * metres]):
            place = np.eye(4)
            place[:3, 3] = way
            path.write_text(yaml.safe_dump({"sensors": {"rgb": {"to_reference": place.tolist()}}}))
            if fine:
                assert load_rig(path).sensors["rgb"].extrinsics is not None
                continue
            with pytest.raises(CalibrationError, match="millimetres"):
                load_rig(path)

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
from perception.frame import MODALITIES, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

CAMERA = CameraModel(4, 3, 5, 6, 1.5, 1, "plumb_bob", (0.1, 0, 0, 0), "optical")
OTHER = CameraModel(8, 6, 9, 9, 4, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rigs")


@st.composite
def rigs(draw: st.DrawFn) -> Rig:
    sensors = {}
    for modality in draw(st.sets(st.sampled_from(MODALITIES))):
        place = RigidTransform.from_quaternion_xyzw(
            draw(st.tuples(*[st.floats(-1, 1)] * 3, st.floats(0.1, 1))),
            draw(st.tuples(*[st.floats(-10, 10)] * 3)),
        )
        sensors[modality] = SensorCalibration(
            draw(st.sampled_from([None, CAMERA, OTHER])),
            draw(st.sampled_from([None, place])),
            draw(st.sampled_from(["", "lens", "7"])),
            draw(st.integers(1 - 2**63, 2**63 - 1)),
        )
    return Rig(sensors)


@settings(max_examples=25)
@given(rigs())
def test_a_rig_comes_back_from_its_file(folder: Path, rig: Rig) -> None:
    path = folder / "rig.yaml"
    save_rig(rig, path)
    assert yaml.safe_load(path.read_text()) == rig.to_dict()
    found = load_rig(path)
    assert set(found.sensors) == set(rig.sensors)
    for modality, wanted in rig.sensors.items():
        own = found.sensors[modality]
        assert (own.camera, own.frame_id, own.time_offset_ns) == (
            wanted.camera, wanted.frame_id, wanted.time_offset_ns
        )  # fmt: skip
        assert (own.extrinsics is None) == (wanted.extrinsics is None)
        if own.extrinsics is not None and wanted.extrinsics is not None:
            assert np.allclose(own.extrinsics.matrix, wanted.extrinsics.matrix, atol=1e-12)


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
        ({"sensors": {}, "schema": 2}, "schema is 2, this version reads 1"),
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

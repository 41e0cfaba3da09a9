"""`anysense run` of a bundle that sees the ground, on clouds and calibrations that are no good."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ground_bundles import cloud, ground_bundle, picture, surround_rig

from perception.cli.main import main
from perception.geometry.rig import Rig, SensorCalibration, save_rig

CAR = (5.0, 3.0)
GOOD = cloud(CAR).data


def _npy(data: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "roof.npy", data)
        return folder / "roof.npy"

    return write


def _text(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _pcd(fields: str, row: str) -> bytes:
    count = len(fields.split())
    head = [
        "VERSION .7", f"FIELDS {fields}", f"SIZE{' 4' * count}", f"TYPE{' F' * count}",
        f"COUNT{' 1' * count}", "WIDTH 1", "HEIGHT 1", "POINTS 1", "DATA ascii", row, "",
    ]  # fmt: skip
    return "\n".join(head).encode()


def _many() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    low, high = (-30, -30, -2, 0), (30, 30, 2, 1)
    return rng.uniform(low, high, (2_000_000, 4)).astype(np.float32)


UNUSABLE: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (_npy(np.zeros((0, 4), np.float32)), "roof: empty cloud"),
    "not a number": (_npy(np.full((30, 4), np.nan, np.float32)), "roof: empty cloud"),
    "infinite": (_npy(np.full((30, 4), np.inf, np.float32)), "roof: empty cloud"),
    "out of range": (_npy(GOOD + np.float32([500, 0, 0, 0])), "roof: no point lies on the ground"),
    "two columns": (_npy(GOOD[:, :2]), "roof.npy"),
    "a list": (_npy(GOOD[0]), "roof.npy"),
    "words": (_npy(np.array([["a", "b", "c"]])), "roof.npy"),
    "no x": (_text("roof.pcd", _pcd("azimuth y z", "1 2 3")), "roof.pcd"),
    "cut off": (_text("roof.bin", GOOD.tobytes()[:-7]), "roof.bin"),
    "nothing": (_text("roof.npy", b""), "roof.npy"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_bundle(tmp_path_factory.mktemp("ground") / "surround")


_SEES = _npy(GOOD)

Run = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def run(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a picture to the left and a cloud; gives the status, what was told, and the result."""

    def made(
        roof: Callable[[Path], Path] = _SEES, rig: Rig | None = None, left: bool = False
    ) -> tuple[int, str, dict[str, Any]]:
        line = ["run", "--bundle", str(bundle), "--device", "onnxruntime-cpu", "--threads", "1"]
        line += ["--out", str(tmp_path / "out"), "--sensor", f"roof={roof(tmp_path)}"]
        if left:
            cv2.imwrite(str(tmp_path / "left.png"), picture("left", 118).data)
            line += ["--sensor", f"left={tmp_path / 'left.png'}"]
        save_rig(surround_rig() if rig is None else rig, tmp_path / "rig.yaml")
        status = main([*line, "--rig", str(tmp_path / "rig.yaml")])
        told = "".join(capsys.readouterr())
        assert "Traceback" not in told
        file = tmp_path / "out/result.json"
        return status, told, json.loads(file.read_text()) if file.is_file() else {}

    return made


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_cloud_that_cannot_be_used_is_one_line(what: str, run: Run) -> None:
    write, line = UNUSABLE[what]
    status, told, _ = run(write)
    assert status == 2
    assert line in told and told.count(line) == 1, told
    errors = [one for one in told.splitlines() if one.startswith("anysense: error: ")]
    assert len(errors) == 1, told


@pytest.mark.parametrize("what", ["empty", "not a number", "out of range"])
def test_the_cameras_answer_without_it(what: str, run: Run) -> None:
    write, line = UNUSABLE[what]
    status, told, found = run(write, left=True)
    assert status == 0 and line in told
    assert found["used"] == ["left"] and "boxes3d" in found


def test_one_point_is_told_as_a_lidar_that_sees_nothing(run: Run) -> None:
    one = _npy(GOOD[-1:])
    status, told, _ = run(one)
    assert status == 2 and told.count("roof: sensor is dark") == 1
    status, told, found = run(one, left=True)
    assert status == 0 and found["used"] == ["left"]


def test_what_is_no_number_changes_nothing_of_the_rest(run: Run) -> None:
    _, _, good = run()
    broken = np.full((50, 4), np.nan, np.float32)
    broken[::2, :3] = np.inf
    status, _, found = run(_npy(np.insert(GOOD, range(0, 100, 2), broken, axis=0)))
    assert status == 0 and found["boxes3d"] == good["boxes3d"] != []


@pytest.mark.slow
def test_two_million_points_are_answered(run: Run) -> None:
    status, _, found = run(_npy(_many()))
    assert status == 0 and found["used"] == ["roof"]


def _lacking(sensor: str, **fields: Any) -> Rig:
    rig = surround_rig()
    own = replace(rig.sensors[sensor], **fields)
    return replace(rig, sensors={**rig.sensors, sensor: own})


def test_a_lidar_that_the_rig_does_not_place_is_named(run: Run) -> None:
    for rig in (_lacking("roof", pose=None, extrinsics=None), _without("roof")):
        status, told, _ = run(rig=rig)
        assert status == 2 and told.count("roof: its place on the vehicle is not known") == 1


def _without(sensor: str) -> Rig:
    rig = surround_rig()
    kept: dict[str, SensorCalibration] = {n: s for n, s in rig.sensors.items() if n != sensor}
    return replace(rig, sensors=kept)


def test_a_camera_that_is_not_calibrated_is_named_and_left_out(run: Run) -> None:
    cases = {
        "left: its intrinsics are not known": _lacking("left", camera=None),
        "left: its place on the vehicle is not known": _lacking("left", pose=None, extrinsics=None),
    }
    for line, rig in cases.items():
        status, told, found = run(rig=rig, left=True)
        assert status == 0 and told.count(line) == 1
        assert found["used"] == ["roof"] and len(found["boxes3d"]) == 1

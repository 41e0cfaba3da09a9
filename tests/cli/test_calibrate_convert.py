"""`anysense calibrate convert` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perception.cli.main import main
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

CAMERA = CameraModel(640, 480, 500.0, 501.0, 320.0, 240.0, "plumb_bob", (-0.1, 0.01, 0, 0, 0.0))


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    moved = RigidTransform.from_quaternion_xyzw((0.5, -0.5, 0.5, 0.5), [0.1, 0.2, 0.3])
    sensors = {
        "front": SensorCalibration(CAMERA, kind="rgb", frame_id="front_optical_frame", pose=Pose(moved)),
        "top": SensorCalibration(
            kind="lidar", frame_id="velodyne", pose=Pose(moved), time_offset_ns=10
        ),
    }  # fmt: skip
    save_rig(Rig(sensors, "base_link", "front"), tmp_path / "rig.yaml")
    return tmp_path / "rig.yaml"


@pytest.mark.parametrize("to", ["kalibr", "ros", "kitti", "opencv", "urdf", "autoware"])
def test_every_format_is_written_and_read_again(
    rig: Path, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.json"
    assert main(["calibrate", "convert", str(rig), str(out), "--to", to, f"--json={report}"]) == 0
    told, said = json.loads(report.read_text()), capsys.readouterr().out
    assert told["from"] == "rig" and told["to"] == to and told["files"]
    assert said.count("warning: ") == len(told["lost"]) > 0  # at least the time offset
    again = tmp_path / "again.yaml"
    assert main(["calibrate", "convert", str(out), str(again)]) == 0
    found = load_rig(again)
    assert found.source.startswith("anysense")
    assert set(found.kinds.values()) == (
        {"rgb"} if to in ("kalibr", "opencv") else {"rgb", "lidar"}
    )


def test_sensors_may_be_named(rig: Path, tmp_path: Path) -> None:
    urdf, out = tmp_path / "r.urdf", tmp_path / "b.yaml"
    assert main(["calibrate", "convert", str(rig), str(urdf), "--to", "urdf"]) == 0
    line = ["calibrate", "convert", str(urdf), str(out), "--sensor", "a=lidar@velodyne"]
    assert main([*line, "--sensor", "b=thermal@front_optical_frame"]) == 0
    assert load_rig(out).kinds == {"a": "lidar", "b": "thermal"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.yaml", "o.yaml"], "no such file"),
        (["RIG", "RIG"], "is what is read"),
        (["RIG", "o.yaml", "--to", "kalib"], "did you mean 'kalibr'"),
        (["RIG", "o.yaml", "--sensor", "front=rbg"], "did you mean 'rgb'"),
        (["RIG", "o.yaml", "--sensor", "Front"], "no name of a sensor"),
        (["RIG", "o.yaml", "--sensor", "fornt"], "did you mean 'front'"),
        (["RIG", "o.yaml", "--size", "640"], "WIDTHxHEIGHT"),
        (["RIG", "no/such/folder/o.yaml"], "cannot be written"),
        (["TWO", "o.yaml", "--to", "ros"], "name a folder"),
        (["THREE", "o.yml", "--to", "opencv"], "name a folder"),
        (["LIDAR", "o.yaml", "--to", "kalibr"], "no camera with intrinsics"),
        (["LIDAR", "o.txt", "--to", "kitti"], "no camera with intrinsics"),
        (["FOLDER", "o.yaml"], "holds no calibration"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(
    rig: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(rig.read_text())
    front, top = content["sensors"].values()
    for name, sensors in (
        ("TWO", {"a": front, "b": front}),
        ("THREE", {"a": front, "b": front, "c": front}),
        ("LIDAR", {"lidar": {"pose": top["pose"]}}),
    ):
        reference = {} if name == "LIDAR" else {"reference": "a"}
        whole = {**content, "sensors": sensors}
        whole.pop("reference")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(whole | reference))
    (tmp_path / "empty").mkdir()
    places = {"RIG": rig, "FOLDER": tmp_path / "empty"}
    places |= {name: tmp_path / f"{name}.yaml" for name in ("TWO", "THREE", "LIDAR")}
    line = [
        str(places.get(w, tmp_path / w if w.startswith(("o.", "no/", "miss")) else w))
        for w in words
    ]
    before = sorted(tmp_path.iterdir())
    assert main(["calibrate", "convert", *line]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error, error
    assert sorted(tmp_path.iterdir()) == before

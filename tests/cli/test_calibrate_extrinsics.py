"""`anysense calibrate extrinsics`: from poses of a board to a rig file."""

from __future__ import annotations

import html
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from lidar_scenes import BOARD, CAMERA, TRUTH, middles, write_clouds, write_pictures

from calibration.camera_info import load_camera_info, save_camera_info
from perception.cli.main import main
from perception.geometry.rig import Pose, Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

POSES = middles(6, seed=9)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    write_pictures(folder / "pictures", POSES)
    write_clouds(folder / "clouds", POSES)
    save_camera_info(CAMERA, folder / "camera.yaml")
    return folder


def command(recorded: Path, out: Path, **change: str | None) -> list[str]:
    given = {
        "--camera": str(recorded / "pictures"),
        "--cloud": str(recorded / "clouds"),
        "--board": str(BOARD),
        "--plate": "0.61x0.85",
        "--camera-info": str(recorded / "camera.yaml"),
        "--out": str(out),
        **{f"--{key.replace('_', '-')}": value for key, value in change.items()},
    }
    words = [word for key, value in given.items() if value is not None for word in (key, value)]
    return ["calibrate", "extrinsics", *words]


def test_a_rig_json_and_overlays_are_written(recorded: Path, tmp_path: Path) -> None:
    rig, report, drawn = tmp_path / "rig.yaml", tmp_path / "found.json", tmp_path / "drawn"
    page = tmp_path / "page.html"
    line = command(recorded, rig, overlays=str(drawn), json=str(report), report=str(page))
    assert main(line) == 0
    own = load_rig(rig)
    assert own.sensors["rgb"].camera is not None
    pose = own.sensors["lidar"].pose
    assert pose is not None and pose.covariance is not None
    assert np.linalg.norm(pose.transform.translation - TRUTH.translation) < 0.015
    turn = cv2.Rodrigues(pose.transform.rotation @ TRUTH.rotation.T)[0]
    assert np.degrees(np.linalg.norm(turn)) < 0.5
    found = json.loads(report.read_text())
    assert np.allclose(found["lidar_to_camera"], own.between("lidar", "rgb").matrix)
    assert found["rms_px"] < 3 and found["trusted"] and found["rig"] == str(rig)
    assert sorted(path.stem for path in drawn.iterdir()) == sorted(found["poses"])
    text = page.read_text()
    assert f"{found['rms_px']:.1f} px" in text and f"{found['lidar_to_camera'][0][3]:.4f}" in text
    assert all(f">{name}</text>" in text for name in found["poses"])
    assert text.count("data:image/jpeg") == 6 and "lidar to rgb: " in text
    assert all(html.escape(line) in text for line in (*found["doubts"], *found["remarks"]))
    picture = cv2.imread(str(next(drawn.iterdir())))
    assert picture is not None and picture.shape == (480, 1280, 3)


def test_a_rig_that_exists_places_the_lidar_in_its_base(recorded: Path, tmp_path: Path) -> None:
    rig = tmp_path / "rig.yaml"
    at = RigidTransform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([1.0, 0.2, 0.8]))
    sensors = {
        "front": SensorCalibration(CAMERA, kind="rgb", pose=Pose(at)),
        "depth": SensorCalibration(CAMERA, pose=Pose(RigidTransform.identity())),
    }
    save_rig(Rig(sensors, base="base_link", reference="front"), rig)
    change = {
        "camera": f"front={recorded / 'pictures'}",
        "cloud": f"top={recorded / 'clouds'}",
        "camera_info": None,
    }
    assert main(command(recorded, rig, **change)) == 0
    own = load_rig(rig)
    off = own.between("top", "front").translation - TRUTH.translation
    assert np.linalg.norm(off) < 0.015 and own.sensors["top"].kind == "lidar"
    assert own.base == "base_link" and np.allclose(
        own.sensors["depth"].pose.transform.matrix, np.eye(4)
    )


def test_an_answer_that_is_not_to_be_trusted_is_3_and_writes_no_rig(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every board is moved by some centimetres before the cloud."""
    rng = np.random.default_rng(3)
    moved = [
        RigidTransform(pose.rotation, pose.translation + rng.normal(0, 0.035, 3)) for pose in POSES
    ]
    clouds = write_clouds(tmp_path / "clouds", moved)
    rig, report = tmp_path / "rig.yaml", tmp_path / "found.json"
    assert main(command(recorded, rig, cloud=str(clouds), json=str(report))) == 3
    assert not rig.exists() and "not to be trusted" in capfd.readouterr().out
    found = json.loads(report.read_text())
    assert not found["trusted"] and found["doubts"] and found["rig"] is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"plate": None}, "--plate: is missing"),
        ({"plate": "0.61"}, "WIDTHxHEIGHT"),
        ({"plate": "0.3x0.3"}, "--plate"),
        ({"board": "chessboard:5x6:0.095"}, "inner corners"),
        ({"camera_info": None}, "no intrinsics of 'rgb'"),
        ({"camera_info": "thermal=x.yaml"}, "no camera 'thermal'"),
        ({"cloud": "thermal=x"}, "cannot be of kind"),
        ({"camera": "lidar=x"}, "cannot be of kind"),
        ({"camera": "Front Left=x"}, "Front Left"),
        ({"cloud": "nowhere"}, "nowhere"),
        ({"cloud": None}, "second --camera"),
        ({"kind": "front"}, "NAME=VALUE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: dict, problem: str
) -> None:
    assert main(command(recorded, tmp_path / "rig.yaml", **change)) == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
    assert len(lines) == 1 and problem in lines[0], lines
    assert not (tmp_path / "rig.yaml").exists()


def test_cameras_are_placed_by_the_first(recorded: Path, tmp_path: Path) -> None:
    """The second one sees the same from 10 cm to the right."""
    right = [RigidTransform(p.rotation, p.translation - [0.1, 0, 0]) for p in POSES]
    other, rig, report = tmp_path / "other", tmp_path / "rig.yaml", tmp_path / "found.json"
    write_pictures(other, right)
    save_rig(Rig({"rgb": SensorCalibration(CAMERA), "thermal": SensorCalibration(CAMERA)}), rig)
    line = [
        "calibrate",
        "extrinsics",
        "--camera",
        str(recorded / "pictures"),
        "--board",
        str(BOARD),
    ]
    line += ["--camera", f"thermal={other}", "--out", str(rig), "--json", str(report)]
    assert main(line) == 0
    own = load_rig(rig)
    assert np.allclose(own.between("thermal", "rgb").translation, [0.1, 0, 0], atol=0.01)
    assert own.sensors["thermal"].pose.covariance is not None
    found = json.loads(report.read_text())
    assert np.allclose(
        found["cameras"]["thermal"]["to_reference"], own.between("thermal", "rgb").matrix
    )


@pytest.fixture(scope="module")
def beside(recorded: Path) -> Path:
    """What a second camera sees from 10 cm to the right."""
    right = [RigidTransform(p.rotation, p.translation - [0.1, 0, 0]) for p in POSES]
    return write_pictures(recorded / "beside", right)


def together(recorded: Path, beside: Path, out: Path, **change: str | None) -> list[str]:
    line = command(recorded, out, camera_info=f"rgb={recorded / 'camera.yaml'}", **change)
    info = f"thermal={recorded / 'camera.yaml'}"
    return [*line, "--camera", f"thermal={beside}", "--camera-info", info]


def test_cameras_and_a_lidar_are_placed_in_one_fit(
    recorded: Path, beside: Path, tmp_path: Path
) -> None:
    rig, report, drawn = tmp_path / "rig.yaml", tmp_path / "found.json", tmp_path / "drawn"
    page = tmp_path / "page.html"
    line = together(recorded, beside, rig, overlays=str(drawn), json=str(report), report=str(page))
    assert main(line) == 0
    own, found = load_rig(rig), json.loads(report.read_text())
    assert np.linalg.norm(own.between("lidar", "rgb").translation - TRUTH.translation) < 0.015
    assert np.allclose(own.between("thermal", "rgb").translation, [0.1, 0, 0], atol=0.01)
    assert np.allclose(found["lidar_to_camera"], own.between("lidar", "rgb").matrix)
    place = found["cameras"]["thermal"]
    assert np.allclose(place["to_reference"], own.between("thermal", "rgb").matrix)
    for name, covariance in (("lidar", found["covariance"]), ("thermal", place["covariance"])):
        assert np.allclose(own.sensors[name].pose.covariance, covariance, atol=1e-15)
    assert set(found["left_out"]) == {"rgb", "thermal", "lidar"} and found["trusted"]
    for name in ("rgb", "thermal"):
        assert sorted(p.stem for p in (drawn / name).iterdir()) == sorted(found["poses"])
    assert "lidar to rgb: " in page.read_text()


def test_bad_input_of_several_cameras_and_a_lidar_is_one_line(
    recorded: Path, beside: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = write_clouds(tmp_path / "few", POSES[:3])
    for change, problem in (
        ({"plate": None}, "--plate: is missing"),
        ({"cloud": "nowhere"}, "nowhere"),
        ({"cloud": str(few)}, "3 usable poses"),
        ({"cloud": f"thermal={few}"}, "cannot be of kind"),
        ({"camera": f"thermal={beside}"}, "not different"),
    ):
        assert main(together(recorded, beside, tmp_path / "rig.yaml", **change)) == 2
        lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
        assert len(lines) == 1 and problem in lines[0], lines
        assert not (tmp_path / "rig.yaml").exists()


def test_several_cameras_and_a_lidar_that_do_not_agree_are_3(
    recorded: Path, beside: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every board is moved by some centimetres before the cloud."""
    rng = np.random.default_rng(3)
    moved = [
        RigidTransform(pose.rotation, pose.translation + rng.normal(0, 0.035, 3)) for pose in POSES
    ]
    clouds, rig = write_clouds(tmp_path / "clouds", moved), tmp_path / "rig.yaml"
    assert main(together(recorded, beside, rig, cloud=str(clouds))) == 3
    assert not rig.exists() and "not to be trusted" in capfd.readouterr().out


def test_a_camera_file_with_upper_case_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "camera_info.yaml"
    path.write_text(
        'distortion_model: "fisheye"\nwidth: 1920\nheight: 1208\nD: [-0.05,-0.07,0.09,-0.05]\n'
        "K: [1176.9,0.0,962.2,0.0,1177.7,612.7,0.0,0.0,1]\n"
    )
    camera = load_camera_info(path)
    assert camera.distortion_model == "equidistant" and camera.fx == 1176.9

"""`anysense calibrate`: from pictures to a rig file."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_scenes import picture_of, pose_at

from calibration.boards import parse_board
from calibration.fitting import project_view
from perception.cli.main import main
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration, load_rig

BOARD = parse_board("chessboard:6x4:0.05")
CAMERA = CameraModel(320, 240, 260.0, 262.0, 161.0, 118.0)
ARGUMENTS = ["--board", str(BOARD), "--model", "pinhole"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of the board, and one without it."""
    folder, rng, count = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1), 0
    while count < 8:
        pose = pose_at(BOARD, rng, CAMERA)
        pixels = project_view(CAMERA, pose, BOARD.points)
        if (pixels > 12).all() and (pixels < [308, 228]).all():
            cv2.imwrite(str(folder / f"{count}.png"), picture_of(BOARD, CAMERA, pose))
            count += 1
    cv2.imwrite(str(folder / "wall.png"), np.full((240, 320), 90, np.uint8))
    return folder


def test_pictures_become_a_rig_file_and_json(pictures: Path, tmp_path: Path) -> None:
    rig, report = tmp_path / "rig.yaml", tmp_path / "found.json"
    command = ["calibrate", "intrinsics", str(pictures), *ARGUMENTS, "--out", str(rig)]
    assert main([*command, "--json", str(report)]) == 0
    own = load_rig(rig).sensors["rgb"]
    assert own.camera is not None
    got = [own.camera.fx, own.camera.fy, own.camera.cx, own.camera.cy]
    assert np.allclose(got, [260, 262, 161, 118], atol=1.5), got
    assert len(own.camera_sigma) == 4 and own.date and own.source
    found = json.loads(report.read_text())
    assert np.allclose(found["K"], own.camera.matrix) and found["D"] == [0.0] * 5
    assert found["distortion_model"] == "plumb_bob" and found["rms_px"] < 0.3
    assert list(found["left_out"]) == ["wall.png"] and len(found["views"]) == 8


def test_the_report_has_what_speaks_for_the_camera_and_against_it(
    pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a<b"  # names are text
    shutil.copytree(pictures, folder)
    (folder / "0.png").rename(folder / "<i>0.png")
    rig, page = tmp_path / "rig.yaml", tmp_path / "report.html"
    command = ["calibrate", "intrinsics", str(folder), *ARGUMENTS, "--out", str(rig)]
    assert main([*command, "--report", str(page), "--json", str(tmp_path / "found.json")]) == 0
    found, text = json.loads((tmp_path / "found.json").read_text()), page.read_text()
    assert "<i>" not in text and "a<b" not in text and "&lt;i&gt;0.png" in text
    assert f"{found['rms_px']:.3f} px" in text and f"{found['K'][0][0]:.6g}" in text
    assert all(html.escape(remark) in text for remark in found["remarks"]) and found["remarks"]
    assert "with reservations" in text and "wall.png" in text
    for name, view in found["views"].items():
        assert f">{html.escape(name)}</text>" in text and f"{view['rms_px']:.3f} px" in text
    assert text.count("data:image/jpeg") == 5  # three views, before and after
    assert not re.search(r"(src|href)=.?https?:", text), "it needs nothing else"


def test_a_rig_that_exists_keeps_its_other_sensors(pictures: Path, tmp_path: Path) -> None:
    from perception.files.writing import write_yaml

    rig = tmp_path / "rig.yaml"
    write_yaml(rig, Rig({"thermal": SensorCalibration(CAMERA, frame_id="hot")}).to_dict())
    command = ["calibrate", "intrinsics", str(pictures), *ARGUMENTS, "--out", str(rig)]
    assert main([*command, "--sensor", "front", "--kind", "rgb"]) == 0
    sensors = load_rig(rig).sensors
    assert sensors["front"].kind == "rgb" and sensors["thermal"].camera == CAMERA


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (["--board", "chessboard:7x5:0.05"], "6x4 inner corners"),
        (["--board", "chess:6x4:0.05"], "chessboard"),
        (["--model", "fish"], "camera model"),
        (["--sensor", "Front Left"], "Front Left"),
        (["--sensor", "front", "--kind", "rbg"], "rgb"),
        (["--sensor", "thermal", "--kind", "rgb"], "--kind"),
    ],
)
def test_bad_input_is_one_line(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: list, problem: str
) -> None:
    command = ["calibrate", "intrinsics", str(pictures), *ARGUMENTS, *change]
    assert main([*command, "--out", str(tmp_path / "rig.yaml")]) == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
    assert len(lines) == 1 and problem in lines[0], lines
    assert not (tmp_path / "rig.yaml").exists()


def test_a_folder_without_pictures_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", "intrinsics", str(tmp_path), *ARGUMENTS, "--out", str(tmp_path / "r")]
    assert main(command) == 2
    assert "no .png" in capfd.readouterr().err

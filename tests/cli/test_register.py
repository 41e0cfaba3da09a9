"""`anysense calibrate register`: what it gives, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from two_sensors import A, B, corner_error, hills, homography, scene, seen_by_b, truth

from calibration.camera_info import save_camera_info
from perception.cli.main import main


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    a, b = scene(11)
    truth = homography(480, 360, 0.06, 0, np.random.default_rng(11))
    cv2.imwrite(str(tmp_path / "a.png"), cv2.merge([a, a, a]))
    moved = cv2.warpPerspective(b, truth, (480, 360)).astype(np.uint16) * 9 + 3000
    cv2.imwrite(str(tmp_path / "b.tiff"), moved)
    np.save(tmp_path / "truth.npy", truth)
    return str(tmp_path / "a.png"), str(tmp_path / "b.tiff")


def test_json_and_overlay(pair: tuple[str, str], tmp_path: Path) -> None:
    report, picture = tmp_path / "f.json", tmp_path / "seen.png"
    command = ["calibrate", "register", *pair, "--json", str(report), "--overlay", str(picture)]
    assert main([*command, "--threads", "1"]) == 0
    found = json.loads(report.read_text())
    truth = np.load(tmp_path / "truth.npy")
    assert corner_error(found["matrix"], truth, (360, 480)) < 4
    assert found["trusted"] and 0.5 <= found["confidence"] <= 1 and found["inliers"] > 100
    assert cv2.imread(str(picture)).shape == (360, 480, 3)


def test_an_answer_that_is_not_trusted_is_given_with_status_3(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, report = tmp_path / "noise.png", tmp_path / "f.json"
    cv2.imwrite(str(other), np.random.default_rng(0).integers(0, 255, (300, 400)).astype(np.uint8))
    assert main(["calibrate", "register", pair[0], str(other), f"--json={report}"]) == 3
    assert not json.loads(report.read_text())["trusted"]
    assert "not trusted" in capsys.readouterr().out


def _files(folder: Path) -> None:
    cv2.imwrite(str(folder / "blank.png"), np.full((200, 200), 80, np.uint8))
    cv2.imwrite(str(folder / "tiny.png"), np.arange(64, dtype=np.uint8).reshape(8, 8))
    (folder / "text.png").write_text("no picture")
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("blank.png", "one value everywhere"),
        ("tiny.png", "too small"),
        ("text.png", "expected JPEG, PNG or TIFF"),
        ("folder.png", "folder.png"),
        ("absent.png", "absent.png"),
        ("a.png", "same file"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_bad_input_is_one_line(
    pair: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    name: str, problem: str, first: bool,
) -> None:  # fmt: skip
    _files(tmp_path)
    files = [str(tmp_path / name), pair[0]]
    assert main(["calibrate", "register", *(files if first else files[::-1])]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and problem in said, said


def test_a_matcher_that_is_none_is_refused(
    pair: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "register", *pair, "--matcher", pair[0]]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "a.png" in said


@pytest.fixture
def with_depth(tmp_path: Path) -> list[str]:
    """Pictures of hills by two cameras, depth of the first in millimetres, and their intrinsics."""
    (a, b), depth = scene(3), hills(3)
    cv2.imwrite(str(tmp_path / "a.png"), a)
    cv2.imwrite(str(tmp_path / "b.png"), seen_by_b(b, depth, truth(3)))
    cv2.imwrite(str(tmp_path / "depth.png"), (1000 * depth).round().astype(np.uint16))
    save_camera_info(A, tmp_path / "a.yaml")
    save_camera_info(B, tmp_path / "b.yaml")
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    return ["calibrate", "register", *files, "--depth", str(tmp_path / "depth.png")]


def test_with_depth_it_gives_the_pose(with_depth: list[str], tmp_path: Path) -> None:
    report = tmp_path / "f.json"
    cameras = [
        "--camera-info",
        f"a={tmp_path / 'a.yaml'}",
        "--camera-info",
        f"b={tmp_path / 'b.yaml'}",
    ]
    assert main([*with_depth, *cameras, f"--json={report}"]) == 0
    found, pose = json.loads(report.read_text()), truth(3)
    matrix = np.array(found["a_to_b"])
    assert np.linalg.norm(matrix[:3, 3] - pose.translation) < 0.02
    turn = cv2.Rodrigues(matrix[:3, :3] @ pose.rotation.T)[0]
    assert np.degrees(np.linalg.norm(turn)) < 0.5
    assert 0 < np.linalg.norm(found["sigma"]["translation_m"]) < 0.02 and found["trusted"]


def test_a_pose_of_what_does_not_belong_together_is_not_0(
    with_depth: list[str], tmp_path: Path
) -> None:
    other = cv2.resize(scene(140)[1], (B.width, B.height))
    cv2.imwrite(str(tmp_path / "b.png"), other)
    cameras = [
        "--camera-info",
        f"a={tmp_path / 'a.yaml'}",
        "--camera-info",
        f"b={tmp_path / 'b.yaml'}",
    ]
    assert main([*with_depth, *cameras]) in (2, 3)


def test_options_of_a_pose_are_checked(
    with_depth: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = ["--camera-info", str(tmp_path / "a.yaml")]
    for line, problem in (
        (with_depth, "no intrinsics of A"),
        ([*with_depth, "--camera-info", f"a={tmp_path / 'a.yaml'}"], "no intrinsics of B"),
        ([*with_depth, *both], "b.png: is 400x300, its camera 480x360"),
        ([*with_depth, *both, "--overlay", str(tmp_path / "o.png")], "--overlay"),
        ([*with_depth[:4], *both], "goes with --depth"),
        ([*with_depth[:4], "--depth", "nowhere.png", *both], "nowhere.png"),
    ):
        capfd.readouterr()
        assert main(line) == 2, line
        lines = [x for x in capfd.readouterr().err.splitlines() if "error" in x]
        assert len(lines) == 1 and problem in lines[0], lines

"""Where a LiDAR is, found from scenes as they are: on made-up scenes, simulated streets, and a real drive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.check import gray_picture
from calibration.clues import Clues, edge_score, information
from calibration.joint import moved
from calibration.targetless import Targetless, calibrate_targetless, guess_sigma
from perception.cli.main import main
from perception.data.base import Recording
from perception.data.registry import open_recording
from perception.errors import CalibrationError
from perception.files.writing import write_image
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import Float64, RigidTransform
from perception.sim.generate import make_recording

CAMERA = CameraModel(320, 160, 200.0, 200.0, 159.5, 79.5)
TRUTH = RigidTransform(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.array([0.05, -0.10, -0.20])
)
OFF = np.array([0.06, -0.05, 0.08, *np.radians([1.2, -1.5, 0.8])])
"""By how much guesses are off: metres and radians."""

Shot = tuple[NDArray[Any], NDArray[Any]]


def off(found: RigidTransform, truth: RigidTransform) -> Float64:
    """(6,) metres and degrees."""
    turn = np.degrees(cv2.Rodrigues(found.rotation @ truth.rotation.T)[0].ravel())
    return np.concatenate([found.translation - truth.translation, turn])


def seen(origin: Float64, rays: Float64, plates: Float64, wall_m: float) -> tuple[Float64, Float64]:
    """Ranges and the number of the plate of rays (N, 3) in the camera's axes; -1 is the wall.

    Plates (K, 5) are x, y, z of their middles, and half sizes, all facing the camera.
    """
    depth = (wall_m - origin[2]) / rays[:, 2]
    which = np.full(len(rays), -1.0)
    for number, (x, y, z, wide, high) in enumerate(plates):
        at = (z - origin[2]) / rays[:, 2]
        hit = origin + at[:, None] * rays
        on = (np.abs(hit[:, 0] - x) < wide) & (np.abs(hit[:, 1] - y) < high) & (at < depth)
        depth, which = np.where(on, at, depth), np.where(on, number, which)
    return depth, which


def scene(seed: int, nearest_m: float, farthest_m: float) -> Shot:
    """A picture and a cloud of plates before a wall, seen by a camera and a LiDAR whose places are known."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(nearest_m, farthest_m, 14)
    places = rng.uniform([-0.7, -0.3], [0.7, 0.3], (14, 2)) * z[:, None]
    plates = np.column_stack(
        [places, z, rng.uniform([0.03, 0.05], [0.09, 0.12], (14, 2)) * z[:, None]]
    )
    wall = farthest_m * 1.3
    shades = rng.uniform(30, 225, 15)
    rows, columns = np.indices((CAMERA.height, CAMERA.width)).reshape(2, -1)
    rays = np.column_stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy])
    which = seen(np.zeros(3), np.column_stack([rays, np.ones(len(rays))]), plates, wall)[1]
    gray = shades[which.astype(int)].reshape(CAMERA.height, CAMERA.width)
    gray = np.clip(gray + rng.normal(0, 3, gray.shape), 0, 255).astype(np.uint8)
    azimuth, elevation = np.radians(
        np.meshgrid(np.arange(-45, 45, 0.25), np.arange(-24, 24, 0.5))
    ).reshape(2, -1)
    flat = np.cos(elevation)
    own = np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    ranges, which = seen(TRUTH.translation, own @ TRUTH.rotation.T, plates, wall)
    points = own * (ranges + rng.normal(0, 0.01, len(ranges)))[:, None]
    return gray, np.column_stack([points, shades[which.astype(int)] / 255])


def shots(nearest_m: float, farthest_m: float, count: int = 6) -> list[Shot]:
    return [scene(seed, nearest_m, farthest_m) for seed in range(count)]


@pytest.fixture(scope="module")
def near() -> list[Shot]:
    return shots(3, 15)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    out = tmp_path_factory.mktemp("street") / "drive"
    make_recording(out, "drive", 12, 3, size=(240, 320), lidar="os1-64", progress=False)
    return open_recording("folder", out)


def frames_of(recording: Recording, step: int = 1) -> list[Shot]:
    rig = recording.rig
    assert rig is not None
    every = [recording.frame(i) for i in range(0, len(recording), step)]
    return [(gray_picture(one["rgb"], rig), one["lidar"].data) for one in every]


def check_found(found: Targetless, truth: RigidTransform, metres: float, degrees: float) -> None:
    error = off(found.transform, truth)
    assert np.linalg.norm(error[:3]) < metres and np.linalg.norm(error[3:]) < degrees, error
    sigma = found.sigma * [1, 1, 1, *[180 / np.pi] * 3]
    assert (np.abs(error) < 3 * sigma).all(), error / sigma


def test_a_guess_is_corrected_in_all_six_parts(near: list[Shot]) -> None:
    found = calibrate_targetless(near, CAMERA, moved(TRUTH, OFF))
    check_found(found, TRUTH, 0.05, 0.4)
    assert found.trusted and not found.kept and found.compared == "reflectivity"
    assert found.after.edges > found.before.edges + 0.5
    assert found.after.information > found.wrong.information
    assert found.held_out[1].edges > found.held_out[0].edges
    assert np.linalg.eigvalsh(found.covariance)[0] > 0
    plain = json.loads(json.dumps(found.to_dict()))
    assert np.allclose(plain["lidar_to_camera"], found.transform.matrix)
    assert plain["sigma"]["translation_m"] == found.sigma[:3].tolist()
    assert plain["score"]["after"]["edges"] == found.after.edges


def test_what_far_scenes_do_not_tell_stays_the_guess_s() -> None:
    """At 100 m, 10 cm sideways are a twentieth of a degree."""
    guess = moved(TRUTH, OFF)
    found = calibrate_targetless(shots(70, 130), CAMERA, guess)
    assert found.kept
    for axis in found.kept:
        index = "xyz".index(axis)
        assert found.transform.translation[index] == guess.translation[index]
        assert found.sigma[index] == pytest.approx(0.1)
    assert not found.trusted and any("translation" in doubt for doubt in found.doubts)
    assert any("that of the guess" in remark for remark in found.remarks)
    error = off(found.transform, TRUTH)[3:]
    assert (np.abs(error) < 3 * np.degrees(found.sigma[3:])).all() and np.abs(error).max() < 0.4


@pytest.mark.slow
def test_a_ruler_s_place_with_a_small_sigma_is_trusted_in_far_scenes() -> None:
    guess = moved(TRUTH, OFF * [0.1, 0.1, 0.1, 1, 1, 1])
    found = calibrate_targetless(shots(70, 130), CAMERA, guess, guess_sigma(0.01, 1.5))
    assert found.kept == ("x", "y", "z") and found.trusted, found.doubts
    check_found(found, TRUTH, 0.02, 0.4)


@pytest.mark.slow
def test_clouds_without_reflectivity_are_compared_by_range(near: list[Shot]) -> None:
    for bare in ([(g, c[:, :3]) for g, c in near], [(g, c * [1, 1, 1, 0]) for g, c in near]):
        found = calibrate_targetless(bare, CAMERA, moved(TRUTH, OFF))
        assert found.compared == "range"
        check_found(found, TRUTH, 0.08, 0.5)


@pytest.mark.slow
def test_pictures_of_other_scenes_are_not_trusted(near: list[Shot]) -> None:
    rng = np.random.default_rng(0)
    blank = [np.full(near[0][0].shape, 90, np.uint8)] * len(near)
    noise = [rng.integers(0, 256, near[0][0].shape, np.uint8) for _ in near]
    others = [near[(i + 3) % len(near)][0] for i in range(len(near))]
    for pictures in (blank, noise, others):
        pairs = [(gray, cloud) for gray, (_, cloud) in zip(pictures, near, strict=True)]
        found = calibrate_targetless(pairs, CAMERA, moved(TRUTH, OFF))
        assert not found.trusted and "edges fit nowhere" in found.doubts[0], found.doubts


@pytest.mark.slow
def test_a_guess_that_is_much_further_off_than_said_is_not_trusted(near: list[Shot]) -> None:
    guess = moved(TRUTH, np.array([0, 0, 0, 0, np.radians(14), 0]))
    assert not calibrate_targetless(near, CAMERA, guess).trusted


def test_too_little_is_refused(near: list[Shot]) -> None:
    with pytest.raises(CalibrationError, match="3 frames .* 4 are needed"):
        calibrate_targetless(near[:3], CAMERA, TRUTH)
    for bare in (np.zeros((0, 4)), np.full((50, 4), np.nan), np.zeros((50, 4)), near[0][1][:60]):
        with pytest.raises(CalibrationError, match="300 are needed"):
            calibrate_targetless([(gray, bare) for gray, _ in near], CAMERA, TRUTH)


@pytest.mark.slow
def test_order_of_points_and_what_is_no_return_change_little(near: list[Shot]) -> None:
    rng = np.random.default_rng(1)
    hostile = np.full((40, 4), np.nan)
    hostile[::2] = 0
    mixed = [(g, rng.permutation(np.concatenate([c, hostile]))) for g, c in near]
    error = off(calibrate_targetless(mixed, CAMERA, moved(TRUTH, OFF)).transform, TRUTH)
    assert np.linalg.norm(error[:3]) < 0.05 and np.linalg.norm(error[3:]) < 0.4


def test_scores_are_highest_at_the_truth(near: list[Shot]) -> None:
    clues = Clues(near, CAMERA, TRUTH)
    own = clues.sums(np.zeros(6))
    for axis, away in enumerate([0.15, 0.15, 0.3, *np.radians([1.0, 1.0, 2.0])]):
        for sign in (1, -1):
            other = clues.sums(sign * away * np.eye(6)[axis])
            assert edge_score(other.edges) < edge_score(own.edges)
            assert information(other.counts) < information(own.counts)
    half = np.arange(clues.blocks) % 2 == 0
    parts = []
    for keep in (half, ~half):
        clues.keep(keep)
        parts.append(clues.sums(np.zeros(6)))
    assert np.allclose(parts[0].edges + parts[1].edges, own.edges)
    assert np.allclose(parts[0].counts + parts[1].counts, own.counts)


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=4), st.integers(2, 6))
def test_information_of_what_is_independent_is_none(weights: list[float], bins: int) -> None:
    rows = np.resize(weights, bins)
    alone = np.outer(rows, rows[::-1])
    assert information(alone) == pytest.approx(0, abs=1e-9)
    assert information(np.stack([alone, 2 * alone])) == pytest.approx(0, abs=1e-9)
    assert information(np.eye(bins)) == pytest.approx(np.log(bins))


@pytest.mark.slow
def test_a_simulated_street(street: Recording) -> None:
    assert street.rig is not None
    truth, camera = street.rig.between("lidar", "rgb"), street.rig.sensors["rgb"].camera
    assert camera is not None
    found = calibrate_targetless(frames_of(street), camera, moved(truth, OFF))
    check_found(found, truth, 0.15, 0.5)
    assert all("known to" in doubt for doubt in found.doubts), found.doubts


def test_the_command_on_a_recording(
    street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guess, out, told = tmp_path / "guess.yaml", tmp_path / "rig.yaml", tmp_path / "found.json"
    assert street.rig is not None
    truth, own = street.rig.between("lidar", "rgb"), street.rig.sensors["lidar"]
    pose = Pose(moved(truth, OFF))
    sensors = {**street.rig.sensors, "lidar": replace(own, pose=pose, extrinsics=None)}
    save_rig(replace(street.rig, sensors=sensors), guess)
    line = ["calibrate", "extrinsics", "--targetless", "--guess", str(guess), "--out", str(out)]
    more = ["--overlays", str(tmp_path / "drawn"), "--report", str(tmp_path / "page.html")]
    data = ["--data", f"folder:{street.root}", "--camera", "rgb"]
    status = main([*line, *data, *more, f"--json={told}"])
    said = json.loads(told.read_text())
    # So few small pictures may leave the translation open: either way it is said, and acted upon.
    assert status == (0 if said["trusted"] else 3) and out.exists() == said["trusted"]
    assert said["trusted"] or all("known to" in doubt for doubt in said["doubts"]), said["doubts"]
    assert said["camera"] == "rgb" and said["sensor"] == "lidar" and said["frames"] == 12
    error = off(RigidTransform.from_matrix(said["lidar_to_camera"]), truth)
    sigma = [*said["sigma"]["translation_m"], *said["sigma"]["rotation_deg"]]
    assert (np.abs(error) < 3 * np.array(sigma)).all() and np.abs(error[3:]).max() < 0.5, error
    assert len(list((tmp_path / "drawn").iterdir())) == 12
    assert "of scenes without a board" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    for words, problem in (
        ([*line[:3], "--out", str(out), *data], "--guess: is missing"),
        ([*line, *data, "--board", "chessboard:5x7:0.1"], "--board: goes with a board"),
        ([*line, "--data", data[1]], "which of"),
        ([*line, *data[:2], "--camera", "nose"], "'nose' is not one sensor"),
        ([*line, *data, "--cloud", "rgb"], "'rgb' is not one sensor"),
        ([*line, *data, "--camera-info", "x.yaml"], "--camera-info"),
        ([*line], "one --camera DIR and one --cloud DIR are needed"),
        ([*line, *data, "--guess-m", "9"], "at most 0.5"),
        ([*line, *data, "--limit", "2"], "2 frames with a picture"),
        (["calibrate", "extrinsics", "--out", str(out)], "--camera: is missing"),
        (["calibrate", "extrinsics", "--out", str(out), "--camera", "x"], "--board: is missing"),
        ([*line[:2], *line[3:], *data], "--guess: goes with --targetless only"),
    ):  # fmt: skip
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and problem in err, err


def test_the_command_on_folders(
    near: list[Shot], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, clouds, out = tmp_path / "a", tmp_path / "b", tmp_path / "rig.yaml"
    pictures.mkdir()
    clouds.mkdir()
    for index, (gray, cloud) in enumerate(near):
        write_image(pictures / f"{index}.png", gray)
        np.save(clouds / f"{index}.npy", cloud.astype(np.float32))
    write_image(pictures / "99.png", near[0][0])
    pose = Pose(moved(TRUTH, OFF))
    sensors = {"eye": SensorCalibration(CAMERA, kind="rgb"), "lidar": SensorCalibration(pose=pose)}
    sensors["ear"] = SensorCalibration(kind="lidar", pose=Pose(TRUTH))
    save_rig(Rig(sensors), tmp_path / "guess.yaml")
    line = ["calibrate", "extrinsics", "--targetless", f"--guess={tmp_path / 'guess.yaml'}"]
    line += [f"--camera=eye={pictures}", f"--cloud={clouds}", f"--out={out}"]
    told = tmp_path / "found.json"
    assert main([*line, f"--json={told}"]) == 0
    said = json.loads(told.read_text())
    assert said["left_out"] == {"99": "no cloud of this name"} and said["frames"] == 6
    found = RigidTransform.from_matrix(said["lidar_to_camera"])
    error = off(found, TRUTH)
    assert np.linalg.norm(error[:3]) < 0.05 and np.linalg.norm(error[3:]) < 0.4
    rig = load_rig(out)
    assert set(rig.sensors) == {"eye", "lidar", "ear"}, "the others stay"
    assert np.allclose(rig.between("lidar", "eye").matrix, found.matrix)
    placed = rig.sensors["lidar"].pose
    assert placed is not None and placed.covariance is not None
    assert np.allclose(np.sqrt(np.diag(placed.covariance))[:3], said["sigma"]["translation_m"])
    out.unlink()
    for index in range(len(near)):  # not of this scene
        write_image(pictures / f"{index}.png", near[(index + 3) % len(near)][0])
    page = tmp_path / "page.html"
    assert main([*line, f"--json={told}", f"--report={page}"]) == 3
    said = json.loads(told.read_text())
    assert not said["trusted"] and said["rig"] is None and not out.exists()
    assert "not to be trusted" in page.read_text()
    assert "not to be trusted" in capsys.readouterr().out
    write_image(pictures / "0.png", near[0][0][:100])
    assert main(line) == 2
    assert "320x100 pixels, its intrinsics are for 320x160" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_drive(real_data: Path) -> None:
    """KITTI's own calibration is found again, from guesses that were drawn beforehand."""
    recording = open_recording("kitti", real_data / "kitti_0005")
    assert recording.rig is not None
    truth, camera = recording.rig.between("lidar", "rgb"), recording.rig.sensors["rgb"].camera
    assert camera is not None
    frames = frames_of(recording, 3)
    for seed in range(3):
        rng = np.random.default_rng(seed + 200)
        away = [*rng.uniform(-0.1, 0.1, 3), *np.radians(rng.uniform(-2, 2, 3))]
        found = calibrate_targetless(frames, camera, moved(truth, np.array(away)))
        error = off(found.transform, truth)
        if found.trusted:
            assert np.linalg.norm(error[:3]) < 0.1 and np.linalg.norm(error[3:]) < 0.5, error
        assert (np.abs(error) < 4 * found.sigma * [1, 1, 1, *[180 / np.pi] * 3]).all(), error

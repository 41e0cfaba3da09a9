"""A LiDAR found by a camera whose truth is known, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_scenes import picture_of
from lidar_scenes import (
    BOARD,
    CAMERA,
    PLATE,
    TRUTH,
    board_view,
    cloud_of,
    middles,
    vector_of,
    write_clouds,
)

from calibration.boards import parse_board
from calibration.detection import Detections, detect
from calibration.extrinsics import Extrinsics, calibrate_lidar
from calibration.joint import board_pose
from calibration.plates import Plate, find_plates, parse_plate
from calibration.scans import Scan, cloud_files
from perception.errors import AnySenseError, CalibrationError, ConfigError
from perception.geometry.transforms import RigidTransform

POSES = middles(8, seed=4)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return cloud_files(write_clouds(tmp_path_factory.mktemp("clouds"), POSES))


def detections(poses: list[RigidTransform] = POSES) -> Detections:
    rng = np.random.default_rng(2)
    return Detections(tuple(board_view(p, f"{i:02}.png", rng) for i, p in enumerate(poses)))


def off(found: RigidTransform, truth: RigidTransform = TRUTH) -> tuple[float, float]:
    """Metres and degrees."""
    turn = cv2.Rodrigues(found.rotation @ truth.rotation.T)[0]
    move = np.linalg.norm(found.translation - truth.translation)
    return float(move), float(np.degrees(np.linalg.norm(turn)))


def calibrate(clouds: dict[str, Path], **change) -> Extrinsics:
    given = {
        "detections": detections(),
        "clouds": clouds,
        "camera": CAMERA,
        "board": BOARD,
        "plate": PLATE,
    }
    return calibrate_lidar(**{**given, **change})


def test_the_lidar_is_found_without_a_guess(clouds: dict[str, Path]) -> None:
    found = calibrate(clouds)
    metres, degrees = off(found.joint.transform)
    assert metres < 0.01 and degrees < 0.3, (metres, degrees)
    assert found.trusted and len(found.pairs) == 8 and not found.left_out
    assert found.rms_px < 2 and found.held_out_px < 3
    move = found.joint.transform.translation - TRUTH.translation
    assert (np.abs(move) < 4 * found.sigma[:3]).all(), move / found.sigma[:3]
    plain = found.to_dict()
    assert np.allclose(plain["lidar_to_camera"], found.joint.transform.matrix)
    assert len(plain["sigma"]["translation_m"]) == 3 and plain["rms_px"] == found.rms_px


@pytest.mark.parametrize("yaw", [0, 90, 180, 237])
def test_a_plate_is_found_on_any_side_of_the_sensor(yaw: float) -> None:
    """Also where azimuths wrap around."""
    points = cloud_of(POSES[0], np.random.default_rng(0)).astype(float)
    turn = cv2.Rodrigues(np.array([0, 0, np.radians(yaw)]))[0]
    best = find_plates(points @ turn.T, PLATE)[0]
    own = TRUTH.inverse() @ POSES[0]
    assert np.linalg.norm(best.center - turn @ own.translation) < 0.02
    assert best.normal @ turn @ own.rotation[:, 2] > np.cos(np.radians(1.5))


def test_a_scan_knows_its_steps_and_lines() -> None:
    scan = Scan(cloud_of(POSES[0], np.random.default_rng(0)).astype(float))
    assert np.degrees(scan.step) == pytest.approx(0.2, rel=0.1)
    assert np.degrees(scan.spacing) == pytest.approx(2.0, rel=0.1)


def test_a_board_that_moved_between_picture_and_cloud_is_left_out(
    clouds: dict[str, Path],
) -> None:
    poses = list(POSES)
    poses[3] = RigidTransform(poses[3].rotation, poses[3].translation + [0.07, 0.02, 0.03])
    found = calibrate(clouds, detections=detections(poses))
    assert list(found.left_out) == ["03"] and "off" in found.left_out["03"], found.left_out
    assert off(found.joint.transform)[0] < 0.015


def test_pictures_or_clouds_alone_are_left_out_with_the_reason(clouds: dict[str, Path]) -> None:
    views = detections().views
    some = Detections(views[:-1], {"90.png": "no board found"})
    found = calibrate({**clouds, "91": clouds["00"]}, detections=some)
    assert found.left_out["07"] == found.left_out["91"] == "no picture of this name"
    assert found.left_out["90"] == "no board found"


def _mirrored(found: Detections) -> Detections:
    """As a mirrored picture of a chessboard is read: in the order of the mirror image."""
    views = []
    for view in found.views:
        pixels = view.pixels.copy()
        pixels[:, 0] = CAMERA.width - 1 - pixels[:, 0]
        rows = pixels.reshape(BOARD.rows, BOARD.columns, 2)[:, ::-1].reshape(-1, 2)
        views.append(replace(view, pixels=rows))
    return Detections(tuple(views))


def _renamed(found: Detections, shift: int) -> Detections:
    count = len(found.views)
    return Detections(
        tuple(replace(v, name=f"{(i + shift) % count:02}.png") for i, v in enumerate(found.views))
    )


def _blurred(found: Detections) -> Detections:
    return Detections(tuple(replace(view, edge_px=12.0) for view in found.views))


def _flat() -> list[RigidTransform]:
    one = middles(1, tilt=0.0)[0].rotation
    return [RigidTransform(one, pose.translation) for pose in POSES]


@pytest.mark.parametrize(
    ("change", "problem", "again"),
    [
        ({"board": parse_board("chessboard:5x7:0.08")}, "times as far", "0.09"),
        ({"board": parse_board("chessboard:5x7:0.05")}, "times as far", "would fit"),
        ({"detections": _mirrored(detections())}, "mirror", "record"),
        ({"detections": Detections(detections().views[:3])}, "3 usable poses", "record"),
        ({"detections": _blurred(detections())}, "0 usable poses.*blurred", "sharp"),
        ({"detections": detections(_flat())}, "under one angle", "tilt"),
        ({"detections": _renamed(detections(), 3)}, "poses agree", "same pose"),
        ({"detections": _renamed(detections(), 1)}, "clouds fit the pictures 1 ", "same time"),
        ({"plate": Plate(1.4, 1.5)}, "found in 0 of 8", "size right"),
        ({"plate": Plate(0.85, 0.61)}, "more than", "0.61x0.85 would do"),
        ({"camera": replace(CAMERA, width=1280, height=960)}, "640x480", "one size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_with_what_to_record(
    clouds: dict[str, Path], change: dict, problem: str, again: str
) -> None:
    with pytest.raises(AnySenseError, match=problem) as caught:
        calibrate(clouds, **change)
    assert again in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_do_not_fit_are_refused(clouds: dict[str, Path]) -> None:
    others = {f"cloud_{stem}": path for stem, path in clouds.items()}
    with pytest.raises(CalibrationError, match="same name.*'00'.*'cloud_00'"):
        calibrate(others)


def test_clouds_in_millimetres_are_refused(clouds: dict[str, Path], tmp_path: Path) -> None:
    for stem, path in clouds.items():
        np.save(tmp_path / f"{stem}.npy", np.load(path) * 1000)
    with pytest.raises(CalibrationError, match="are these millimetres"):
        calibrate(cloud_files(tmp_path))


def test_a_cloud_that_cannot_be_read_is_left_out(clouds: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "02.pcd").write_bytes(b"no cloud")
    found = calibrate({**clouds, "02": tmp_path / "02.pcd"})
    assert "PCD" in found.left_out["02"]


@pytest.mark.parametrize(
    "text", ["", "0.61", "0.61x", "axb", "0x1", "nanx1", "-1x2", "1x2x3", "610x850"]
)
def test_a_plate_of_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        parse_plate(text)


ODD = parse_board("chessboard:5x6:0.095")
"""Looks different upside down."""


def views_off(offset: tuple[float, float]) -> Detections:
    """The board on the plate of `POSES`, its pattern off the middle."""
    rng, views = np.random.default_rng(2), []
    for index, pose in enumerate(POSES):
        move = pose.rotation @ np.array([*offset, 0.0])
        at = RigidTransform(pose.rotation, pose.translation + move)
        views.append(board_view(at, f"{index:02}.png", rng, ODD))
    return Detections(tuple(views))


def test_a_pattern_beside_the_middle_of_its_plate(clouds: dict[str, Path]) -> None:
    seen = views_off((0.02, -0.05))
    found = calibrate(clouds, detections=seen, board=ODD, plate=Plate(0.61, 0.85, (0.02, -0.05)))
    metres, degrees = off(found.joint.transform)
    assert metres < 0.01 and degrees < 0.3, (metres, degrees)
    assert found.trusted, found.doubts
    blind = calibrate(clouds, detections=seen, board=ODD)
    assert blind.held_out_px > 2 * found.held_out_px, "without the offset poses do not agree"


def test_an_offset_of_the_wrong_sign_is_told(clouds: dict[str, Path]) -> None:
    plate = Plate(0.61, 0.85, (-0.02, 0.05))
    found = calibrate(clouds, detections=views_off((0.02, -0.05)), board=ODD, plate=plate)
    assert not found.trusted and "--plate-offset 0.02x-0.05?" in found.doubts[-1], found.doubts


def test_an_offset_that_cannot_be_is_refused(clouds: dict[str, Path]) -> None:
    assert parse_plate("0.61x0.85", "0.02x-0.05") == Plate(0.61, 0.85, (0.02, -0.05))
    for text in ("0.1", "x", "nanx0", "0.4x0", "0x-0.43", "infx0", "1x2x3"):
        with pytest.raises(ConfigError, match="XxY"):
            parse_plate("0.61x0.85", text)
    with pytest.raises(ConfigError, match="looks the same upside down"):
        Plate(0.61, 0.85, (0.02, 0)).check(BOARD)
    with pytest.raises(ConfigError, match="reaches beyond"):
        Plate(0.61, 0.85, (0.1, 0)).check(ODD)
    Plate(0.61, 0.85, (0.02, 0)).check(ODD)


def test_which_boards_look_the_same_upside_down() -> None:
    """As the finder numbers them: the same ones turn with the board, the others are numbered from above."""
    for text in ("chessboard:5x6:0.08", "chessboard:6x5:0.08", "chessboard:5x7:0.08"):
        board, poses = parse_board(text), []
        for roll in (20, 110, 200, 290):
            turn = cv2.Rodrigues(np.array([0, 0, np.radians(roll)]))[0]
            image = picture_of(board, CAMERA, vector_of(RigidTransform(turn, [0, 0, 1.8]), board))
            view = detect(image, board)
            assert view is not None
            found = board_pose(CAMERA, view, board)
            assert found is not None
            poses.append(float((turn.T @ found.pose.rotation)[0, 0]))
        assert board.one_way == (max(poses) - min(poses) < 0.1), (text, poses)

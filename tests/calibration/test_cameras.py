"""Cameras placed by another one, with known truth, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_scenes import pose_at, view_of

from calibration.boards import parse_board
from calibration.cameras import CameraPlace, calibrate_cameras
from calibration.detection import BoardView, Detections, detect_folder
from calibration.intrinsics import calibrate
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

BOARD = parse_board("chessboard:7x5:0.05")
MODELS = {
    "front": CameraModel(640, 480, 520.0, 525.0, 322.0, 236.0),
    "warm": CameraModel(320, 256, 300.0, 301.0, 158.0, 129.0),
}
TRUTH = RigidTransform(cv2.Rodrigues(np.radians([1.0, -3.0, 2.0]))[0], np.array([0.12, 0.01, 0.02]))
"""From warm to front."""


def views(
    count: int, seed: int = 0, moved: int | None = None, tilt: float = 35.0
) -> dict[str, Detections]:
    rng = np.random.default_rng(seed)
    found: dict[str, list[BoardView]] = {"front": [], "warm": []}
    while len(found["front"]) < count:
        pose = pose_at(BOARD, rng, MODELS["front"], tilt)
        turn = cv2.Rodrigues(pose[:3])[0]
        index = len(found["front"])
        at = pose[3:] + (0.08 if index == moved else 0.0)
        other = TRUTH.inverse() @ RigidTransform(turn, at)
        vector = np.concatenate([cv2.Rodrigues(other.rotation)[0].ravel(), other.translation])
        name = f"{index:02}.png"
        both = [
            view_of(BOARD, MODELS[n], p, 0.1, rng, name)
            for n, p in (("front", pose), ("warm", vector))
        ]
        if both[0] is not None and both[1] is not None:
            found["front"].append(both[0])
            found["warm"].append(both[1])
    return {name: Detections(tuple(own)) for name, own in found.items()}


def _turned(found: Detections) -> Detections:
    """Every second board is numbered from its other end."""
    own = [replace(v, ids=34 - v.ids) if i % 2 else v for i, v in enumerate(found.views)]
    return Detections(tuple(own))


@pytest.mark.parametrize("turned", [False, True])
def test_a_camera_is_placed(turned: bool) -> None:
    seen = views(10)
    if turned:
        seen["warm"] = _turned(seen["warm"])
    found = calibrate_cameras(seen, MODELS, BOARD)
    place = found.places["warm"]
    off = np.concatenate(
        [
            place.transform.translation - TRUTH.translation,
            cv2.Rodrigues(place.transform.rotation @ TRUTH.rotation.T)[0].ravel(),
        ]
    )
    assert found.trusted and place.poses == 10 and place.rms_px < 0.2
    assert (np.abs(off) < 4 * place.sigma).all(), off / place.sigma
    assert np.linalg.norm(off[:3]) < 0.005


def test_two_sigma_hold_the_truth_as_often_as_they_say() -> None:
    inside, ratios = [], []
    for seed in range(25):
        place = calibrate_cameras(views(6, seed), MODELS, BOARD).places["warm"]
        turn = cv2.Rodrigues(place.transform.rotation @ TRUTH.rotation.T)[0].ravel()
        off = np.concatenate([place.transform.translation - TRUTH.translation, turn])
        inside.append(np.abs(off) < 2 * place.sigma)
        ratios.append(off / place.sigma)
    assert 0.88 <= np.mean(inside) <= 1.0 and 1 / 1.5 < np.std(ratios) < 1.5


def test_a_board_that_moved_between_pictures_is_left_out() -> None:
    found = calibrate_cameras(views(10, moved=4), MODELS, BOARD)
    assert list(found.left_out["warm"]) == ["04"], found.left_out
    assert np.linalg.norm(found.places["warm"].transform.translation - TRUTH.translation) < 0.005


def _renamed(found: Detections) -> Detections:
    own = found.views
    return Detections(
        tuple(replace(v, name=own[(i + 3) % len(own)].name) for i, v in enumerate(own))
    )


def test_what_does_not_fit_is_refused() -> None:
    seen = views(8)
    with pytest.raises(CalibrationError, match="poses agree.*same pose"):
        calibrate_cameras({**seen, "warm": _renamed(seen["warm"])}, MODELS, BOARD)
    with pytest.raises(CalibrationError, match="share 3 poses"):
        calibrate_cameras({**seen, "warm": Detections(seen["warm"].views[:3])}, MODELS, BOARD)
    with pytest.raises(CalibrationError, match="one angle"):
        calibrate_cameras(views(6, tilt=1.0), MODELS, BOARD)
    with pytest.raises(CalibrationError, match="one size"):
        models = {**MODELS, "warm": replace(MODELS["warm"], width=640)}
        calibrate_cameras(seen, models, BOARD)


@pytest.mark.realdata
def test_three_real_cameras_agree_within_their_sigma(real_data: Path) -> None:
    """A heated board that a colour and two thermal cameras saw: the way round them leads back."""
    board = parse_board("chessboard:9x6:0.04")
    folders = {"color": "13020556_resized", "left": "5003", "right": "5270"}
    seen = {
        name: detect_folder(real_data / "thermal_calibration" / folder, board)
        for name, folder in folders.items()
    }
    assert [len(seen[name].views) for name in folders] == [6, 8, 8]
    lenses = {name: calibrate(own, board) for name, own in seen.items()}
    models = {name: own.camera for name, own in lenses.items()}
    for own in lenses.values():
        assert own.fit.sigma[0] < 0.02 * own.fit.values[0] and own.fit.rms_px < 0.4

    def place(first: str, other: str) -> CameraPlace:
        pair = {name: seen[name] for name in (first, other)}
        found = calibrate_cameras(pair, {name: models[name] for name in pair}, board)
        assert found.trusted and max(found.rms_px, found.places[other].rms_px) < 1.0
        return found.places[other]

    left, right, beside = place("color", "left"), place("color", "right"), place("left", "right")
    round_trip = right.transform.inverse() @ left.transform @ beside.transform
    sigma = np.sqrt(left.sigma**2 + right.sigma**2 + beside.sigma**2)
    turn = cv2.Rodrigues(round_trip.rotation)[0].ravel()
    assert np.linalg.norm(round_trip.translation) < 3 * np.linalg.norm(sigma[:3]) < 0.06
    assert np.linalg.norm(turn) < 3 * np.linalg.norm(sigma[3:])

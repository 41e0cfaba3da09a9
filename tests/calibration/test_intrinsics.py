"""Cameras found from boards whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from board_scenes import CAMERA, views_of

from calibration.boards import parse_board
from calibration.detection import Detections
from calibration.fitting import fit
from calibration.intrinsics import calibrate
from calibration.parameters import FORMS, form_of
from perception.errors import CalibrationError, ConfigError
from perception.geometry.camera import CameraModel

BOARD = parse_board("chessboard:7x5:0.05")
LENSES = {
    "pinhole": CameraModel(640, 480, 520.0, 525.0, 322.0, 236.0),
    "plumb_bob": CAMERA,
    "equidistant": CameraModel(
        640, 480, 330, 331, 318, 242, "equidistant", (0.02, -0.01, 0.003, 0.0)
    ),
    "omni": CameraModel(640, 480, 700, 702, 318, 242, "omni", (1.1, -0.1, 0.02, 0.0005, -0.0005)),
}


def _off(camera: CameraModel, truth: CameraModel) -> float:
    """Largest difference in pixels over directions that all but the picture's rim sees."""
    grid = np.stack(np.meshgrid(np.linspace(120, 520, 9), np.linspace(90, 390, 7)), -1).reshape(
        -1, 2
    )
    rays = truth.unproject(grid, 1.0)
    pixels, valid = camera.project(rays)
    assert valid.all()
    return float(np.hypot(*(pixels - grid).T).max())


@pytest.mark.parametrize("name", LENSES)
def test_a_camera_is_found_again(name: str) -> None:
    views = views_of(BOARD, LENSES[name], 12, noise=0.05, seed=3)
    found = fit(form_of(name), views, BOARD)
    assert found.rms_px == pytest.approx(0.05 * np.sqrt(2), rel=0.25)
    off = found.values - np.array(
        [getattr(LENSES[name], key) for key in ("fx", "fy", "cx", "cy")]
        + list(LENSES[name].distortion)
    )
    assert (np.abs(off) < 5 * found.sigma + 1e-6).all(), off / found.sigma
    assert _off(found.camera, LENSES[name]) < 2.0  # the rim that no view reached is extrapolated


def test_two_sigma_hold_the_truth_as_often_as_they_say() -> None:
    """100 cameras; 95 % are expected, of 400 parameters that hang together somewhat."""
    names, inside, ratios = ("fx", "fy", "cx", "cy"), [], []
    for seed in range(100):
        views = views_of(BOARD, LENSES["pinhole"], 6, noise=0.1, seed=seed)
        start = fit(FORMS["pinhole"], views, BOARD) if seed == 0 else None
        found = start or fit(FORMS["pinhole"], views, BOARD)
        truth = np.array([getattr(LENSES["pinhole"], name) for name in names])
        inside.append(np.abs(found.values - truth) < 2 * found.sigma)
        ratios.append((found.values - truth) / found.sigma)
    assert 0.90 <= np.mean(inside) <= 0.99
    assert 1 / 1.5 < np.std(ratios) < 1.5


@pytest.mark.slow
def test_the_simplest_model_that_predicts_is_chosen() -> None:
    views = views_of(BOARD, CAMERA, 10, noise=0.05, seed=1)
    found = calibrate(Detections(tuple(views)), BOARD)
    assert found.fit.form.name in ("plumb_bob", "equidistant", "omni", "rational")
    assert "pinhole" not in found.held_out_px, "one that does not even fit is not asked to predict"
    plain = views_of(BOARD, LENSES["pinhole"], 10, noise=0.05, seed=1)
    assert calibrate(Detections(tuple(plain)), BOARD).fit.form.name == "pinhole"


def test_a_view_that_does_not_fit_is_left_out_with_the_reason() -> None:
    views = views_of(BOARD, CAMERA, 12, noise=0.05, seed=2)
    rng = np.random.default_rng(0)
    bent = replace(views[4], name="bent.png", pixels=views[4].pixels + rng.normal(0, 6, (35, 2)))
    twin = replace(views[5], name="twin.png", pixels=views[5].pixels + 0.2)
    found = calibrate(
        Detections((*views, bent, twin), {"dark.png": "no board found"}), BOARD, "plumb_bob"
    )
    assert "px off" in found.left_out["bent.png"]
    assert "same pose as 005.png" in found.left_out["twin.png"]
    assert found.left_out["dark.png"] == "no board found"
    assert _off(found.camera, CAMERA) < 1.0


def test_single_blunders_hardly_move_the_camera() -> None:
    views = views_of(BOARD, CAMERA, 12, noise=0.05, seed=2)
    pixels = views[0].pixels.copy()
    pixels[3] += 25
    found = fit(FORMS["plumb_bob"], [replace(views[0], pixels=pixels), *views[1:]], BOARD)
    clean = fit(FORMS["plumb_bob"], views, BOARD)
    assert np.abs((found.values - clean.values) / clean.sigma).max() < 1


@pytest.mark.parametrize(
    ("views", "problem"),
    [
        (views_of(BOARD, CAMERA, 3), "3 usable views"),
        (views_of(BOARD, CAMERA, 8, tilt=2.0), "tilt the board"),
    ],
)
def test_what_holds_no_camera_is_refused_with_what_to_record(views: list, problem: str) -> None:
    with pytest.raises(CalibrationError, match=problem):
        calibrate(Detections(tuple(views)), BOARD, "plumb_bob")


def test_pictures_of_two_sizes_are_refused_with_the_odd_one() -> None:
    views = views_of(BOARD, CAMERA, 6)
    views[2] = replace(views[2], size=(320, 240), name="small.png")
    with pytest.raises(CalibrationError, match=r"small.png is 320x240"):
        calibrate(Detections(tuple(views)), BOARD)


def test_few_views_in_one_corner_are_remarked_upon() -> None:
    views = views_of(BOARD, CAMERA, 60, seed=5)
    corner = [view for view in views if view.pixels.mean(axis=0)[0] < 230][:6]
    found = calibrate(Detections(tuple(corner)), BOARD, "pinhole")
    text = " ".join(found.remarks)
    assert "views" in text and "of the picture saw the board" in text and "right" in text
    assert not found.trusted and found.to_dict()["remarks"] == list(found.remarks)


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="equidistant"):
        form_of("equidistnt")

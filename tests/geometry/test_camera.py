"""Camera models against OpenCV, and their inverses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel

MODELS = [
    ("none", ()),
    ("plumb_bob", (-0.2, 0.05, 0.001, -0.002, 0.01)),
    ("rational_polynomial", (0.1, -0.05, 0.001, 0.001, 0.01, 0.2, 0.01, 0.001)),
    ("equidistant", (0.01, -0.02, 0.003, 0.001)),
]


def _camera(model: str, d: tuple[float, ...]) -> CameraModel:
    return CameraModel(640, 480, 500, 510, 320, 240, model, d)


def _points(seed: int, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 30, count)
    return np.column_stack([rng.uniform(-0.6, 0.6, (count, 2)) * z[:, None], z])


@pytest.mark.parametrize(("model", "d"), MODELS)
def test_projection_agrees_with_opencv(model: str, d: tuple[float, ...]) -> None:
    camera, points = _camera(model, d), _points(0)
    zero = np.zeros(3)
    if model == "equidistant":
        wanted, _ = cv2.fisheye.projectPoints(
            points[:, None], zero, zero, camera.matrix, np.array(d)
        )
    else:
        wanted, _ = cv2.projectPoints(points, zero, zero, camera.matrix, np.array(d or (0.0,) * 5))
    uv, valid = camera.project(points)
    assert valid.all()
    assert np.allclose(uv, wanted[:, 0], atol=1e-9)


@pytest.mark.parametrize(("model", "d"), MODELS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_unprojecting_undoes_projecting(model: str, d: tuple[float, ...], seed: int) -> None:
    camera, points = _camera(model, d), _points(seed, 50)
    uv, _ = camera.project(points)
    assert np.allclose(camera.unproject(uv, points[:, 2]), points, rtol=1e-6, atol=1e-6)


def test_points_behind_and_beyond_the_fold_are_invalid() -> None:
    camera = _camera("plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    # r (1 - 0.3 r^2) rises up to r = 1 / sqrt(0.9) = 1.054 and folds back beyond.
    _, valid = camera.project(np.array([[0, 0, -1.0], [1.0, 0, 1], [1.2, 0, 1], [0, 0, 0]]))
    assert valid.tolist() == [False, True, False, False]


def test_a_scaled_camera_sees_the_same_through_pixel_edges() -> None:
    camera = _camera("plumb_bob", MODELS[1][1])
    half = camera.scaled(0.5, 0.25)
    points = _points(1)
    uv, small = camera.project(points)[0], half.project(points)[0]
    assert (half.width, half.height) == (320, 120)
    assert np.allclose((uv + 0.5) * [0.5, 0.25], small + 0.5)


def test_camera_info_fields_in_either_case() -> None:
    k = [500, 0, 320, 0, 510, 240, 0, 0, 1]
    info = {
        "width": 640,
        "height": 480,
        "K": k,
        "D": [0.1, 0, 0, 0, 0],
        "distortion_model": "plumb_bob",
    }
    camera = CameraModel.from_camera_info(info)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 320, 240)
    assert CameraModel.from_dict(camera.to_dict()) == camera


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 0},
        {"fx": 0.0},
        {"fy": 0.0},
        {"fx": -500.0},
        {"fy": -500.0},
        {"fx": float("nan")},
        {"fy": float("inf")},
        {"cx": float("nan")},
        {"cy": float("-inf")},
        {"distortion_model": "magic", "distortion": (0.1,)},
        {"distortion_model": "plumb_bob", "distortion": (0.1, float("nan"), 0, 0)},
        {"distortion_model": "plumb_bob", "distortion": (-1.01e6, 0, 0, 0)},
        {"distortion_model": "plumb_bob", "distortion": (0.1, 0.2)},
        {"distortion_model": "rational_polynomial", "distortion": (0.1,) * 12},
    ],
)
def test_impossible_cameras_are_refused(fields: dict) -> None:
    good = {"width": 640, "height": 480, "fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0}
    with pytest.raises(CalibrationError):
        CameraModel(**{**good, **fields})


def test_coefficients_up_to_a_million_are_taken() -> None:
    for value in (1e6, -1e6):
        camera = CameraModel(640, 480, 500, 500, 320, 240, "equidistant", (value, 0, 0, 0))
        assert camera.distortion[0] == value


@given(
    st.dictionaries(
        st.sampled_from(["width", "height", "k", "d", "p"]),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=3), st.lists(st.floats(), max_size=12)
        ),
        max_size=5,
    )
)
def test_any_camera_info_gives_a_camera_or_a_calibration_error(info: dict) -> None:
    try:
        CameraModel.from_camera_info(info)
    except CalibrationError as error:
        assert "\n" not in str(error)


SENSOR = {
    "width": 640,
    "height": 480,
    "k": [500, 0, 319.5, 0, 510, 239.5, 0, 0, 1],
    "p": [480, 0, 321.5, 0, 0, 490, 238.5, 0, 0, 0, 1, 0],
    "d": [-0.1, 0.02, 0.001, 0.002, 0.0],
    "distortion_model": "plumb_bob",
}


def _roi(x: int, y: int, width: int, height: int) -> dict:
    return {"x_offset": x, "y_offset": y, "width": width, "height": height}


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("binning", "roi"),
    [
        ((2, 2), (0, 0, 0, 0)),
        ((1, 3), (0, 0, 640, 480)),
        ((0, 0), (160, 120, 320, 240)),
        ((2, 4), (17, 30, 100, 200)),
        ((3, 3), (0, 0, 0, 0)),
        ((2, 2), (639, 479, 1, 1)),
    ],
)
def test_binning_and_region_of_interest(
    binning: tuple[int, int], roi: tuple[int, int, int, int], rectified: bool
) -> None:
    info = {**SENSOR, "binning_x": binning[0], "binning_y": binning[1], "roi": _roi(*roi)}
    nx, ny = (max(1, n) for n in binning)
    width, height = roi[2] or 640, roi[3] or 480
    if not (width // nx and height // ny):
        with pytest.raises(CalibrationError, match="0x0"):
            CameraModel.from_camera_info(info, rectified=rectified)
        return
    part = CameraModel.from_camera_info(info, rectified=rectified)
    full = CameraModel.from_camera_info(SENSOR, rectified=rectified)
    assert (part.width, part.height) == (width // nx, height // ny)
    points = _points(2)
    uv, small = full.project(points)[0], part.project(points)[0]
    # A pixel of the part covers nx x ny of the sensor's, from its edge on.
    assert np.allclose((uv + 0.5 - roi[:2]) / [nx, ny], small + 0.5, atol=1e-9)


def test_without_binning_and_roi_nothing_changes() -> None:
    plain = CameraModel.from_camera_info(SENSOR)
    for binning in (0, 1):
        for roi in (_roi(0, 0, 0, 0), _roi(0, 0, 640, 480), None):
            info = {**SENSOR, "binning_x": binning, "binning_y": binning, "roi": roi}
            assert CameraModel.choices_of_camera_info(info) == (plain,)


def test_an_image_of_the_calibrated_size_is_one_of_the_full_sensor() -> None:
    info = {**SENSOR, "binning_x": 2, "binning_y": 2}
    half, full = CameraModel.choices_of_camera_info(info)
    assert (half.width, half.height, half.fx) == (320, 240, 250)
    assert full == CameraModel.from_camera_info(SENSOR)
    # Calibrated for just this window: its offset on the sensor says nothing.
    info = {**SENSOR, "roi": _roi(100, 50, 640, 480)}
    assert CameraModel.choices_of_camera_info(info) == (full,)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"roi": _roi(400, 0, 320, 240)}, "320x240 at 400, 0"),
        ({"roi": _roi(0, 0, 641, 480)}, "641x480"),
        ({"roi": _roi(5, 5, 0, 0)}, "0x0"),
        ({"roi": _roi(2**32 - 1, 0, 2, 2)}, "outside"),
        ({"roi": 7}, "roi"),
        ({"roi": {"width": "wide"}}, "roi"),
        ({"binning_x": 641}, "0x480"),
        ({"binning_y": 2**32 - 1}, "640x0"),
        ({"binning_x": "two"}, "binning"),
        ({"width": 70000, "height": 70000}, "70000x70000"),
        ({"width": 2**32 - 1, "height": 1}, "limit"),
        ({"k": [0] * 9}, "uncalibrated"),
    ],
)
def test_camera_info_that_cannot_be(fields: dict, word: str) -> None:
    with pytest.raises(CalibrationError, match=word):
        CameraModel.from_camera_info({**SENSOR, **fields})


@given(
    st.integers(0, 5), st.integers(0, 5), *(st.integers(0, 700) for _ in range(4)), st.booleans()
)
def test_any_binning_and_roi_gives_models_inside_the_sensor_or_a_calibration_error(
    bx: int, by: int, x: int, y: int, width: int, height: int, rectified: bool
) -> None:
    info = {**SENSOR, "binning_x": bx, "binning_y": by, "roi": _roi(x, y, width, height)}
    try:
        choices = CameraModel.choices_of_camera_info(info, rectified=rectified)
    except CalibrationError as error:
        assert len(str(error).splitlines()) == 1
        return
    sizes = [(c.width, c.height) for c in choices]
    assert len(set(sizes)) == len(sizes)
    assert all(1 <= w <= 640 and 1 <= h <= 480 for w, h in sizes)


def test_a_scaled_image_keeps_a_pixel_and_factors_must_be_positive() -> None:
    tiny = CameraModel(40, 20, 30, 30, 19.5, 9.5).scaled(0.01, 0.001)
    assert (tiny.width, tiny.height) == (1, 1)
    for sx, sy in ((0, 1), (1, 0), (-1, 1), (1, np.nan), (np.inf, 1)):
        with pytest.raises(CalibrationError, match="cannot scale"):
            tiny.scaled(sx, sy)

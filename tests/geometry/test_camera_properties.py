"""Properties of any camera: OpenCV's projection, where it folds back, and what is seen by a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from perception.errors import CalibrationError, InputError
from perception.geometry.camera import DISTORTION_LENGTHS, CameraModel

K = (640, 480, 500.0, 510.0, 320.0, 240.0)
# The denominator falls to 0 at the square root of a half: near a pole the image grows without end.
POLE = CameraModel(*K, "rational_polynomial", (0.1, 0, 0.001, 0, 0, -2, 0, 0))


def _coefficients(least: float, most: float, count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[st.floats(least, most).map(lambda v: round(v, 4))] * count)


@st.composite
def cameras(draw: st.DrawFn, tangential: float = 0.004) -> CameraModel:
    """Lenses from weak to far beyond what is built."""
    model = draw(
        st.sampled_from(["none", "plumb_bob", "rational_polynomial", "equidistant", "omni"])
    )
    if model == "omni":
        (xi,) = draw(_coefficients(0, 3, 1))
        tangents = _coefficients(-tangential, tangential, 2)
        return CameraModel(*K, model, (xi, *draw(_coefficients(-0.5, 0.5, 2)), *draw(tangents)))
    if model == "none":
        return CameraModel(*K)
    if model == "equidistant":
        return CameraModel(*K, model, draw(_coefficients(-0.1, 0.1, 4)))
    k1, k2 = draw(_coefficients(-0.5, 0.5, 2))
    p1, p2 = draw(_coefficients(-tangential, tangential, 2))
    if model == "plumb_bob" and draw(st.booleans()):
        return CameraModel(*K, model, (k1, k2, p1, p2))
    (k3,) = draw(_coefficients(-0.2, 0.2, 1))
    below = draw(_coefficients(-0.3, 0.3, 3)) if model == "rational_polynomial" else ()
    return CameraModel(*K, model, (k1, k2, p1, p2, k3, *below))


def _opencv(camera: CameraModel, points: np.ndarray) -> np.ndarray:
    zero, points = np.zeros(3), points[:, None].astype(np.float64)
    if camera.distortion_model == "equidistant":
        d = np.array(camera.distortion)
        return cv2.fisheye.projectPoints(points, zero, zero, camera.matrix, d)[0][:, 0]
    if camera.distortion_model == "omni":  # OpenCV has it in its contributed modules only
        flat = points / (np.linalg.norm(points, axis=2, keepdims=True))
        flat = flat + np.array([0, 0, camera.distortion[0]])
        d = np.array(camera.distortion[1:])
        return cv2.projectPoints(flat, zero, zero, camera.matrix, d)[0][:, 0]
    d = np.array(camera.distortion or (0.0,) * 4)
    return cv2.projectPoints(points, zero, zero, camera.matrix, d)[0][:, 0]


def _directions(camera: CameraModel, seed: int, share: float, count: int = 60) -> np.ndarray:
    """Points up to a share of the largest tangent, at any distance."""
    rng = np.random.default_rng(seed)
    radius = min(camera.max_tangent, 3.0) * share * np.sqrt(rng.uniform(0, 1, count))
    angle, depth = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.1, 50, count)
    flat = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.ones(count)])
    return flat * depth[:, None]


@given(cameras(), st.integers(0, 2**32 - 1))
def test_any_lens_projects_as_opencv_does(camera: CameraModel, seed: int) -> None:
    points = _directions(camera, seed, 0.99)
    uv, valid = camera.project(points)
    assert valid.all()
    np.testing.assert_allclose(uv, _opencv(camera, points), rtol=1e-9, atol=1e-7)


@settings(max_examples=200)
@given(cameras(), st.integers(0, 2**32 - 1))
@example(POLE, 0)
def test_what_any_lens_projects_comes_back(camera: CameraModel, seed: int) -> None:
    points = _directions(camera, seed, 0.8)
    # Where the image hardly grows with the angle, a pixel does not say the angle exactly.
    radius = np.linspace(0, min(camera.max_tangent, 3.0) * 0.85, 200)
    row = np.column_stack([radius, 0 * radius, 1 + 0 * radius])
    growth = np.diff(_opencv(camera, row)[:, 0]) / np.diff(radius) / camera.fx
    assume(growth.min() > 0.05)
    uv, _ = camera.project(points)
    np.testing.assert_allclose(camera.unproject(uv, points[:, 2]), points, rtol=1e-9, atol=1e-9)


@settings(max_examples=50)
@given(cameras(tangential=0.05), st.sampled_from([1.0, 4.0]))
def test_a_pixel_sees_a_direction_that_lands_on_it_or_none(
    camera: CameraModel, spread: float
) -> None:
    u, v = np.meshgrid(np.linspace(-0.5, 639.5, 12), np.linspace(-0.5, 479.5, 9))
    uv = (np.column_stack([u.ravel(), v.ravel()]) - [320, 240]) * spread + [320, 240]
    rays = camera.unproject(uv, 1.0)
    seen = np.isfinite(rays).all(axis=1)
    assert np.isnan(rays[~seen]).all()
    assert (rays[seen, 2] == 1).all()
    again, valid = camera.project(rays[seen])
    assert valid.all()
    np.testing.assert_allclose(again, uv[seen], atol=1e-4)


def _radii(camera: CameraModel, tangents: np.ndarray) -> np.ndarray:
    """Where OpenCV draws directions of these tangents, without tangential distortion."""
    d = list(camera.distortion)
    if camera.distortion_model in ("plumb_bob", "rational_polynomial"):
        d[2:4] = 0, 0
    if camera.distortion_model == "omni":
        d[3:5] = 0, 0
    plain = CameraModel(640, 480, 1, 1, 0, 0, camera.distortion_model, tuple(d))
    ones = np.ones_like(tangents)
    return _opencv(plain, np.column_stack([tangents, 0 * ones, ones]))[:, 0]


@settings(max_examples=200)
@given(cameras())
@example(POLE)
@example(CameraModel(*K, "equidistant", (0.0, 0.0, 0.0, -0.05)))
@example(CameraModel(*K, "plumb_bob", (0.0, 0.0, 0.0, 0.0, -0.1)))
def test_the_largest_tangent_is_where_the_image_stops_to_grow(camera: CameraModel) -> None:
    most = camera.max_tangent
    assert most > 0
    inside = np.linspace(0, min(most, 1e3), 4001)[:-1]
    radii = _radii(camera, inside)
    assert (np.diff(radii) > 0).all()
    if most < 1e3:
        around = most * np.array([1 - 1e-3, 1 + 1e-3, 1 + 2e-3])
        before, after, later = _radii(camera, around)
        # A root that numerator and denominator share is no pole.
        d = (*(camera.distortion if camera.distortion_model != "omni" else ()), *(0.0,) * 8)
        above, below = (np.polyval([*k[::-1], 1], most**2) for k in ((d[0], d[1], d[4]), d[5:8]))
        assume(abs(above) > 1e-3 or abs(below) > 1e-3)
        # Past a fold the image shrinks, past a pole it comes back from the other side.
        assert later < after or after < before
    edge = np.array([[min(most, 1e3) * 0.999, 0, 1], [0, most * 1.001, 1]])
    assert camera.project(edge)[1].tolist() == [True, False]


def test_beyond_the_rim_there_is_nothing() -> None:
    # r (1 - 0.3 r^2) is largest, 0.7027, at r = 1.054.
    fold = CameraModel(640, 480, 1000, 1000, 0, 0, "plumb_bob", (-0.3, 0, 0, 0, 0))
    rays = fold.unproject([[702.0, 0], [0, -702.0], [704.0, 0], [0, 800], [3000, 0]], 2.0)
    assert np.isfinite(rays[:2]).all() and np.isnan(rays[2:]).all()
    # r (1 - r^2) is largest, 0.3849, at r = 0.577.
    fold = CameraModel(640, 480, 1000, 1000, 0, 0, "plumb_bob", (-1, 0, 0, 0, 0))
    assert fold.unproject([[384.8, 0]], 1.0)[0, 0] == pytest.approx(0.577, abs=0.01)
    assert np.isnan(fold.unproject([[385.0, 0], [0, 700]], 1.0)).all()
    # A fisheye without distortion has straight to the side at pi/2; before the camera it is less.
    fisheye = CameraModel(640, 480, 1, 1, 0, 0, "equidistant", (0, 0, 0, 0))
    rays = fisheye.unproject([[np.pi / 2, 0], [1.57, 0], [0, 1.58], [0, 0]], 1.0)
    assert np.isnan(rays[[0, 2]]).all()
    assert rays[1, 0] == pytest.approx(np.tan(1.57), rel=1e-9)
    assert rays[3].tolist() == [0, 0, 1]


@pytest.mark.parametrize("d", [(0, 0, 0, -0.05), (0.1, -0.1, 0.02, -0.02), (-0.2, 0, 0, 0)])
def test_a_fisheye_is_exact_up_to_its_rim(d: tuple[float, ...]) -> None:
    camera = CameraModel(*K, "equidistant", d)
    share = 1 - np.logspace(-5, 0, 400)
    radius = np.tan(share * np.arctan(camera.max_tangent))
    points = np.column_stack([radius * 0.6, radius * -0.8, np.ones(400)])
    uv, valid = camera.project(points)
    assert valid.all()
    again, valid = camera.project(camera.unproject(uv, 1.0))
    assert valid.all()
    np.testing.assert_allclose(again, uv, rtol=0, atol=1e-9)


def test_the_matrix_projects_undistorted_points() -> None:
    camera, points = CameraModel(*K), _directions(CameraModel(*K), 3, 0.5)
    homogeneous = points @ camera.matrix.T
    np.testing.assert_allclose(camera.project(points)[0], homogeneous[:, :2] / homogeneous[:, 2:])


def test_points_must_lie_before_the_camera_and_be_finite() -> None:
    for camera in (CameraModel(*K), CameraModel(*K, "equidistant", (0.01, 0, 0, 0))):
        points = np.array(
            [[0, 0, 1e-3], [0, 0, 0], [0, 0, -1], [np.nan, 0, 1], [0, np.inf, 1], [0, 0, np.nan]]
        )
        assert camera.project(points)[1].tolist() == [True, *[False] * 5]


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(N, 3\)"):
        CameraModel(*K).project(np.ones(shape))


@pytest.mark.parametrize(
    ("pixels", "depths"), [((2, 3), (2,)), ((2,), (2,)), ((2, 2), (3,)), ((2, 2), (2, 1))]
)
def test_pixels_and_depths_that_do_not_fit_are_refused(
    pixels: tuple[int, ...], depths: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="expected"):
        CameraModel(*K).unproject(np.ones(pixels), np.ones(depths))


def test_one_depth_serves_all_pixels() -> None:
    camera, uv = CameraModel(*K), np.array([[320.0, 240.0], [820.0, 750.0]])
    assert camera.unproject(uv, 3.0).tolist() == [[0, 0, 3], [3, 3, 3]]
    assert camera.unproject(uv, [3.0, 2.0]).tolist() == [[0, 0, 3], [2, 2, 2]]


@given(st.sampled_from(sorted(DISTORTION_LENGTHS)), st.integers(0, 15))
def test_a_model_has_as_many_coefficients_as_ros_says(model: str, count: int) -> None:
    """Those beyond the eighth, of thin prisms and tilt, must be 0."""
    allowed = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
    allowed["omni"] = (5,)
    d = tuple([0.01] * min(count, 8) + [0.0] * max(0, count - 8))
    if count in allowed.get(model, (0,)):
        assert CameraModel(*K, model, d).distortion == d
        return
    if count == 0 and model != "equidistant":  # no coefficients are no distortion
        assert CameraModel(*K, model, d).distortion_model == "none"
        return
    with pytest.raises(CalibrationError, match="coefficients"):
        CameraModel(*K, model, d)


@given(cameras())
def test_a_camera_is_the_same_after_writing(camera: CameraModel) -> None:
    fields = camera.to_dict()
    assert CameraModel.from_dict(fields) == camera
    assert CameraModel.from_dict({k: v for k, v in fields.items() if v not in ("", [])}) == camera


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"focal": 3}, "unknown field 'focal'"),
        ({"width": None}, "lacks or garbles"),
        ({"width": 640.5}, "no whole number"),
        ({"intrinsics": [1, 2, 3]}, "lacks or garbles"),
        ({"distortion": ["x"]}, "lacks or garbles"),
        ({"distortion_model": "magic"}, "unknown distortion model 'magic'"),
    ],
)
def test_fields_that_cannot_be_are_named(change: dict, word: str) -> None:
    fields = {**CameraModel(*K).to_dict(), **change}
    with pytest.raises(CalibrationError, match=word):
        CameraModel.from_dict(fields)
    for name in ("width", "height", "intrinsics"):
        with pytest.raises(CalibrationError, match=name):
            CameraModel.from_dict({k: v for k, v in CameraModel(*K).to_dict().items() if k != name})


@given(st.lists(st.floats(-3, 3), min_size=9, max_size=9), st.booleans())
def test_camera_info_gives_the_entries_of_its_matrix(entries: list[float], rectified: bool) -> None:
    fx, cx, fy, cy = (abs(v) + 0.1 for v in entries[:4])
    k = [fx, 0, cx, 0, fy, cy, 0, 0, 1]
    p = [fx + 1, 0, cx + 1, 0, 0, fy + 1, cy + 1, 0, 0, 0, 1, 0]
    info = {"width": 4, "height": 3, "k": k, "p": p, "d": [0.1] * 5}
    info["distortion_model"] = "plumb_bob"
    camera = CameraModel.from_camera_info(info, rectified=rectified)
    shift = 1 if rectified else 0
    wanted = (fx + shift, fy + shift, cx + shift, cy + shift)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == wanted
    assert camera.distortion == (() if rectified else (0.1,) * 5)
    name = "p" if rectified else "k"
    for wrong in (info[name][:-1], [*info[name], 0.0]):
        with pytest.raises(CalibrationError, match=f"matrix has {len(wrong)} entries"):
            CameraModel.from_camera_info({**info, name: wrong}, rectified=rectified)


def test_skew_is_refused() -> None:
    info = {"width": 4, "height": 3, "k": [5, 0.1, 2, 0, 5, 1, 0, 0, 1]}
    with pytest.raises(CalibrationError, match="skew 0.1"):
        CameraModel.from_camera_info(info)

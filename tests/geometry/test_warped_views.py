"""Pictures of one camera on the grid of another, against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.grid import ViewSpec
from perception.geometry.sights import Sight
from perception.geometry.transforms import RigidTransform
from perception.geometry.views import View, bound

SPEC = ViewSpec(height=96, width=128)
REFERENCE = Sight(CameraModel(128, 96, 110.0, 112.0, 63.0, 48.5))
LARGE = ViewSpec(height=480, width=640)

angles = st.floats(-0.15, 0.15)
shifts = st.floats(-0.3, 0.3)
lenses = st.sampled_from(
    [
        ("none", ()),
        ("plumb_bob", (-0.1, 0.02, 0.001, -0.001, 0.0)),
        ("equidistant", (0.01, 0, 0, 0)),
    ]
)


@st.composite
def sights(draw: st.DrawFn, *, still: bool = False) -> Sight:
    """Cameras that look about where the reference does."""
    width, height = draw(st.integers(80, 400)), draw(st.integers(60, 300))
    focal = width * draw(st.floats(0.7, 1.3))
    model, distortion = draw(lenses)
    camera = CameraModel(
        width, height, focal, focal * 1.02, width / 2 - 3, height / 2 + 2, model, distortion
    )
    turn = cv2.Rodrigues(np.array([draw(angles) for _ in range(3)]))[0]
    at = np.zeros(3) if still else np.array([draw(shifts) for _ in range(3)])
    return Sight(camera, RigidTransform(turn, at))


def ramp(sight: Sight) -> NDArray[np.float32]:
    """(H, W, 2) each pixel's own coordinates, which mixing four of them gives exactly."""
    height, width = sight.size
    v, u = np.mgrid[:height, :width].astype(np.float32)
    return np.dstack([u, v])


def expected(view: View, z: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """(H, W, 2) where the source sees what the reference's pixels show at a distance, by points alone."""
    height, width = view.grid.grid
    v, u = np.mgrid[:height, :width].astype(np.float64)
    sx, sy = view.grid.scale
    pixels = np.column_stack([((u + 0.5) / sx - 0.5).ravel(), ((v + 0.5) / sy - 0.5).ravel()])
    depth = np.broadcast_to(z, u.shape).ravel()
    points = view.lattice.reference.camera.unproject(pixels, depth)
    found, valid = view.source.camera.project(view.to_source.apply(points))
    return np.where(valid[:, None], found, np.nan).reshape(height, width, 2)


def warped(view: View, near: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    picture = ramp(view.source)
    layers = [
        view.to_grid(np.ascontiguousarray(picture[..., i]), fill=np.nan, near=near) for i in (0, 1)
    ]
    return np.dstack(layers).astype(np.float64)


def compared(
    got: NDArray[np.float64],
    wanted: NDArray[np.float64],
    view: View,
    within: float,
    whole: bool = True,
) -> None:
    """Where there is a value, it is the right one; and there is one where the source sees."""
    height, width = view.source.size
    known = np.isfinite(got).all(axis=2)
    assert np.isfinite(wanted[known]).all()
    # A picture that is far finer than the grid is averaged first: its outermost pixels are mixed.
    margin = 2 * max(1.0, view._finer)
    u, v = wanted[..., 0], wanted[..., 1]
    with np.errstate(invalid="ignore"):
        inner = (u > margin) & (v > margin) & (u < width - 1 - margin) & (v < height - 1 - margin)
    assert np.abs(got - wanted)[known & inner].max(initial=0) <= within
    assert known[inner].all() or not whole
    outside = ~((u > -1) & (v > -1) & (u < width) & (v < height))
    assert not known[outside].any()


@given(sights(still=True))
def test_a_rotation_is_its_homography(source: Sight) -> None:
    view = SPEC.bind(source, REFERENCE)
    compared(warped(view), expected(view, 1.0), view, 0.1 * max(1.0, view._finer))
    assert view.parallax == 0


@given(sights(), st.floats(1.0, 30.0))
def test_a_plane_that_faces_the_reference_is_exact(source: Sight, distance: float) -> None:
    view = SPEC.bind(source, REFERENCE, distance)
    compared(warped(view), expected(view, distance), view, 0.1 * max(1.0, view._finer))


@given(sights(), st.floats(2.0, 10.0), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_depth_puts_a_slanted_plane_where_it_is(
    source: Sight, distance: float, a: float, b: float
) -> None:
    """z = distance + a x + b y, by a depth picture in the reference's own pixels."""
    view = SPEC.bind(source, REFERENCE)
    v, u = np.mgrid[:96, :128].astype(np.float64)
    rays = REFERENCE.camera.unproject(np.column_stack([u.ravel(), v.ravel()]), 1.0).reshape(
        96, 128, 3
    )
    z = distance / (1 - a * rays[..., 0] - b * rays[..., 1])
    near = view.lattice.inverse_depth(z.astype(np.float32), None)
    got, wanted = warped(view, near), expected(view, z)
    known = np.isfinite(got).all(axis=2)
    compared(got, wanted, view, 0.1 * max(1.0, view._finer), whole=False)
    assert known.mean() > 0.5 * np.isfinite(wanted).all(axis=2).mean() * min(1.0, view.overlap)


@settings(max_examples=30)
@given(shifts, shifts, st.floats(1.5, 8.0))
def test_depth_from_elsewhere_is_registered(x: float, y: float, distance: float) -> None:
    """A wall that faces the cameras: what each of them measures is known everywhere it looks."""
    depth = Sight(
        CameraModel(160, 120, 120, 120, 79.5, 59.5), RigidTransform(np.eye(3), np.array([x, y, 0]))
    )
    view = SPEC.bind(depth, REFERENCE)
    near = view.lattice.inverse_depth(np.full((120, 160), distance, np.float32), depth)
    on_grid = view.lattice.depth_of(near)
    assert on_grid.shape == (96, 128) and on_grid.dtype == np.float32
    seen = expected(view, distance)
    inner = (seen[..., 0] > 2) & (seen[..., 0] < 157) & (seen[..., 1] > 2) & (seen[..., 1] < 117)
    assert np.isfinite(on_grid[inner]).all()
    np.testing.assert_allclose(on_grid[np.isfinite(on_grid)], distance, rtol=1e-5)
    outside = ~(
        (seen[..., 0] > -3) & (seen[..., 0] < 162) & (seen[..., 1] > -3) & (seen[..., 1] < 122)
    )
    assert np.isnan(on_grid[outside]).all()


def test_depth_is_along_the_axis_of_the_reference() -> None:
    """The depth camera stands half a metre before the reference: a wall is as much further from that."""
    ahead = Sight(REFERENCE.camera, RigidTransform(np.eye(3), np.array([0, 0, 0.5])))
    lattice = SPEC.bind(ahead, REFERENCE).lattice
    found = lattice.depth_of(lattice.inverse_depth(np.full((96, 128), 2.0, np.float32), ahead))
    np.testing.assert_allclose(found[30:60, 40:80], 2.5, rtol=1e-6)


def test_what_something_nearer_hides_holds_no_value() -> None:
    """A pole one metre away before a wall at five; the sensor stands 20 cm to the right.

    The pole hides a strip of the wall that the reference sees left of... the pole's own place in the
    sensor's picture; its width is the difference of the disparities, 110 * 0.2 * (1 - 1/5) = 17.6 pixels.
    """
    right = Sight(REFERENCE.camera, RigidTransform(np.eye(3), np.array([0.2, 0, 0])))
    z = np.full((96, 128), 5.0, np.float32)
    z[:, 60:90] = 1.0
    view = SPEC.bind(right, REFERENCE)
    near = view.lattice.inverse_depth(z, None)
    picture = np.full((96, 128), 7.0, np.float32)
    got = view.to_grid(picture, fill=np.nan, near=near)
    rows = slice(10, 86)
    strip = np.isnan(
        got[rows, 42:59]
    )  # wall left of the pole, whose place in the picture the pole has
    assert strip[:, 3:].mean() > 0.95
    assert np.isfinite(got[rows, 61:89]).all()  # the pole itself
    assert np.isfinite(got[rows, 10:36]).all() and np.isfinite(got[rows, 96:120]).all()
    assert np.isfinite(
        view.to_grid(picture, fill=np.nan)[rows, 10:120]
    ).all()  # which no plane tells


def test_unknown_depth_is_the_plane_beside_nothing_and_the_background_beside_an_edge() -> None:
    left = Sight(REFERENCE.camera, RigidTransform(np.eye(3), np.array([-0.1, 0, 0])))
    z = np.full((96, 128), np.nan, np.float32)
    view = SPEC.bind(left, REFERENCE, 4.0)
    near = view.lattice.inverse_depth(z, None)
    compared(warped(view, near), expected(view, 4.0), view, 0.05)
    z[:, :64], z[:, 66:] = 2.0, 2.0  # a crack
    near = view.lattice.inverse_depth(z, None)
    compared(warped(view, near), expected(view, 2.0), view, 0.05)


@pytest.mark.parametrize("values", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_no_distance_is_no_depth(values: float) -> None:
    other = Sight(REFERENCE.camera, RigidTransform(np.eye(3), np.array([0.1, 0, 0])))
    lattice = SPEC.bind(other, REFERENCE).lattice
    for sight in (None, other):
        near = lattice.inverse_depth(np.full((96, 128), values, np.float32), sight)
        assert not near.any() and np.isnan(lattice.depth_of(near)).all()


def test_a_grid_that_is_coarse_inside_is_as_exact() -> None:
    """640x480: depth is looked at in every third pixel, maps are interpolated between."""
    reference = Sight(CameraModel(640, 480, 500, 500, 320, 240))
    source = Sight(
        CameraModel(640, 512, 520, 520, 310, 250),
        RigidTransform(np.eye(3), np.array([0.1, 0.02, 0])),
    )
    view = LARGE.bind(source, reference)
    assert view.lattice.step == 3
    u = np.broadcast_to(np.arange(640.0), (480, 640))
    z = 4 / (1 - 0.3 * (u - 320) / 500)
    near = view.lattice.inverse_depth(z.astype(np.float32), None)
    got, wanted = warped(view, near), expected(view, z)
    assert np.isfinite(got).all(axis=2).mean() > 0.8
    assert np.nanmax(np.abs(got - wanted)) < 0.15


def test_labels_are_not_mixed() -> None:
    view = SPEC.bind(Sight(REFERENCE.camera, _turned(0.05)), REFERENCE)
    labels = np.random.default_rng(0).choice(np.array([3, 200], np.uint8), (96, 128))
    assert set(np.unique(view.to_grid(labels, nearest=True, fill=255))) == {3, 200, 255}


def test_a_colour_picture_is_black_where_there_is_nothing() -> None:
    view = SPEC.bind(Sight(REFERENCE.camera, _turned(0.3)), REFERENCE)
    got = view.to_grid(np.full((96, 128, 3), 90, np.uint8))
    assert got.shape == (96, 128, 3) and set(np.unique(got)) >= {0, 90}


def test_padding_of_a_letterbox_holds_nothing() -> None:
    spec = ViewSpec(height=128, width=128, fit="letterbox")
    view = spec.bind(Sight(REFERENCE.camera, _turned(0.01)), REFERENCE)
    got = view.to_grid(np.ones((96, 128), np.float32), fill=np.nan)
    assert np.isnan(got[97:]).all() and np.isfinite(got[2:94, 3:124]).all()


def _turned(angle: float) -> RigidTransform:
    return RigidTransform(cv2.Rodrigues(np.array([0, angle, 0.0]))[0], np.zeros(3))


def test_a_view_is_kept_until_the_calibration_changes() -> None:
    one = SPEC.bind(Sight(REFERENCE.camera, _turned(0.05)), REFERENCE)
    same = SPEC.bind(Sight(REFERENCE.camera, _turned(0.05 + 1e-9)), Sight(REFERENCE.camera))
    assert same is one and SPEC.bind(Sight(REFERENCE.camera, _turned(0.051)), REFERENCE) is not one
    focal = Sight(CameraModel(128, 96, 111.0, 112.0, 63.0, 48.5), _turned(0.05))
    others = [
        SPEC.bind(focal, REFERENCE),
        SPEC.bind(Sight(REFERENCE.camera, _turned(0.05)), Sight(focal.camera)),
        SPEC.bind(Sight(REFERENCE.camera, _turned(0.05)), REFERENCE, 3.0),
        LARGE.bind(Sight(REFERENCE.camera, _turned(0.05)), REFERENCE),
    ]
    assert len({id(one), *map(id, others)}) == 5
    picture = ramp(one.source)[..., 0].copy()
    assert not np.array_equal(others[0].to_grid(picture), one.to_grid(picture))


def test_how_far_off_stretching_would_be() -> None:
    assert SPEC.bind(Sight(REFERENCE.camera), REFERENCE).off_px == pytest.approx(0, abs=1e-3)
    half = Sight(REFERENCE.camera.scaled(0.5, 0.5))
    assert SPEC.bind(half, REFERENCE).off_px == pytest.approx(0, abs=1e-3)
    moved = Sight(REFERENCE.camera, RigidTransform(np.eye(3), np.array([0.1, 0, 0])))
    assert SPEC.bind(moved, REFERENCE).off_px == pytest.approx(
        11.0, abs=0.01
    )  # 110 px * 0.1 m / 1 m
    assert SPEC.bind(Sight(REFERENCE.camera, _turned(2.0)), REFERENCE).off_px == np.inf
    assert not SPEC.bind(Sight(REFERENCE.camera, _turned(2.0)), REFERENCE).sees


@pytest.mark.parametrize("plane", [0.0, -1.0, np.nan])
def test_a_plane_that_is_none(plane: float) -> None:
    with pytest.raises(CalibrationError, match="a plane at"):
        bound(SPEC, REFERENCE, REFERENCE, plane)


def test_a_sample_whose_intrinsics_are_of_another_size_has_no_sight() -> None:
    picture = np.zeros((48, 64), np.float32)
    assert Sight.of(Sample("thermal", picture, camera=REFERENCE.camera)) is None
    assert Sight.of(Sample("thermal", picture)) is None


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-3.2, 3.2), st.floats(-200, 200))
def test_no_calibration_ends_in_anything_but_a_picture(seed: int, angle: float, far: float) -> None:
    """Cameras back to back, hundreds of metres apart, a few pixels large."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40, 2)
    camera = CameraModel(
        int(size[0]), int(size[1]), *rng.uniform(0.5, 500, 2), *rng.uniform(-50, 50, 2)
    )
    turn = cv2.Rodrigues(rng.uniform(-1, 1, 3) * angle)[0]
    source = Sight(camera, RigidTransform(turn, rng.uniform(-1, 1, 3) * far))
    view = SPEC.bind(source, REFERENCE, float(rng.choice([0.1, 5.0, np.inf])))
    depth = rng.uniform(-1, 5, (96, 128)).astype(np.float32)
    picture = rng.uniform(10, 20, source.size).astype(np.float32)
    for near in (
        None,
        view.lattice.inverse_depth(depth, None),
        view.lattice.inverse_depth(picture, source),
    ):
        got = view.to_grid(picture, fill=np.nan, near=near)
        assert got.shape == (96, 128)
        known = got[np.isfinite(got)]
        assert ((known >= 9.99) & (known <= 20.01)).all()
    assert 0 <= view.overlap <= 1 and view.off_px >= 0

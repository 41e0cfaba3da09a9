"""The ground from above, and boxes as edges in a camera's picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.geometry.boxes import corners_of
from perception.geometry.camera import CameraModel
from perception.viz.birdseye import ShownBoxes, draw_birdseye, size_for
from perception.viz.wireframes import NEAREST_M, cut, draw_boxes3d, segments_of

EXTENT = (-20.0, 40.0), (-30.0, 30.0)
RED = (255, 0, 0)


def _reds(image: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of what is red."""
    rows, columns = np.nonzero((image[..., 0] > 120) & (image[..., 1] < 60) & (image[..., 2] < 60))
    assert len(rows)
    return float(rows.mean()), float(columns.mean())


def _one(x: float, y: float, **own: Any) -> ShownBoxes:
    place = np.array([[x, y, 0.8]])
    return ShownBoxes(
        place, np.array([[4.0, 2.0, 1.6]]), np.zeros(1), np.zeros(1, int), [RED], **own
    )


def test_what_is_ahead_is_up_and_what_is_to_the_left_is_left() -> None:
    points = np.array([[30.05, 0.05, 1.0], [0.05, 20.05, 1.0], [np.nan, 0, 0], [1e30, 0, 0]])
    bare = draw_birdseye(None, None, EXTENT, (600, 600))
    image = draw_birdseye(points.astype(np.float32), None, EXTENT, (600, 600))
    changed = np.argwhere((image != bare).any(axis=2))
    assert {tuple(p) for p in changed.tolist()} == {(99, 299), (399, 99)}


def test_a_box_lies_where_it_is() -> None:
    row, column = _reds(draw_birdseye(None, _one(20, 10), EXTENT, (600, 600)))
    assert abs(row - 200) < 4
    assert abs(column - 200) < 2  # 10 m to the left of the middle, at 300


def test_the_line_of_a_box_leads_to_its_front() -> None:
    turned = ShownBoxes(
        np.array([[20.0, 0.0, 0.8]]),
        np.array([[8.0, 4.0, 1.6]]),
        np.array([np.pi / 2]),
        np.zeros(1, int),
        [RED],
    )
    image = draw_birdseye(None, turned, EXTENT, (600, 600))
    middle = image[199:202, 262:338, 0].max(axis=0) > 120  # the row through the middle
    left, right = middle[2:36], middle[42:74]
    assert left.mean() > 0.9  # to the left, where its front is
    assert right[:-4].mean() < 0.1


def test_a_score_fades_a_box_and_its_way_is_drawn_in_white() -> None:
    full, faint = (
        draw_birdseye(None, _one(20, 10, scores=np.array([s])), EXTENT, (600, 600))
        for s in (1.0, 0.0)
    )
    reds = [(image[..., 0].astype(int) - image[..., 1]).max() for image in (full, faint)]
    assert reds[0] > 2 * reds[1] > 100
    bare = draw_birdseye(None, _one(20, 10), EXTENT, (600, 600))
    going = draw_birdseye(None, _one(20, 10, velocity=np.array([[10.0, 0]])), EXTENT, (600, 600))
    rows = np.argwhere((going != bare).any(axis=2))[:, 0]
    assert abs(rows.min() - 100) < 4  # ten metres further
    unknown = draw_birdseye(
        None, _one(20, 10, velocity=np.full((1, 2), np.nan)), EXTENT, (600, 600)
    )
    assert (unknown == bare).all()


def test_boxes_of_no_class_are_gray_and_those_outside_are_not_drawn() -> None:
    gray = ShownBoxes(
        np.array([[20.0, 0, 0]]), np.ones((1, 3)) * 3, np.zeros(1), np.array([-1]), []
    )
    image = draw_birdseye(None, gray, EXTENT, (600, 600))
    bare = draw_birdseye(None, None, EXTENT, (600, 600))
    assert (image != bare).any()
    for far in (_one(1e5, 0), _one(np.nan, 0), _one(0, -1e5)):
        assert (draw_birdseye(None, far, EXTENT, (600, 600)) == bare).all()
    assert size_for(((0, 50), (-50, 50)), 400) == (200, 400)


CAMERA = CameraModel(640, 480, 500.0, 500.0, 319.5, 239.5)
FISHEYE = CameraModel(
    640, 480, 200.0, 200.0, 319.5, 239.5, "equidistant", (0.05, -0.01, 0.001, 0.0)
)
_OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])


def _corners(center: tuple[float, float, float], yaw: float = 0.0) -> np.ndarray:
    """Of a box of 4 x 2 x 1.5 m, in the optical frame of a camera that looks along x."""
    own = corners_of(np.array([center]), np.array([[4.0, 2.0, 1.5]]), np.array([yaw]))
    return own @ _OPTICAL.T


def test_edges_end_at_the_projected_corners() -> None:
    corners = _corners((12.0, 1.0, 0.0), 0.4)
    uv, _ = CAMERA.project(corners[0])
    segments = segments_of(corners[0], CAMERA)
    assert len(segments) == 13  # twelve edges and the line to the front
    ends = segments[:12].reshape(-1, 2)
    for corner in uv:
        assert (np.abs(ends - corner).max(axis=1) < 1e-6).sum() == 3
    image = draw_boxes3d(np.zeros((480, 640, 3), np.uint8), CAMERA, corners, [RED])
    rows, columns = np.nonzero(image[..., 0] > 100)
    assert np.abs([columns.min(), columns.max()] - uv[:, 0][[uv[:, 0].argmin(), uv[:, 0].argmax()]]
                  ).max() < 2  # fmt: skip
    assert abs(rows.min() - uv[:, 1].min()) < 2


def test_a_picture_of_half_the_size_shows_the_same() -> None:
    corners = _corners((12.0, 1.0, 0.0), 0.4)
    full = draw_boxes3d(np.zeros((480, 640, 3), np.uint8), CAMERA, corners, [RED])
    half = draw_boxes3d(np.zeros((240, 320, 3), np.uint8), CAMERA, corners, [RED])
    places = [np.argwhere(image[..., 0] > 60) for image in (full, half)]
    for bound in (np.min, np.max):
        one, two = (bound(found, axis=0) for found in places)
        assert np.abs(one / 2 - two).max() <= 1.5


def test_a_box_around_the_camera_is_cut_off_before_it() -> None:
    segments = segments_of(_corners((0.0, 0.0, 0.0))[0], CAMERA)
    assert len(segments) == 8 + 1  # four edges along x, four ahead; the line to the front
    image = draw_boxes3d(
        np.zeros((480, 640, 3), np.uint8), CAMERA, _corners((0.0, 0.0, 0.0)), [RED]
    )
    assert image.any()


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE])
def test_a_box_behind_the_camera_is_not_drawn(camera: CameraModel) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    assert not draw_boxes3d(image, camera, _corners((-9.0, 0.0, 0.0)), [RED]).any()
    nothing = np.full((1, 8, 3), np.nan)
    assert not draw_boxes3d(image, camera, nothing, [RED]).any()
    assert not draw_boxes3d(image, camera, np.zeros((0, 8, 3)), []).any()


def test_edges_bend_as_the_lens_does() -> None:
    corners = _corners((1.5, 2.5, 0.6))
    segments = segments_of(corners[0], FISHEYE)
    assert len(segments) > 13
    along = np.linspace(corners[0][0], corners[0][4], 100)  # one edge, a point at a time
    uv, valid = FISHEYE.project(along[along[:, 2] > NEAREST_M])
    for point in uv[valid]:
        assert min(_away(point, *ends) for ends in segments) < 0.7


def _away(point: np.ndarray, first: np.ndarray, last: np.ndarray) -> float:
    """From a point to a segment, in pixels."""
    way = last - first
    share = np.clip((point - first) @ way / max(way @ way, 1e-9), 0, 1)
    return float(np.linalg.norm(first + share * way - point))


numbers = st.floats(-1e7, 1e7, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5))
def test_what_is_cut_off_stays_on_its_line_and_in_the_picture(
    rows: list[tuple[float, float, float, float]],
) -> None:
    segments = np.array(rows).reshape(-1, 2, 2)
    found = cut(segments, 640, 480)
    assert (found >= -1.01).all()
    assert (found <= [640.01, 480.01]).all()
    for whole in segments:
        share = np.linspace(0, 1, 50)[:, None]
        places = whole[0] + share * (whole[1] - whole[0])
        if ((places > 0) & (places < [639, 479])).all(axis=1).any():
            assert len(found)

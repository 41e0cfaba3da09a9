"""Tables name the positions of a camera's feature map where it sees the cells of the ground grid."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.lifting import TABLE_STRIDE, centres_of, lift_of, places
from perception.geometry.transforms import RigidTransform

GROUND = {"x": (-12.8, 12.8), "y": (-6.4, 6.4), "cell_m": 0.4, "heights": (0.2, 1.4)}
AHEAD = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])
"""Of an optical frame that looks along x of the base frame."""


def looking(yaw: float, pitch: float, at: tuple[float, float, float]) -> RigidTransform:
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    c, s = np.cos(pitch), np.sin(pitch)
    nod = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return RigidTransform(turn @ nod @ AHEAD, np.array(at))


POSES = st.builds(
    looking,
    st.floats(-3.1, 3.1),
    st.floats(-0.5, 0.5),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.5, 2)),
)
CAMERAS = st.sampled_from(
    [
        CameraModel(128, 96, 90.0, 92.0, 63.0, 47.0),
        CameraModel(128, 96, 90.0, 90.0, 60.0, 50.0, "plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0)),
        CameraModel(160, 96, 60.0, 60.0, 80.0, 48.0, "equidistant", (0.05, -0.01, 0.002, 0.0)),
    ]
)


@given(CAMERAS, POSES, st.sampled_from(["stretch", "letterbox"]))
@settings(deadline=None, max_examples=60)
def test_a_table_agrees_with_the_projection(camera, pose, fit):
    view = ViewSpec(height=96, width=192, fit=fit, birdseye=GROUND)
    table = lift_of(view, camera, pose).table
    assert table.dtype == np.int32
    assert table.shape == (2, 64, 32)
    # The picture's own pixel, brought to the grid: another road than scaling the camera.
    uv, valid = camera.project(pose.inverse().apply(centres_of(view.birdseye)))
    inside = (
        valid & (uv > -0.5).all(axis=1) & (uv < [camera.width - 0.5, camera.height - 0.5]).all(1)
    )
    scale = GridMap.fit((camera.height, camera.width), view).scale
    position = (uv + 0.5) * scale / TABLE_STRIDE
    flat = table.ravel()
    edge = np.abs(position - np.round(position)).min(axis=1) < 1e-6
    edge |= (np.abs(uv + 0.5) < 1e-6).any(axis=1)
    edge |= (np.abs(uv + 0.5 - [camera.width, camera.height]) < 1e-6).any(axis=1)
    row, column = np.floor(position[:, 1]), np.floor(position[:, 0])
    wanted = np.where(inside, row * 48 + column, places(view))
    assert ((flat == wanted) | edge).all()
    assert places(view) == 24 * 48
    assert flat.max() <= places(view)


def test_cells_ahead_are_seen_and_those_behind_are_not():
    view = ViewSpec(height=96, width=128, birdseye=GROUND)
    camera = CameraModel(128, 96, 90.0, 90.0, 63.5, 47.5)
    table = lift_of(view, camera, looking(0, 0, (0, 0, 1.4))).table
    # 10.2 m ahead, and as high as the camera: in the middle of the picture.
    row, column = round((10.2 + 12.8) / 0.4 - 0.5), 16
    middle = table[1, row, column]
    assert divmod(int(middle), 32) == (12, 15)  # 0.2 m to the left of it
    assert (table[:, :16] == places(view)).all()
    lower = divmod(int(table[0, row, column]), 32)
    assert lower == (14, 15)


def test_the_same_calibration_gives_the_same_table_and_another_place_another():
    view = ViewSpec(height=96, width=128, birdseye=GROUND)
    camera = CameraModel(128, 96, 90.0, 90.0, 63.5, 47.5)
    first = lift_of(view, camera, looking(0, 0, (0, 0, 1.4)))
    assert lift_of(view, camera, looking(0, 0, (0, 0, 1.4))) is first
    assert (lift_of(view, camera, looking(0.3, 0, (0, 0, 1.4))).table != first.table).any()
    coarse = {**GROUND, "heights": (0.2, 1.0)}
    other = lift_of(
        ViewSpec(height=96, width=128, birdseye=coarse), camera, looking(0, 0, (0, 0, 1.4))
    )
    assert (other.table[0] == first.table[0]).all()
    assert (other.table[1] != first.table[1]).any()


@given(CAMERAS, POSES)
@settings(deadline=None, max_examples=40)
def test_rays_and_ranges_meet_on_the_ground(camera, pose):
    """A pixel that sees a cell of the ground says of it the distance that the cell says of itself."""
    flat = {**GROUND, "heights": (0.0,)}
    view = ViewSpec(height=camera.height, width=camera.width, birdseye=flat)
    lift = lift_of(view, camera, pose)
    down, across = view.height // TABLE_STRIDE, view.width // TABLE_STRIDE
    assert lift.ranges.shape == (64, 32) and lift.rays.shape == (3, down, across)
    assert lift.ranges.dtype == lift.rays.dtype == np.float32
    assert np.isfinite(lift.rays).all()
    seen = lift.table[0] < places(view)
    rise, reach = (x.ravel()[lift.table[0][seen]] for x in lift.rays[:2])
    own = lift.ranges[seen]
    # Half a position is what the middle of one may be off; how far that is on the ground, steepness says.
    wrong = np.abs(np.tan(np.arctan(rise)) - -pose.translation[2] / np.exp(own))
    assert (wrong < 0.12).all()
    steep = rise < -0.3
    assert (np.abs(reach - own)[steep] < 0.45).all()

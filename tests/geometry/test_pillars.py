"""Pillars hold what the points say, whatever order they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.geometry.grid import BirdseyeSpec
from perception.geometry.pillars import cells_of, fill_pillars, on_ground
from perception.geometry.transforms import RigidTransform

SPEC = BirdseyeSpec(x=(-16, 9.6), y=(0, 12.8), z=(-1, 3), cell_m=0.4)
FAR = BirdseyeSpec(
    x=(-102.4, 102.4), y=(-102.4, 102.4), cell_m=0.4
)  # more cells than two bytes hold
PLACES = st.floats(-20, 20, width=32)


def clouds(most: int = 60) -> st.SearchStrategy[np.ndarray]:
    count = st.integers(0, most)
    return count.flatmap(lambda n: arrays(np.float32, (n, 4), elements=PLACES)).map(
        lambda p: np.column_stack([p[:, :2], p[:, 2] / 8, np.abs(p[:, 3]) / 20]).astype(np.float32)
    )


def pillars_of(points, spec=SPEC, most=40, deep=5):
    pillars = np.full((most, deep, 8), np.nan, np.float32)
    cells = np.full(most, -7, np.int32)
    filled = fill_pillars(points, spec, pillars, cells)
    return pillars, cells, filled


def by_hand(points, spec):
    """Rows of points by cell, in plain Python."""
    found: dict[int, list[int]] = {}
    for k, (x, y, z, _) in enumerate(points):
        i = np.floor((x - np.float32(spec.x[0])) * np.float32(1 / spec.cell_m))
        j = np.floor((y - np.float32(spec.y[0])) * np.float32(1 / spec.cell_m))
        inside = 0 <= i < spec.shape[0] and 0 <= j < spec.shape[1]
        if inside and spec.z[0] <= z < spec.z[1]:
            found.setdefault(int(i) * spec.shape[1] + int(j), []).append(k)
    return found


@given(clouds(), st.integers(1, 50), st.integers(1, 8))
@settings(deadline=None)
def test_every_point_lands_where_its_coordinates_say(points, most, deep):
    pillars, cells, filled = pillars_of(points, SPEC, most, deep)
    wanted = by_hand(points, SPEC)
    order = sorted(wanted, key=lambda cell: (-len(wanted[cell]), cell))[:most]
    assert cells[:filled].tolist() == sorted(order)
    assert (cells[filled:] == SPEC.shape[0] * SPEC.shape[1]).all()
    assert not pillars[filled:].any()
    for pillar, cell in zip(pillars[:filled], cells[:filled], strict=True):
        rows = wanted[int(cell)]
        kept = [rows[k * len(rows) // deep] for k in range(deep)] if len(rows) > deep else rows
        there = pillar[: len(kept)]
        np.testing.assert_array_equal(there[:, :4], points[kept])
        row, column = divmod(int(cell), SPEC.shape[1])
        middle = [-16 + (row + 0.5) * 0.4, 0 + (column + 0.5) * 0.4]
        np.testing.assert_allclose(there[:, 4:6], points[kept, :2] - middle, atol=1e-5)
        np.testing.assert_allclose(there[:, 6], points[kept, 2] - points[kept, 2].mean(), atol=1e-5)
        assert (np.abs(there[:, 4:6]) <= 0.2 + 1e-5).all()
        assert (there[:, 7] == 1).all()
        assert not pillar[len(kept) :].any()


@given(clouds(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_same_bytes_give_the_same_bytes_and_another_order_the_same_cells(points, random):
    first, again = pillars_of(points), pillars_of(points.copy())
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    order = list(range(len(points)))
    random.shuffle(order)
    moved = pillars_of(points[order])
    np.testing.assert_array_equal(moved[1], first[1])
    np.testing.assert_array_equal(moved[0][..., 7], first[0][..., 7])


def test_a_grid_of_more_cells_than_two_bytes_hold_is_sorted_alike():
    rng = np.random.default_rng(0)
    points = rng.uniform((-110, -110, -2, 0), (110, 110, 5, 1), (4000, 4)).astype(np.float32)
    pillars, cells, filled = pillars_of(points, FAR, 5000, 3)
    wanted = by_hand(points, FAR)
    assert cells[:filled].tolist() == sorted(wanted)
    assert sum(len(v[:3]) for v in wanted.values()) == int(pillars[..., 7].sum())


def test_too_many_pillars_leave_those_with_the_most_points():
    at = {3: 1, 4: 4, 9: 2, 700: 2, 701: 3}
    points = [
        (-16 + (c // 32 + 0.5) * 0.4, (c % 32 + 0.5) * 0.4, 0, 0) for c in at for _ in range(at[c])
    ]
    _, cells, filled = pillars_of(np.array(points, np.float32), SPEC, 3)
    assert filled == 3
    assert cells.tolist() == [4, 9, 701]  # of 9 and 700, which have two each, the lower one


@given(clouds())
@settings(deadline=None)
def test_points_are_brought_to_the_base_frame(points):
    pose = RigidTransform.from_quaternion_xyzw((0, 0, np.sin(0.4), np.cos(0.4)), (1.0, -2.0, 0.5))
    found, cells = on_ground(points, pose, SPEC)
    again, inside = cells_of(found, SPEC)
    assert inside.all()
    np.testing.assert_array_equal(cells, again)
    known = np.full((40, 5, 8), np.nan, np.float32), np.full(40, -7, np.int32)
    fill_pillars(found, SPEC, *known, cells)
    for one, other in zip(known, pillars_of(found), strict=False):
        assert one.tobytes() == other.tobytes()
    base = pose.apply(points[:, :3])
    near = np.linalg.norm(points[:, :3], axis=1) < 0.01
    _, inside = cells_of(base.astype(np.float32), SPEC)
    assert abs(len(found) - int((inside & ~near).sum())) <= 2  # on an edge rounding decides
    if len(found) == int((inside & ~near).sum()):
        np.testing.assert_allclose(found[:, :3], base[inside & ~near], atol=1e-4)
        np.testing.assert_array_equal(found[:, 3], points[inside & ~near, 3].clip(0, 1))


def test_what_is_no_return_is_left_out():
    nan, inf = np.nan, np.inf
    rows = [
        (0, 0, 0, 1),
        (nan, 1, 1, 1),
        (inf, 1, 1, 1),
        (1, 1, 1, nan),
        (2, 1, 1, inf),
        (3, 1, 9, 1),
    ]
    found, _ = on_ground(np.array(rows, np.float32), RigidTransform.identity(), SPEC)
    assert found.tolist() == [[1, 1, 1, 0], [2, 1, 1, 1]]
    bare, _ = on_ground(np.array(rows, np.float32)[:, :3], RigidTransform.identity(), SPEC)
    assert bare.tolist() == [[1, 1, 1, 0], [2, 1, 1, 0]]


@pytest.mark.parametrize("count", [0, 1])
def test_few_points(count):
    points = np.full((count, 4), 1, np.float64)
    found, _ = on_ground(points, RigidTransform.identity(), SPEC)
    pillars, cells, filled = pillars_of(found)
    assert filled == count
    assert int(pillars[..., 7].sum()) == count
    assert (cells[count:] == 64 * 32).all()

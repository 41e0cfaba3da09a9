"""Boxes on the ground against the truth of a recording."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from found_boxes import Found

from perception.data.base import ClassInfo, RecordingInfo, Truth, TruthBoxes3d
from perception.geometry.grid import BirdseyeSpec
from perception.metrics.boxes3d import PlacedBoxes, nuscenes_score
from perception.tasks.boxes3d_meter import Boxes3dMeter
from perception.tasks.spec import ClassSpec

INFO = RecordingInfo(
    "folder",
    "street",
    {"lidar": "lidar"},
    det_classes=tuple(ClassInfo(i, n, (0, 0, 0)) for i, n in enumerate(("bus", "car", "person"))),
)
CLASSES = tuple(
    ClassSpec(id=i, name=n, color=(0, 0, 0)) for i, n in enumerate(("car", "bus", "tram"))
)
"""The bundle's: in another order, one that the recording lacks, and not all of its."""


def truth(*rows: tuple[int, float, float], **values: Any) -> Truth:
    """Boxes of 4 x 2 x 1.5 m by class, x and y."""
    ids = [kind for kind, *_ in rows]
    center = [[x, y, 0.8] for _, x, y in rows]
    size = [[4, 2, 1.5]] * len(rows)
    given: dict[str, Any] = {"velocity": [[1, 0]] * len(rows), **values}
    return Truth(boxes3d=TruthBoxes3d.of(center, size, [0.5] * len(rows), ids, **given))


def found(*rows: tuple[int, float, float, float], **values: Any) -> Found:
    """The same by class, x, y and score, in float32 as networks give them."""
    count = len(rows)
    table = np.array(rows, np.float32).reshape(-1, 4)
    boxes = Found(
        np.column_stack([table[:, 1:3], np.full(count, 0.8)]).astype(np.float32),
        np.tile(np.array([4, 2, 1.5], np.float32), (count, 1)),
        np.full(count, 0.5, np.float32),
        np.tile(np.array([1, 0], np.float32), (count, 1)),
        table[:, 3],
        table[:, 0].astype(np.int64),
    )
    return replace(boxes, **{k: np.asarray(v, np.float32) for k, v in values.items()})


def meter(ground: BirdseyeSpec | None = None) -> Boxes3dMeter:
    return Boxes3dMeter(CLASSES, INFO, ground)


def test_what_is_found_where_it_is_scores_1_by_names_of_classes() -> None:
    own = meter()
    assert own.lacking == ("person",)
    assert own.add(found((0, 10, 2, 0.9), (1, 20, -3, 0.8)), truth((1, 10, 2), (0, 20, -3)))
    assert own.add(found((2, 5, 5, 0.95)), truth((1, 30, 0)))  # trams are nobody's class here
    # One of two cars, so that recall ends at 1/2 (points 0.11 to 0.5 of 90); the bus is found.
    car = 40 / 90
    scores = own.scores()
    assert scores["map3d"] == pytest.approx((car + 1) / 2)
    assert [scores[k] for k in ("trans3d", "scale3d", "orient3d", "vel3d")] == pytest.approx(
        [1] * 4
    )
    assert scores["nds3d"] == pytest.approx((5 * (car + 1) / 2 + 4) / 9)
    assert own.per_class()["car"]["ap3d"] == pytest.approx(car)
    assert own.per_class()["bus"] == pytest.approx(
        {"ap3d": 1, "trans_err": 0, "scale_err": 0, "orient_err": 0, "vel_err": 0}, abs=1e-6
    )
    assert "person" not in own.per_class()  # which no frame shows


def test_errors_have_units_and_sizes_are_in_their_order() -> None:
    own = meter()
    own.add(
        found(
            (0, 10.3, 2.4, 0.9),
            size=[[2, 2, 1.5]],
            yaw=[0.5 - 2 * math.pi + 0.2],
            velocity=[[1, 0.7]],
        ),
        truth((1, 10, 2)),
    )
    assert own.per_class()["car"] == pytest.approx(
        {"ap3d": 0.75, "trans_err": 0.5, "scale_err": 0.5, "orient_err": 0.2, "vel_err": 0.7},
        abs=1e-5,
    )  # not within half a metre, but for rounding
    assert own.scores()["trans3d"] == pytest.approx(0.5, abs=1e-5)


def test_what_is_to_be_ignored_is_no_mistake() -> None:
    ground = BirdseyeSpec(x=(0, 51.2), y=(-25.6, 25.6), cell_m=0.4)
    rows = [(1, 10, 0), (1, 20, 0), (1, 30, 0), (1, -10, 0), (1, 10, 26)]
    known = truth(*rows, ignore=[False, True, False, False, False], points=[5, 5, 0, 5, -1])
    every = [(0, x, y, 0.9 - 0.01 * i) for i, (_, x, y) in enumerate(rows)]
    own = meter(ground)
    own.add(found(*every[::-1]), known)
    assert own.scores()["map3d"] == pytest.approx(1) and own.scores()["nds3d"] == pytest.approx(1)
    # One that is nowhere near is a mistake.  It is the surest: precision rises from 0 to 1/2 with recall, and
    # is above 0.1 from a recall of 0.21 on: (4840 / 200 - 80 x 0.1) / 90 / 0.9.
    own.add(found((0, 45, 0, 0.95)), truth())
    assert own.scores()["map3d"] == pytest.approx(0.2)
    twice = meter(ground)
    twice.add(found((0, 10, 0, 0.9), (0, 10.1, 0, 0.95)), known)
    # The better of both is right; the other, at the end, leaves 1/2 of the last point.
    assert twice.scores()["map3d"] == pytest.approx((89 * 0.9 + 0.4) / 90 / 0.9)
    # Anywhere, those beyond the grid count: two more to be found.
    anywhere = meter()
    anywhere.add(found((0, 10, 0, 0.9)), known)
    assert anywhere.scores()["map3d"] == pytest.approx(23 / 90)  # recall of a third


def test_a_match_near_what_is_to_be_ignored_counts() -> None:
    """Of an object at 10 m and one to be ignored beside it, the first is found."""
    one = PlacedBoxes(
        np.zeros(2, np.int64), np.zeros(2, np.int64), np.array([[10.0, 0, 0], [11, 0, 0]]),
        np.ones((2, 3)), np.zeros(2), np.zeros((2, 2)), np.full(2, -1), np.array([0.9, 0.8]),
    )  # fmt: skip
    first, second = one.where(np.array([0])), one.where(np.array([1]))
    score = nuscenes_score(first, one, ["car"], second)
    assert score.mean_ap == pytest.approx(1)
    # Without that the second is wrong, though at the end of the curve: of the last point 1/2 is left.
    late = (89 * 0.9 + 0.4) / 90 / 0.9
    assert nuscenes_score(first, one, ["car"]).mean_ap == pytest.approx(late)
    swapped = replace(one, scores=np.array([0.8, 0.9]))
    # At 2 and 4 m the better one takes the object that counts; at half a metre and 1 m it is no mistake.
    spared = nuscenes_score(first, swapped, ["car"], second).label_aps["car"]
    assert spared == pytest.approx({0.5: 1, 1.0: 1, 2.0: 1, 4.0: 1})
    whole = nuscenes_score(first, swapped, ["car"]).label_aps["car"]
    assert whole == pytest.approx({0.5: 0.2, 1.0: 0.2, 2.0: late, 4.0: late})


def test_unknown_velocities_are_left_out() -> None:
    own = meter()
    own.add(found((0, 10, 2, 0.9)), truth((1, 10, 2), velocity=None))
    scores = own.scores()
    assert scores["vel3d"] is None and scores["nds3d"] == pytest.approx(1)
    assert own.per_class()["car"]["vel_err"] is None
    # Whom nobody told the velocity that is known is wrong by 1.
    silent = meter()
    silent.add(found((0, 10, 2, 0.9), velocity=[[np.nan, np.nan]]), truth((1, 10, 2)))
    assert silent.scores()["vel3d"] == 0 and silent.scores()["nds3d"] == pytest.approx(8 / 9)


def test_frames_without_answer_and_without_truth() -> None:
    own = meter()
    assert set(own.scores().values()) == {None} and own.per_class() == {}
    assert not own.add(found((0, 1, 1, 0.9)), Truth())
    assert not own.add(None, truth((1, 10, 2), frame="lidar"))  # nobody knows where that is
    assert own.add(None, truth((1, 10, 2)))
    assert own.scores()["map3d"] == 0 and own.scores()["nds3d"] == 0
    assert own.add(found((0, 10, 2, 0.9)), truth((1, 10, 2)))
    assert own.scores()["map3d"] == pytest.approx(40 / 90)


def test_matches_are_of_objects_that_count() -> None:
    ground = BirdseyeSpec(x=(0, 51.2), y=(-25.6, 25.6), cell_m=0.4)
    rows = [(1, 10, 0), (1, 20, 0), (1, 30, 0), (1, -10, 0), (0, 40, 9)]
    known = truth(*rows, ignore=[False, True, False, False, False], points=[5, 5, 0, 5, -1])
    own = meter(ground)
    own.add(None, truth((1, 10, 0)))
    own.add(found(*((0, x + 1, y, 0.9) for _, x, y in rows[:4]), (1, 40, 8, 0.4)), known)
    objects, boxes = own.matched()
    assert objects.frame.tolist() == boxes.frame.tolist() == [1, 1]
    assert objects.class_ids.tolist() == boxes.class_ids.tolist() == [0, 1]  # bus, car
    np.testing.assert_array_equal(objects.center[:, :2], [[40, 9], [10, 0]])
    np.testing.assert_array_equal(boxes.center[:, :2], [[40, 8], [11, 0]])
    assert [len(side) for side in own.matched(1.0)] == [0, 0]
    assert [len(side) for side in meter().matched()] == [0, 0]

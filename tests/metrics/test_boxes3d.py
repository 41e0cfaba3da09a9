"""Metrics of 3D boxes: cases worked out by hand, laws, and what the fields' own programs answered."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import InputError
from perception.evaluation.box_files import read_kitti, read_nuscenes
from perception.files.text import read_json
from perception.metrics.boxes3d import (
    LabeledObjects,
    PlacedBoxes,
    kitti_score,
    matching,
    nuscenes_score,
)
from perception.metrics.boxes3d.kitti import JUDGED, NO_ALPHA, TYPES
from perception.metrics.boxes3d.matching import pairs_of_frames
from perception.metrics.boxes3d.nuscenes import CLASSES, ERRORS
from perception.metrics.boxes3d.overlap import intersection_of_turned

# matching


def _naive(
    choosers: list[int], choices: list[int], worth: np.ndarray[Any, Any], may: np.ndarray[Any, Any]
) -> list[int]:
    """What each chooser takes, one after the other."""
    taken: set[int] = set()
    out = []
    for i, frame in enumerate(choosers):
        best = -1
        for j, other in enumerate(choices):
            if other == frame and j not in taken and may[i, j]:
                best = j if best < 0 or worth[i, j] > worth[i, best] else best
        taken |= {best} - {-1}
        out.append(best)
    return out


@given(
    st.lists(st.integers(0, 3), max_size=12),
    st.lists(st.integers(0, 3), max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_all_frames_choose_at_once_as_one_after_the_other(
    choosers: list[int], choices: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = len(choosers), len(choices)
    worth = rng.integers(0, 4, shape).astype(float)  # of which many are equal
    may = rng.random((3, *shape)) < 0.7
    near = rng.random(shape) < 0.8
    a, b = np.array(choosers, np.int64), np.array(choices, np.int64)
    pairs = pairs_of_frames(
        a, b, lambda i, j: np.where(near[i, j], worth[i, j], -1.0), lambda value: value >= 0
    )
    picked = pairs.chosen(pairs.value, may[:, pairs.chooser, pairs.choice], len(b))
    for level in range(3):
        found = dict(zip(pairs.chooser[picked[level]], pairs.choice[picked[level]], strict=True))
        wanted = _naive(choosers, choices, worth, may[level] & near)
        assert [found.get(i, -1) for i in range(len(a))] == wanted


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MOST_PAIRS", 99)
    monkeypatch.setattr(matching, "_BLOCK", 7)
    ten = np.zeros(10, np.int64)
    with pytest.raises(InputError, match="more than 99 pairs"):
        pairs_of_frames(ten, ten, lambda i, j: np.ones(len(i)), lambda value: value > 0)
    assert len(pairs_of_frames(ten, ten[:9], lambda i, j: 1.0 * j, lambda value: value > 0)) == 80


# overlap


def _area(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return float(intersection_of_turned(np.array([a], float), np.array([b], float))[0])


def test_areas_that_turned_rectangles_share() -> None:
    unit = (0.0, 0.0, 1.0, 1.0, 0.0)
    assert _area(unit, unit) == pytest.approx(1)
    assert _area(unit, (0, 0, 1, 1, math.pi / 2)) == pytest.approx(1)
    # A regular octagon whose inner circle has radius 1/2: 8 tan(22.5 deg) r^2 = 2 (sqrt 2 - 1).
    assert _area(unit, (0, 0, 1, 1, math.pi / 4)) == pytest.approx(2 * (math.sqrt(2) - 1))
    assert _area((5, 5, 4, 2, 0.3), (5, 5, 1, 0.5, 2.0)) == pytest.approx(0.5)  # within the other
    assert _area((0, 0, 4, 2, 0), (0, 0, 4, 2, math.pi / 2)) == pytest.approx(4)  # a cross
    assert _area((0, 0, 4, 2, 0), (3, 1, 4, 2, 0)) == pytest.approx(1)
    assert _area(unit, (1, 0, 1, 1, 0)) == 0  # they touch
    assert _area(unit, (0, 0, 0, 1, 0.5)) == 0
    assert _area((9, 9, -1, -1, -10), (9, 9, -1, -1, -10)) == pytest.approx(1)
    assert intersection_of_turned(np.zeros((0, 5)), np.zeros((0, 5))).shape == (0,)


_RECTANGLE = st.tuples(
    st.floats(-4, 4), st.floats(-4, 4), st.floats(0.1, 6), st.floats(0.1, 6), st.floats(-7, 7)
)


@given(_RECTANGLE, _RECTANGLE, st.floats(-7, 7), st.floats(-50, 50))
def test_shared_areas_are_those_of_slices_and_move_with_the_rectangles(
    a: tuple[float, ...], b: tuple[float, ...], turn: float, shift: float
) -> None:
    shared = _area(a, b)
    assert -1e-12 <= shared <= min(a[2] * a[3], b[2] * b[3]) + 1e-9
    assert _area(b, a) == pytest.approx(shared, abs=1e-9)

    def moved(box: tuple[float, ...]) -> tuple[float, ...]:
        x, y, length, width, angle = box
        c, s = math.cos(turn), math.sin(turn)
        return c * x - s * y + shift, s * x + c * y - shift, length, width, angle + turn

    assert _area(moved(a), moved(b)) == pytest.approx(shared, abs=1e-9)
    # Sliced along x: what of each line lies in both.
    x, step = np.linspace(-9, 9, 40_001, retstep=True)
    within = [_chord(x, box) for box in (a, b)]
    low, high = (
        f(one, other) for f, one, other in zip((np.maximum, np.minimum), *within, strict=True)
    )
    assert shared == pytest.approx(float((high - low).clip(0).sum() * step), abs=5e-3)


def _chord(x: np.ndarray[Any, Any], box: tuple[float, ...]) -> tuple[Any, Any]:
    """From where to where a rectangle covers the line of each x."""
    low, high = np.full(len(x), -np.inf), np.full(len(x), np.inf)
    for side, (u, v) in (
        (box[2], (math.cos(box[4]), math.sin(box[4]))),
        (box[3], (-math.sin(box[4]), math.cos(box[4]))),
    ):
        along = u * (x - box[0])  # the line's points have |along + v (y - box[1])| <= side / 2
        if abs(v) < 1e-9:
            high[np.abs(along) > side / 2] = -np.inf
            continue
        ends = box[1] + (np.array([[-side / 2], [side / 2]]) - along) / v
        low, high = np.maximum(low, ends.min(0)), np.minimum(high, ends.max(0))
    return low, high


# nuScenes


def placed(*rows: tuple[Any, ...], kind: str = "car", **values: Any) -> PlacedBoxes:
    """Boxes of 2 x 4 x 1.5 m by frame, x and score."""
    count = len(rows)
    frame, x, score = np.array(rows, float).reshape(-1, 3).T
    boxes = PlacedBoxes(
        frame=frame.astype(np.int64),
        class_ids=np.full(count, CLASSES.index(kind)),
        center=np.column_stack([x, np.zeros(count), np.zeros(count)]),
        size=np.tile([2.0, 4.0, 1.5], (count, 1)),
        yaw=np.zeros(count),
        velocity=np.zeros((count, 2)),
        attribute=np.full(count, -1),
        scores=score,
    )
    return replace(boxes, **{k: np.array(v) for k, v in values.items()})


def test_nuscenes_precision_by_hand() -> None:
    # Two objects; of three predictions the second is wrong.  Recall 1/2, 1/2, 1; precision 1, 1/2, 2/3.
    truth = placed((0, 0, 0), (0, 20, 0))
    found = placed((0, 0.3, 0.9), (0, 10, 0.8), (0, 20.9, 0.7))
    score = nuscenes_score(truth, found)
    # Points 0.11 to 0.49 have 1, the one at 0.5 has 1/2, those after it rise linearly from 1/2 to 2/3:
    # of (39 x 0.9 + 0.4 + 50 x 0.4 + 1/6 x 25.5) / 90, 0.9 is the whole.
    assert score.label_aps["car"][2.0] == pytest.approx(59.75 / 90 / 0.9)
    # Within half a metre the third is wrong, too: recall stays at 1/2, where precision is 1/3 at last.
    assert score.label_aps["car"][0.5] == pytest.approx((39 * 0.9 + (1 / 3 - 0.1)) / 90 / 0.9)
    assert score.label_aps["car"][4.0] == score.label_aps["car"][1.0] == score.label_aps["car"][2.0]
    assert score.mean_dist_aps["truck"] == 0 and score.mean_ap == pytest.approx(
        np.mean(list(score.label_aps["car"].values())) / 10
    )


def test_nuscenes_errors_by_hand() -> None:
    truth = placed((0, 0, 0), (0, 20, 0))
    found = placed((0, 0.3, 0.9), (0, 10, 0.8), (0, 20.9, 0.7))
    errors = nuscenes_score(truth, found).label_tp_errors
    # The mean error of all matches so far is 0.3 m at a score of 0.9 and 0.6 m at 0.7.  The score is 0.9 up
    # to a recall of 0.49, 0.8 at 0.5, and falls to 0.7: 39 x 0.3 + 0.45 + 50 x 0.45 + 0.15 x 25.5.
    assert errors["car"]["trans_err"] == pytest.approx(38.475 / 90)
    assert errors["car"]["scale_err"] == errors["car"]["orient_err"] == 0
    assert (
        errors["car"]["vel_err"] == 0 and errors["car"]["attr_err"] == 1
    )  # nobody knows attributes
    assert set(errors["bus"].values()) == {1.0}  # nothing matched
    assert [e for e in ERRORS if math.isnan(errors["barrier"][e])] == ["vel_err", "attr_err"]
    assert [e for e in ERRORS if math.isnan(errors["traffic_cone"][e])] == list(ERRORS[2:])


@pytest.mark.parametrize(("kind", "wanted"), [("car", math.pi - 0.2), ("barrier", 0.2)])
def test_errors_of_one_match(kind: str, wanted: float) -> None:
    truth = placed((0, 0, 0), kind=kind, yaw=[3.0], velocity=[[3.0, 0.0]], attribute=[1])
    found = placed(
        (0, 0, 0.5), kind=kind, yaw=[0.2 + 3 - math.pi], size=[[4.0, 4.0, 1.5]], attribute=[0]
    )
    errors = nuscenes_score(truth, found).label_tp_errors[kind]
    assert errors["orient_err"] == pytest.approx(wanted)
    assert errors["scale_err"] == pytest.approx(0.5)  # twice as wide
    if kind == "car":
        assert (errors["vel_err"], errors["attr_err"]) == (3.0, 1.0)


def test_unknown_velocities_count_for_nobody() -> None:
    truth = placed((0, 0, 0), (1, 0, 0), velocity=[[math.nan, math.nan], [1.0, 0.0]])
    found = placed((0, 0, 0.9), (1, 0, 0.8))
    # Up to a recall of 1/2 no error is known, which counts as 0; then 1 at the end.
    errors = nuscenes_score(truth, found).label_tp_errors["car"]
    assert errors["vel_err"] == pytest.approx(np.linspace(0, 1, 51)[1:].sum() / 90)
    truth = replace(truth, velocity=np.full((2, 2), math.nan))
    assert nuscenes_score(truth, found).label_tp_errors["car"]["vel_err"] == 1


def test_a_recall_of_a_tenth_is_too_little_for_errors() -> None:
    ten = [(i, 0, 0) for i in range(10)]
    score = nuscenes_score(placed(*ten), placed((0, 0.1, 0.9)))
    assert score.label_aps["car"][2.0] == 0 and score.label_tp_errors["car"]["trans_err"] == 1
    eleven_hundredths = nuscenes_score(placed(*ten[:9]), placed((0, 0.1, 0.9)))
    assert eleven_hundredths.label_tp_errors["car"]["trans_err"] == pytest.approx(0.1)


def test_of_equal_scores_the_later_comes_first_and_the_nearest_free_object_is_taken() -> None:
    one = placed((0, 0, 0))
    found = placed((0, 1.5, 0.5), (0, 0.2, 0.5))
    assert nuscenes_score(one, found).label_tp_errors["car"]["trans_err"] == pytest.approx(0.2)
    turned = found.where(np.array([1, 0]))
    assert nuscenes_score(one, turned).label_tp_errors["car"]["trans_err"] == pytest.approx(1.5)
    # The better one takes the nearer object, so that the other is left with what is 3 m away.
    two = placed((0, 0, 0), (0, 3, 0))
    score = nuscenes_score(two, placed((0, 1.4, 0.9), (0, 0, 0.8)))
    assert score.label_aps["car"][2.0] < score.label_aps["car"][4.0]


def test_the_score_is_half_precision_and_half_errors() -> None:
    # Of all ten classes one object, found where it is: precision 1, and all errors that are known 0.
    rows = [placed((0, 10 * i, 1), kind=name, attribute=[2]) for i, name in enumerate(CLASSES)]
    every = PlacedBoxes(
        *(np.concatenate(c) for c in zip(*(vars(r).values() for r in rows), strict=True))
    )
    perfect = nuscenes_score(every, every)
    assert perfect.mean_ap == pytest.approx(1) and perfect.nd_score == pytest.approx(1)
    assert set(perfect.tp_errors.values()) == {0.0}
    # Velocities that are wrong by 3 m/s cost a tenth, as errors count to 1 at most.
    fast = replace(every, velocity=np.full((10, 2), [3.0, 0.0]))
    assert nuscenes_score(every, fast).nd_score == pytest.approx(0.9)
    # Every second class is lacking: precision 0.5, and errors of 1 there.
    half = every.where(np.arange(0, 10, 2))
    score = nuscenes_score(every, half)
    errors = {
        "trans_err": 0.5,
        "scale_err": 0.5,
        "orient_err": 4 / 9,
        "vel_err": 0.5,
        "attr_err": 0.5,
    }
    # traffic_cone, the ninth, is there; barrier, the tenth, is not, and has no error of velocity: 4 of 8.
    assert score.tp_errors == pytest.approx({**errors, "orient_err": 5 / 9})
    assert score.nd_score == pytest.approx(
        (5 * 0.5 + sum(1 - e for e in score.tp_errors.values())) / 10
    )


@st.composite
def placed_scenes(draw: st.DrawFn) -> PlacedBoxes:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 40))
    frame = rng.integers(0, 4, count)
    return PlacedBoxes(
        frame,
        rng.choice([0, 8, 9], count),  # car, traffic_cone, barrier
        rng.uniform(-6, 6, (count, 3)),
        rng.uniform(0.5, 4, (count, 3)),
        rng.uniform(-4, 4, count),
        rng.normal(0, 3, (count, 2)),
        rng.integers(-1, 3, count),
        rng.permutation(count) / max(count, 1) * 0.9 + 0.05,
    )


@given(placed_scenes(), placed_scenes(), st.integers(0, 2**32 - 1))
def test_laws_of_nuscenes(truth: PlacedBoxes, found: PlacedBoxes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = nuscenes_score(truth, found)
    assert 0 <= score.mean_ap < 1 + 1e-9 and 0 <= score.nd_score < 1 + 1e-9
    order = rng.permutation(len(found))
    same = nuscenes_score(truth, found.where(order)).to_dict()
    _equal(score.to_dict(), same)
    shift = rng.uniform(-30, 30, 3)
    moved = [replace(b, center=b.center + shift, frame=b.frame + 7) for b in (truth, found)]
    _equal(score.to_dict(), nuscenes_score(*moved).to_dict(), 1e-6)
    for name, ap in nuscenes_score(truth, truth).mean_dist_aps.items():
        assert ap == pytest.approx(float((truth.class_ids == CLASSES.index(name)).any()))


def _equal(one: Any, other: Any, most: float = 1e-9) -> None:
    if isinstance(one, dict):
        for name, value in one.items():
            _equal(value, other[name], most)
    elif one is None or (isinstance(one, float) and math.isnan(one)):
        assert other is None or math.isnan(other)
    else:
        assert other == pytest.approx(one, abs=most)


# KITTI


def labeled(*rows: tuple[Any, ...], kind: str = "Car", **values: Any) -> LabeledObjects:
    """Objects by frame, x and score: 4 m long, 50 pixels high, one picture's metre is 10 pixels."""
    count = len(rows)
    frame, x, score = np.array(rows, float).reshape(-1, 3).T
    left = 400 + 10 * x
    objects = LabeledObjects(
        frame=frame.astype(np.int64),
        types=np.full(count, TYPES.index(kind)),
        truncated=np.zeros(count),
        occluded=np.zeros(count, np.int64),
        alpha=np.zeros(count),
        bbox=np.column_stack([left, np.full(count, 100), left + 40, np.full(count, 150)]),
        hwl=np.tile([1.5, 2.0, 4.0], (count, 1)),
        xyz=np.column_stack([x, np.full(count, 1.6), np.full(count, 30.0)]),
        ry=np.zeros(count),
        scores=score,
    )
    return replace(objects, **{k: np.array(v) for k, v in values.items()})


def joined(*parts: LabeledObjects) -> LabeledObjects:
    values = zip(*(vars(part).values() for part in parts), strict=True)
    return LabeledObjects(*(np.concatenate(own) for own in values))


def _start(curve: np.ndarray[Any, Any], *wanted: float) -> None:
    """A curve begins with these, and is 0 after them."""
    assert curve == pytest.approx([*wanted, *[0.0] * (41 - len(wanted))])


def test_kitti_by_hand() -> None:
    # Two cars; of three detections the second is wrong.  The scores that are asked for are those of the two
    # matches: at 0.9 precision is 1, at 0.7 it is 2/3; the program has no more points of recall.
    truth = labeled((0, 0, 0), (0, 20, 0))
    found = labeled((0, 0.1, 0.9), (0, 10, 0.8), (0, 20.1, 0.7), alpha=[math.pi / 2, 0, 0])
    score = kitti_score(truth, found)
    for metric in ("detection", "detection_ground", "detection_3d"):
        _start(score.curves[f"car_{metric}"]["easy"], 1, 2 / 3)
    # A quarter turn is a similarity of 1/2: 0.5 / 1, then (0.5 + 1) / 3.
    _start(score.curves["car_orientation"]["easy"], 0.5, 0.5)
    answer = score.to_dict()
    # r40 leaves the first point out; r11 takes every fourth of 41, so that the first is there.
    assert answer["car_detection"]["easy"] == pytest.approx(
        {"r40": 100 * 2 / 3 / 40, "r11": 100 / 11}
    )
    assert answer["cyclist_detection"]["hard"] == {"r40": None, "r11": None}


def test_what_is_too_hard_counts_neither_for_nor_against() -> None:
    # By heights, levels and shares; a detection of any of them is no mistake.
    rows = [(0, 20 * i, 0) for i in range(5)]
    truth = labeled(*rows, occluded=[0, 1, 2, 3, 0], truncated=[0.1, 0, 0, 0, 0.2])
    found = labeled(*((0, x, 0.9 - 0.1 * i) for i, (_, x, _) in enumerate(rows)))
    curves = kitti_score(truth, found).curves["car_detection_3d"]
    _start(curves["easy"], 1)  # the first alone
    _start(curves["moderate"], 1, 1, 1)  # and the second and the last
    _start(curves["hard"], 1, 1, 1, 1)  # and the third
    wrong = joined(found, labeled((0, 200, 0.95)))
    curves = kitti_score(truth, wrong).curves["car_detection_3d"]
    _start(curves["easy"], 1 / 2)
    _start(curves["hard"], 4 / 5, 4 / 5, 4 / 5, 4 / 5)


@pytest.mark.parametrize(
    ("height", "easy", "moderate"), [(24.9, 0, 0), (25, 0, 1), (39.9, 0, 1), (40, 1, 1)]
)
def test_heights_at_which_objects_begin_to_count(height: float, easy: int, moderate: int) -> None:
    box = [[400.0, 100.0, 440.0, 100.0 + height]]
    truth, found = labeled((0, 0, 0), bbox=box), labeled((0, 0, 0.9), bbox=box)
    curves = kitti_score(truth, found).curves["car_detection"]
    _start(curves["easy"], *[1] * easy)
    _start(curves["hard"], *[1] * moderate)


def test_a_small_detection_of_any_class_takes_an_object_away() -> None:
    # In space the pedestrian that is 20 pixels high overlaps the second car as a car would.
    truth = labeled((0, 0, 0), (0, 20, 0))
    own = labeled((0, 0, 0.9), (0, 20, 0.5))
    small = labeled((0, 20, 0.8), kind="Pedestrian", bbox=[[600, 100, 640, 120]])
    _start(kitti_score(truth, own).curves["car_detection_3d"]["easy"], 1, 1)
    # Where scores are chosen the better of both takes the car, so that 0.5 is never asked for.
    _start(kitti_score(truth, joined(own, small)).curves["car_detection_3d"]["easy"], 1)
    worse = replace(small, scores=np.array([0.4]))
    _start(kitti_score(truth, joined(own, worse)).curves["car_detection_3d"]["easy"], 1, 1)


def test_neighbouring_classes_and_regions_are_no_mistakes() -> None:
    truth = joined(
        labeled((0, 0, 0)),
        labeled((0, 20, 0), kind="Van"),
        labeled((0, 40, 0), kind="Truck"),
        labeled((0, 0, 0), kind="DontCare", bbox=[[990, 90, 1100, 160]], hwl=[[-1.0] * 3],
                xyz=[[-1000.0] * 3], ry=[-10.0], occluded=[-1], truncated=[-1.0]),
    )  # fmt: skip
    found = labeled((0, 0, 0.5), (0, 20, 0.6), (0, 40, 0.7), (0, 60, 0.8), (0, 63, 0.8))
    curves = kitti_score(truth, found).curves
    # The truck is wrong; both at 60 lie in the region of the picture, and are wrong on the ground, where it
    # is nowhere.  The region is larger than they are: it is of their own area that a share is taken.
    _start(curves["car_detection"]["easy"], 1 / 2)
    _start(curves["car_detection_ground"]["easy"], 1 / 4)
    sitting = joined(
        labeled((0, 0, 0), kind="Pedestrian"), labeled((0, 20, 0), kind="Person_sitting")
    )
    both = labeled((0, 0, 0.5), (0, 20, 0.9), kind="Pedestrian")
    _start(kitti_score(sitting, both).curves["pedestrian_detection_3d"]["easy"], 1)


def test_of_several_detections_the_surest_sets_the_score_and_the_nearest_is_the_match() -> None:
    # Both overlap enough; 0.9 is asked for, at which the other is not there yet.
    truth = labeled((0, 0, 0))
    found = labeled((0, 0.5, 0.9), (0, 0, 0.6), alpha=[math.pi, 0])
    curves = kitti_score(truth, found).curves
    _start(curves["car_detection"]["easy"], 1)
    _start(curves["car_orientation"]["easy"], 0)
    # With a second car that is found at 0.5 the first is matched by the nearest, and the other is wrong.
    truth = labeled((0, 0, 0), (1, 0, 0))
    curves = kitti_score(truth, joined(found, labeled((1, 0, 0.5)))).curves
    _start(curves["car_detection"]["easy"], 1, 2 / 3)
    _start(curves["car_orientation"]["easy"], 2 / 3, 2 / 3)


def test_overlap_must_be_exceeded_and_is_of_volume_in_space() -> None:
    # Two boxes of 4 m that are 1 m apart share 3 of 5: 0.6.
    truth, found = labeled((0, 0, 0), kind="Cyclist"), labeled((0, 1, 0.9), kind="Cyclist")
    _start(kitti_score(truth, found).curves["cyclist_detection_3d"]["easy"], 1)
    # A quarter of a metre up, of heights of 1.5 m: 0.6 becomes 3 x 1.25 / (2 x 6 - 3.75) = 0.4545.
    higher = replace(found, xyz=found.xyz - [[0, 0.25, 0]])
    curves = kitti_score(truth, higher).curves
    _start(curves["cyclist_detection_ground"]["easy"], 1)
    _start(curves["cyclist_detection_3d"]["easy"])
    least = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.6 - 1e-9}
    _start(kitti_score(truth, found, least).curves["cyclist_detection_ground"]["easy"], 1)
    least["Cyclist"] = 0.6 + 1e-9
    _start(kitti_score(truth, found, least).curves["cyclist_detection_ground"]["easy"])


def test_detections_without_orientation_or_place() -> None:
    truth = labeled((0, 0, 0), (0, 20, 0))
    found = labeled((0, 0, 0.9), (0, 20, 0.8), alpha=[0, NO_ALPHA])
    score = kitti_score(truth, found)
    assert score.to_dict()["car_orientation"]["easy"]["r40"] is None
    assert {"car_detection", "car_detection_3d"} == set(score.curves) - {"car_detection_ground"}
    flat = replace(found, xyz=np.full((2, 3), -1000.0), hwl=np.full((2, 3), -1.0))
    assert set(kitti_score(truth, flat).curves) == {"car_detection"}
    empty = kitti_score(truth, labeled())
    assert empty.curves == {} and len(empty.to_dict()) == 4 * len(JUDGED)
    _start(kitti_score(labeled(), found).curves["car_detection"]["easy"])


@st.composite
def labeled_scenes(draw: st.DrawFn) -> LabeledObjects:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 40))
    kind = rng.integers(0, len(TYPES), count)
    left, top = rng.uniform(0, 60, count), rng.uniform(0, 20, count)
    return LabeledObjects(
        frame=rng.integers(0, 4, count),
        types=kind,
        truncated=rng.uniform(0, 0.6, count),
        occluded=rng.integers(0, 4, count),
        alpha=rng.uniform(-3, 3, count),
        bbox=np.column_stack([left, top, left + 40, top + rng.uniform(20, 60, count)]),
        hwl=rng.uniform(1, 4, (count, 3)),
        xyz=rng.uniform(-3, 3, (count, 3)),
        ry=rng.uniform(-4, 4, count),
        scores=rng.permutation(count) / max(count, 1),
    )  # fmt: skip


@given(labeled_scenes(), labeled_scenes(), st.integers(0, 2**32 - 1))
def test_laws_of_kitti(truth: LabeledObjects, found: LabeledObjects, seed: int) -> None:
    rng = np.random.default_rng(seed)
    answer = kitti_score(truth, found).to_dict()
    order = rng.permutation(len(found))
    _equal(answer, kitti_score(truth, found.where(order)).to_dict())
    shift, place = rng.uniform(-30, 30, 3), rng.uniform(0, 90, 2)
    moved = [
        replace(o, frame=o.frame + 3, xyz=o.xyz + shift, bbox=o.bbox + np.tile(place, 2))
        for o in (truth, found)
    ]
    _equal(answer, kitti_score(*moved).to_dict(), 1e-5)
    scaled = replace(found, scores=np.exp(found.scores) * 3)  # only their order matters
    _equal(answer, kitti_score(truth, scaled).to_dict())
    for metric, levels in answer.items():
        for level, own in levels.items():
            assert own["r40"] is None or math.isnan(own["r40"]) or 0 <= own["r40"] <= 100
            if metric.endswith("orientation") and own["r40"] is not None:
                whole = answer[metric.replace("orientation", "detection")][level]
                assert not own["r40"] > (whole["r40"] or 0) + 1e-9


@given(st.integers(1, 120))
def test_perfect_detections_have_precision_1_at_each_point_that_kitti_has(count: int) -> None:
    rows = [(i // 3, 20.0 * (i % 3), (i + 1) / (count + 1)) for i in range(count)]
    every = labeled(*rows)
    score = kitti_score(every, every)
    for curves in score.curves.values():
        curve = curves["hard"]
        points = int((curve > 0).sum())
        assert curve[:points] == pytest.approx(1) and points == min(count, 41)
    # With few objects there are not even 41 scores to ask for: the rest of the curve is 0.
    wanted = 100 * (min(count, 41) - 1) / 40
    assert score.to_dict()["car_detection_3d"]["hard"]["r40"] == pytest.approx(wanted)


# what the programs answered


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["a", "b"])
def test_nuscenes_own_answers(name: str, real_data: Path) -> None:
    path = real_data / f"metric_oracles/{name}_nuscenes.json"
    truth, found, samples = read_nuscenes(path, path)
    content = read_json(path)
    assert samples == content["samples"]
    _equal(content["devkit"], nuscenes_score(truth, found).to_dict(), 1e-9)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["a", "b"])
def test_kitti_s_own_answers(name: str, real_data: Path) -> None:
    """Their curves were written with six digits: up to 0.00005 percent points, and nothing else, is lost."""
    path = real_data / f"metric_oracles/{name}_kitti.json"
    truth, found, overlap, _ = read_kitti(path, path)
    _equal(read_json(path)["official"], kitti_score(truth, found, overlap).to_dict(), 5e-5)

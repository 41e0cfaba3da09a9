"""KITTI's average precision: cases worked out by hand, laws, and what its own program answered."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same_numbers import assert_same_numbers

from perception.evaluation.box_files import read_kitti
from perception.files.text import read_json
from perception.metrics.boxes3d import LabeledObjects, kitti_score
from perception.metrics.boxes3d.kitti import JUDGED, NO_ALPHA, TYPES


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
    for side, lacking in ((0, {"3d"}), (1, {"ground", "3d"}), (2, {"ground", "3d"})):
        thin = found.hwl.copy()
        thin[:, side] = 0
        curves = kitti_score(truth, replace(found, hwl=thin)).curves
        assert {m for m in ("ground", "3d") if f"car_detection_{m}" not in curves} == lacking
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
    assert_same_numbers(answer, kitti_score(truth, found.where(order)).to_dict())
    shift, place = rng.uniform(-30, 30, 3), rng.uniform(0, 90, 2)
    moved = [
        replace(o, frame=o.frame + 3, xyz=o.xyz + shift, bbox=o.bbox + np.tile(place, 2))
        for o in (truth, found)
    ]
    assert_same_numbers(answer, kitti_score(*moved).to_dict(), 1e-5)
    scaled = replace(found, scores=np.exp(found.scores) * 3)  # only their order matters
    assert_same_numbers(answer, kitti_score(truth, scaled).to_dict())
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


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["a", "b"])
def test_kitti_s_own_answers(name: str, real_data: Path) -> None:
    """Their curves were written with six digits: up to 0.00005 percent points, and nothing else, is lost."""
    path = real_data / f"metric_oracles/{name}_kitti.json"
    truth, found, overlap, _ = read_kitti(path, path)
    assert_same_numbers(
        read_json(path)["official"], kitti_score(truth, found, overlap).to_dict(), 5e-5
    )

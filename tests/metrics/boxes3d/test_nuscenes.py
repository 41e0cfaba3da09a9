"""nuScenes' score: cases worked out by hand, laws, and what its own program answered."""

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

from perception.evaluation.box_files import read_nuscenes
from perception.files.text import read_json
from perception.metrics.boxes3d import PlacedBoxes, matched, nuscenes_score
from perception.metrics.boxes3d.nuscenes import CLASSES, ERRORS


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
    every = PlacedBoxes.joined(rows)
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


def test_boxes_one_after_the_other() -> None:
    one, two = placed((0, 1, 0.5), (1, 2, 0.4)), placed((1, 3, 0.3), velocity=[[7.0, 8.0]])
    both, none = PlacedBoxes.joined([one, two]), PlacedBoxes.joined([])
    assert (len(both), len(none)) == (3, 0)
    for name, values in vars(both).items():
        first, second, empty = (getattr(boxes, name) for boxes in (one, two, none))
        np.testing.assert_array_equal(values, np.concatenate([first, second]))
        assert empty.shape == (0, *values.shape[1:]) and empty.dtype == values.dtype
    assert nuscenes_score(none, none).nd_score == 0  # all errors are 1


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
    assert_same_numbers(score.to_dict(), same)
    shift = rng.uniform(-30, 30, 3)
    moved = [replace(b, center=b.center + shift, frame=b.frame + 7) for b in (truth, found)]
    assert_same_numbers(score.to_dict(), nuscenes_score(*moved).to_dict(), 1e-6)
    for name, ap in nuscenes_score(truth, truth).mean_dist_aps.items():
        assert ap == pytest.approx(float((truth.class_ids == CLASSES.index(name)).any()))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["a", "b"])
def test_nuscenes_own_answers(name: str, real_data: Path) -> None:
    path = real_data / f"metric_oracles/{name}_nuscenes.json"
    truth, found, samples = read_nuscenes(path, path)
    content = read_json(path)
    assert samples == content["samples"]
    assert_same_numbers(content["devkit"], nuscenes_score(truth, found).to_dict(), 1e-9)


def test_matches_are_those_that_the_score_counts() -> None:
    """The surest takes what is nearest; a class, a frame and a distance of 2 m are borders."""
    truth = PlacedBoxes.joined(
        [placed((0, 0, 0), (0, 3, 0), (1, 0, 0)), placed((0, 50, 0), (0, 60, 0), kind="bus")]
    )
    found = PlacedBoxes.joined(
        [
            placed((0, 0, 0.8), (0, 1.4, 0.9), (1, 2.0, 0.7), (2, 0, 0.6)),
            placed((0, 51, 0.5), (0, 49.5, 0.5), (0, 0.5, 0.9), kind="bus"),
        ]
    )
    objects, boxes = matched(truth, found)
    np.testing.assert_array_equal(objects.center[:, 0], [0, 50])
    np.testing.assert_array_equal(boxes.center[:, 0], [1.4, 49.5])  # of equal ones the later
    score = nuscenes_score(truth, found)
    assert score.label_tp_errors["car"]["trans_err"] == pytest.approx(1.4)
    objects, boxes = matched(truth, found, 2.5)
    assert sorted(zip(objects.frame, objects.center[:, 0], boxes.center[:, 0], strict=True)) == [
        (0, 0, 1.4),
        (0, 50, 49.5),
        (1, 0, 2.0),
    ]
    # From 3 m on the second of both cars has one, too.
    assert len(matched(truth, found, 3.0)[0]) == 3 and len(matched(truth, found, 3.01)[0]) == 4
    for some, others in (
        (truth, found.where(found.scores > 1)),
        (truth.where(np.zeros(5, bool)), found),
    ):
        assert [len(side) for side in matched(some, others)] == [0, 0]

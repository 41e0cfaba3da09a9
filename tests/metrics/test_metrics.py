"""Metrics against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.data.base import Boxes
from perception.errors import InputError
from perception.metrics import ConfusionMatrix, average_precision
from perception.tasks.detections import Detections


def test_iou_of_a_known_picture() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    found = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)
    matrix = ConfusionMatrix(3)
    matrix.add(truth, found)
    assert matrix.iou()[:2].tolist() == [3 / 5, 2 / 4]
    assert np.isnan(matrix.iou()[2])
    assert matrix.miou() == pytest.approx(0.55)
    assert matrix.miou_all() == pytest.approx(1.1 / 3)
    assert matrix.pixel_accuracy() == pytest.approx(5 / 7)


def test_unlabeled_predictions_are_misses() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((2, 2), np.uint8), np.array([[0, 255], [255, 255]], np.uint8))
    assert matrix.miou() == 0.25


def test_sizes_must_agree() -> None:
    with pytest.raises(InputError, match="differ in size"):
        ConfusionMatrix(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


@given(st.integers(0, 2**32 - 1))
def test_perfect_labels_score_one(seed: int) -> None:
    truth = np.random.default_rng(seed).integers(0, 4, (6, 6)).astype(np.uint8)
    matrix = ConfusionMatrix(4)
    matrix.add(truth, truth)
    assert matrix.miou() == 1.0


def _found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


BOX = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)


def _truth(*boxes: tuple[float, ...], ignore: tuple[bool, ...] = ()) -> Boxes:
    flags = np.array(ignore or [False] * len(boxes), bool)
    return Boxes(np.array(boxes, np.float32), np.zeros(len(boxes), np.int64), flags)


def test_a_perfect_detector_scores_one() -> None:
    score = average_precision([(_found((*BOX, 0.9, 0)), _truth(BOX))], 1)
    assert score.ap50 == pytest.approx(1.0)
    assert score.ap == pytest.approx(1.0)


def test_a_better_scored_false_alarm_halves_precision() -> None:
    score = average_precision([(_found((*FAR, 0.95, 0), (*BOX, 0.9, 0)), _truth(BOX))], 1)
    assert score.ap50 == pytest.approx(0.5)


def test_finding_one_of_two_gives_half_the_recall() -> None:
    score = average_precision([(_found((*BOX, 0.9, 0)), _truth(BOX, FAR))], 1)
    assert score.ap50 == pytest.approx(51 / 101)


def test_a_second_hit_on_the_same_box_is_a_false_alarm() -> None:
    twice = _found((*BOX, 0.9, 0), (*BOX, 0.8, 0))
    assert average_precision([(twice, _truth(BOX, FAR))], 1).ap50 == pytest.approx(51 / 101)


def test_loose_boxes_count_at_loose_thresholds_only() -> None:
    loose = (0.0, 0.0, 10.0, 7.2)  # IoU 0.72: right up to 0.70
    score = average_precision([(_found((*loose, 0.9, 0)), _truth(BOX))], 1)
    assert score.ap50 == pytest.approx(1.0)
    assert score.ap == pytest.approx(0.5)


def test_ignored_boxes_count_neither_way() -> None:
    found = _found((*FAR, 0.95, 0), (*BOX, 0.9, 0))
    score = average_precision([(found, _truth(BOX, FAR, ignore=(False, True)))], 1)
    assert score.ap50 == pytest.approx(1.0)


def test_classes_without_truth_do_not_count() -> None:
    found = _found((*BOX, 0.9, 0), (*FAR, 0.9, 1))
    score = average_precision([(found, _truth(BOX))], 2)
    assert list(score.per_class) == [0]
    assert np.isnan(average_precision([(found, Boxes.empty())], 2).ap50)

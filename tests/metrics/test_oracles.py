"""Metrics against independent ones: pycocotools for boxes, scikit-learn for pixels."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from perception.data.base import Boxes
from perception.metrics import ConfusionMatrix, average_precision
from perception.metrics.detection import MAX_PER_IMAGE
from perception.tasks.detections import Detections

CLASSES = 3
Scene = list[tuple[Detections, Boxes]]


def _coco(scene: Scene, truth: bool) -> COCO:
    rows: list[dict[str, Any]] = []
    for image, (found, wanted) in enumerate(scene):
        boxes: Any = wanted if truth else found
        for i, (x0, y0, x1, y1) in enumerate(boxes.xyxy.astype(float).tolist()):
            row = {
                "id": len(rows) + 1,
                "image_id": image,
                "category_id": int(boxes.class_ids[i]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(wanted.ignore[i]) if truth else 0,
            }
            rows.append(row if truth else {**row, "score": float(found.scores[i])})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(scene))],
        "categories": [{"id": kind, "name": str(kind)} for kind in range(CLASSES)],
        "annotations": rows,
    }
    coco.createIndex()
    return coco


def coco_precision(scene: Scene, evaluation: type[COCOeval] = COCOeval) -> NDArray[np.float64]:
    """(10, CLASSES) AP by IoU threshold and class, -1 for classes without truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = evaluation(_coco(scene, True), _coco(scene, False), "bbox")
        # A recall of 7/25 is 0.28, and a number below 0.28 in floating point: that is noise.
        judge.params.recThrs = judge.params.recThrs - 1e-12
        judge.evaluate()
        judge.accumulate()
    table: NDArray[np.float64] = judge.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    return table


def assert_same(scene: Scene, evaluation: type[COCOeval] = COCOeval) -> None:
    wanted = coco_precision(scene, evaluation)
    score = average_precision(scene, CLASSES)
    present = np.flatnonzero(wanted[0] >= 0).tolist()
    assert list(score.per_class) == present
    for kind in present:
        ap50, ap = wanted[0, kind], wanted[:, kind].mean()
        assert score.per_class[kind] == pytest.approx((ap50, ap), abs=1e-9)
    if present:
        assert score.ap50 == pytest.approx(wanted[0, present].mean(), abs=1e-9)
        assert score.ap == pytest.approx(wanted[:, present].mean(), abs=1e-9)
    else:
        assert np.isnan(score.ap50) and np.isnan(score.ap)


@st.composite
def scenes(draw: st.DrawFn, ignored: bool = False, classes: int = CLASSES) -> Scene:
    """Images with boxes of whole pixels, crowded enough for equal overlaps and equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([6, 12, 40]))
    levels = draw(st.sampled_from([1, 3, 1000]))
    most = draw(st.sampled_from([2, 6, 15]))

    def boxes(count: int) -> NDArray[np.float32]:
        corner = rng.integers(0, size, (count, 2))
        return np.hstack([corner, corner + rng.integers(1, size, (count, 2))]).astype(np.float32)

    scene: Scene = []
    for _ in range(draw(st.integers(1, 5))):
        truth, others = rng.integers(0, most, 2) * rng.integers(0, 2, 2)
        wanted = boxes(truth)
        # Detections are boxes of the truth, moved a little, once or twice each, and others.
        near = np.repeat(wanted, rng.integers(0, 3, truth), axis=0)
        near[:, 2:] += rng.integers(0, 3, (len(near), 2))
        xyxy = np.vstack([near, boxes(others)])
        kinds = rng.integers(0, classes, truth)
        scores = rng.integers(1, levels + 1, len(xyxy)) / np.float32(levels)
        found = Detections(xyxy, scores.astype(np.float32), rng.integers(0, classes, len(xyxy)))
        flags = rng.random(truth) < (0.4 if ignored else 0.0)
        scene.append((found, Boxes(wanted, kinds, flags)))
    return scene


def _equal_overlaps() -> Scene:
    """Two boxes of the truth that overlap a detection equally: which is taken decides the second."""
    truth = Boxes.of(np.array([[0, 0, 10, 10], [2, 0, 12, 10]]), np.zeros(2))
    xyxy = np.array([[1, 0, 11, 10], [0, 0, 9, 10]], np.float32)
    found = Detections(xyxy, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64))
    return [(found, truth)]


@settings(max_examples=150, deadline=None)
@given(scenes())
@example(_equal_overlaps())
@example([(Detections.empty(), Boxes.empty())])
def test_average_precision_is_that_of_coco(scene: Scene) -> None:
    assert_same(scene)


@settings(max_examples=100, deadline=None)
@given(scenes(ignored=True, classes=2))
def test_an_ignored_box_excuses_any_number_of_detections_as_a_crowd_region_does(
    scene: Scene,
) -> None:
    assert_same(scene)


@settings(max_examples=30, deadline=None)
@given(scenes(ignored=True), st.sampled_from([2.0**-6, 2.0**10]))
def test_the_size_of_a_pixel_does_not_matter(scene: Scene, scale: float) -> None:
    factor = np.float32(scale)
    scaled = [
        (
            Detections(found.xyxy * factor, found.scores, found.class_ids),
            Boxes(truth.xyxy * factor, truth.class_ids, truth.ignore),
        )
        for found, truth in scene
    ]
    here, there = average_precision(scene, CLASSES), average_precision(scaled, CLASSES)
    assert here.per_class == there.per_class


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_only_the_best_of_an_image_and_class_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = MAX_PER_IMAGE + 20
    corner = 20 * np.arange(count)[:, None] + np.zeros(2)
    boxes = np.hstack([corner, corner + 10]).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32) / count
    hit = rng.random(count) < 0.7
    scene = [(Detections(boxes, scores, np.ones(count, np.int64)), Boxes.of(boxes[hit], hit[hit]))]
    assert_same(scene)


@st.composite
def pictures(draw: st.DrawFn) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Truth and predictions of images, some of whose pixels have no label or no answer."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from([0, 1, 2, 3, 255]), min_size=1, unique=True))
    pairs = []
    for _ in range(draw(st.integers(1, 3))):
        size = tuple(rng.integers(1, 9, 2))
        truth = rng.choice(kinds, size).astype(np.uint8)
        guess = rng.choice([0, 1, 2, 3, 255], size)
        pairs.append((truth, np.where(rng.random(size) < 0.5, truth, guess).astype(np.uint8)))
    return pairs


@settings(deadline=None)
@given(pictures(), st.sets(st.integers(0, 3)))
def test_scores_of_pixels_are_those_of_scikit_learn(
    pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], hidden: set[int]
) -> None:
    whole = ConfusionMatrix(4)
    for truth, found in pairs:
        whole.add(truth, found)
    truth, found = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    for ours, judged in (
        (whole, truth != 255),
        (whole.without(sorted(hidden)), (truth != 255) & ~np.isin(truth, sorted(hidden))),
    ):
        wanted, got = truth[judged], found[judged]
        if not wanted.size:
            assert not ours.counts.any() and not ours.truth_pixels.any()
            assert np.isnan(ours.miou()) and np.isnan(ours.pixel_accuracy())
            assert ours.miou_all() == 0
            continue
        table = confusion_matrix(wanted, got, labels=[0, 1, 2, 3, 255])
        np.testing.assert_array_equal(ours.counts, table[:4, :4])
        np.testing.assert_array_equal(ours.unlabeled, table[:4, 4])
        iou = jaccard_score(wanted, got, labels=range(4), average=None, zero_division=0.0)
        present = np.isin(range(4), wanted)
        np.testing.assert_allclose(ours.iou(), np.where(present, iou, np.nan))
        assert ours.miou() == pytest.approx(iou[present].mean())
        assert ours.miou_all() == pytest.approx(iou[present].sum() / 4)
        assert ours.pixel_accuracy() == pytest.approx(accuracy_score(wanted, got))

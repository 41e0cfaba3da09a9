"""Scores of a pipeline: classes by name, what is judged, and which frames a subset is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import make_recording
from small_bundles import GRID, SmallBundles

from perception.data.base import Boxes, Truth
from perception.errors import ConfigError
from perception.evaluation.evaluate import LOW_SCORE, Scorer, evaluate_subsets
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.detections import Detections
from perception.tasks.segmentation import Segmentation

NAMES = ["road", "wall", "background", "car", "tree"]


def _bundle(folder: Path, seg: Sequence[str], det: Sequence[str] = ()) -> Path:
    """A bundle of these classes."""

    def edit(content: dict[str, Any]) -> None:
        for task, names in (("segmentation", seg), ("detection", det)):
            for row, name in zip(content["classes"][task], names, strict=True):
                row["name"] = name

    folder.mkdir(exist_ok=True)
    sensors = ("rgb", "depth")
    return SmallBundles(folder)(
        sensors, segmentation=len(seg), detection=len(det), edit=edit, name="+".join((*seg, *det))
    )


_LOADED: dict[tuple[tuple[str, ...], tuple[str, ...]], Pipeline] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def _load(folder: Path, seg: Sequence[str], det: Sequence[str] = ()) -> Pipeline:
    key = tuple(seg), tuple(det)
    if key not in _LOADED:
        _LOADED[key] = Pipeline.load(_bundle(folder, seg, det), "onnxruntime-cpu", threads=1)
    return _LOADED[key]


def _result(labels: Any = None, boxes: Detections | None = None, used: bool = True) -> Result:
    values = {} if labels is None else {"segmentation": Segmentation(labels)}
    values |= {} if boxes is None else {"boxes2d": boxes}
    return Result(values, ("rgb",) if used else (), ("rgb",), "full", {}, 0)


tables = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)


@settings(max_examples=40)
@given(tables, tables, st.integers(0, 2**32 - 1))
def test_pixels_are_compared_by_the_names_of_their_classes(
    folder: Path, ours: list[str], theirs: list[str], seed: int
) -> None:
    pipeline, recording = _load(folder, ours), make_recording(theirs)
    if not set(ours) & set(theirs):
        with pytest.raises(ConfigError, match="share no class"):
            Scorer(pipeline, recording)
        return
    scorer = Scorer(pipeline, recording)
    known = {name if name in theirs else "background" for name in ours}
    assert scorer.lacking == [name for name in theirs if name not in known]
    rng = np.random.default_rng(seed)
    truth = rng.choice([*range(len(theirs)), 255], (9, 7)).astype(np.uint8)
    found = rng.integers(0, len(ours), (9, 7)).astype(np.uint8)
    scorer.add(_result(found), Truth(truth))
    scores = scorer.scores()
    # The same by names, one pixel after the other.
    said = [ours[i] if ours[i] in theirs else "background" for i in found.flat]
    true = ["" if i == 255 else theirs[i] for i in truth.flat]
    judged = [(s, t) for s, t in zip(said, true, strict=True) if t]
    ious = {}
    for name in theirs:
        both = sum(s == t == name for s, t in judged)
        either = sum(name in pair for pair in judged)
        ious[name] = both / either if name in true else None
    assert {k: row["iou"] for k, row in scores["per_class"].items()} == pytest.approx(ious)
    present = [v for v in ious.values() if v is not None]
    if not present:
        assert scores["miou"] is None and scores["judged"] == 0
        return
    assert scores["miou"] == pytest.approx(sum(present) / len(present))
    assert scores[f"miou_{len(theirs)}"] == pytest.approx(sum(present) / len(theirs))
    right = sum(s == t for s, t in judged)
    assert scores["pixel_accuracy"] == pytest.approx(right / len(judged))
    assert "ap50" not in scores


def _boxes(kinds: Sequence[int]) -> Boxes:
    left = 20.0 * np.arange(len(kinds))[:, None]
    return Boxes.of(np.hstack([left, 0 * left, left + 10, 0 * left + 10]), np.array(kinds))


def _found(kinds: Sequence[int]) -> Detections:
    truth = _boxes(kinds)
    return Detections(truth.xyxy, np.ones(len(kinds), np.float32), truth.class_ids)


def test_boxes_are_compared_by_the_names_of_their_classes(folder: Path) -> None:
    pipeline = _load(folder, ["road"], ["car", "tree", "wall"])
    scorer = Scorer(pipeline, make_recording([], ["tree", "person", "car"]))
    assert [*scorer.meters] == ["boxes2d"]
    assert scorer.lacking == ["person"]
    kept = scorer.meters["boxes2d"].detections(_found([1, 1, 2, 0]))
    assert kept.class_ids.tolist() == [0, 0, 2]
    assert np.array_equal(kept.xyxy, _boxes([1, 1, 2, 0]).xyxy[[0, 1, 3]])
    # Two trees, a person and a car are there; what is called a wall is none of the recording's classes.
    scorer.add(_result(boxes=_found([1, 1, 2, 0])), Truth(boxes=_boxes([0, 0, 1, 2])))
    scores = scorer.scores()
    assert scores["per_class"]["tree"] == pytest.approx({"ap50": 1, "ap": 1})
    assert scores["per_class"]["car"] == pytest.approx({"ap50": 1, "ap": 1})
    assert scores["per_class"]["person"] == {"ap50": 0, "ap": 0}
    assert scores["ap50"] == pytest.approx(2 / 3) and "miou" not in scores


def test_of_two_tasks_the_one_with_a_class_in_common_is_judged(folder: Path) -> None:
    pipeline = _load(folder, ["road", "wall"], ["car", "tree"])
    labels = np.zeros((4, 4), np.uint8)
    for seg, det, wanted in (
        (["road", "sky"], ["car"], {"miou", "ap50"}),
        (["road", "sky"], ["sky"], {"miou"}),
        (["sky"], ["tree"], {"ap50"}),
        (["road"], [], {"miou"}),
    ):
        scorer = Scorer(pipeline, make_recording(seg, det))
        scorer.add(_result(labels, _found([0])), Truth(labels, _boxes([0])))
        assert {"miou", "ap50"} & set(scorer.scores()) == wanted
    # What is only in the other task's table is not in common.
    with pytest.raises(ConfigError, match="share no class"):
        Scorer(pipeline, make_recording(["car", "sky"], ["road"]))
    only_segments = _load(folder, ["road"])
    with pytest.raises(ConfigError, match="share no class"):
        Scorer(only_segments, make_recording([], ["road"]))


def test_who_was_answered_and_judged_is_counted(folder: Path) -> None:
    pipeline = _load(folder, ["road", "wall"], ["car", "tree"])
    labels, blank = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    for truth, judged in (
        (Truth(), 0),
        (Truth(blank), 0),
        (Truth(labels), 1),
        (Truth(boxes=Boxes.empty()), 1),
        (Truth(blank, _boxes([0])), 1),
        (Truth(labels, _boxes([0])), 1),
    ):
        scorer = Scorer(pipeline, make_recording(["road"], ["car"]))
        for used in (True, True, False):
            scorer.add(_result(labels, Detections.empty(), used), truth)
        scores = scorer.scores()
        assert (scores["frames"], scores["answered"], scores["judged"]) == (3, 2, 3 * judged)
    # Truth of a task that is not judged counts for nothing.
    scorer = Scorer(pipeline, make_recording(["road"], ["person"]))
    scorer.add(_result(labels), Truth(boxes=_boxes([0])))
    assert scorer.scores()["judged"] == 0
    scorer = Scorer(pipeline, make_recording(["sky"], ["car"]))
    scorer.add(_result(labels), Truth(labels))
    assert scorer.scores()["judged"] == 0


def test_without_an_answer_everything_is_missed(folder: Path) -> None:
    scorer = Scorer(
        _load(folder, ["road", "wall"], ["car", "tree"]), make_recording(["road"], ["car"])
    )
    labels = np.zeros((4, 4), np.uint8)
    scorer.add(_result(labels, _found([0])), Truth(labels, _boxes([0])))
    scorer.add(_result(None, None, used=False), Truth(labels, _boxes([0])))
    scores = scorer.scores()
    assert scores["miou"] == 0.5 and scores["pixel_accuracy"] == 0.5
    assert scores["ap50"] == pytest.approx(51 / 101)


@given(st.integers(1, 4), st.integers(1, 4))
def test_labels_of_another_size_are_brought_to_the_truths(folder: Path, fy: int, fx: int) -> None:
    scorer = Scorer(_load(folder, ["road", "wall"]), make_recording(["wall", "road"]))
    meter = scorer.meters["segmentation"]
    labels = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(np.uint8)
    large = np.repeat(np.repeat(labels, fy, axis=0), fx, axis=1)
    got = meter.labels(Segmentation(labels), (3 * fy, 5 * fx))
    assert np.array_equal(got, 1 - large)
    assert np.array_equal(meter.labels(Segmentation(large), (3, 5)), 1 - labels)


def test_a_class_that_cannot_be_learned_is_left_out_of_the_mean(folder: Path) -> None:
    names = ["road", "otherprop"]
    truth = np.array([[0, 0, 0, 1]], np.uint8)
    found = np.array([[0, 0, 1, 0]], np.uint8)
    for kind, miou, accuracy in (("folder", (2 / 4 + 0) / 2, 2 / 4), ("nyuv2", 2 / 3, 2 / 3)):
        scorer = Scorer(_load(folder, names), make_recording(names, kind=kind))
        scorer.add(_result(found), Truth(truth))
        scores = scorer.scores()
        assert scores["miou"] == pytest.approx(miou)
        assert scores["pixel_accuracy"] == pytest.approx(accuracy)
        assert scores["miou_2"] == pytest.approx(0.25)


def test_a_subset_is_given_the_frames_that_have_its_sensors(folder: Path) -> None:
    pipeline = _load(folder, ["road", "wall", "tree"])
    both, truth = ("rgb", "depth"), Truth(np.zeros(GRID, np.uint8))
    held = [both, ("rgb",), ("depth",), both, ()]
    recording = make_recording(["road", "wall", "tree"], [], held, [truth] * 5)
    seen: list[int] = []
    found = evaluate_subsets(
        pipeline, recording, [both, ("rgb",), ("depth",)], lambda: seen.append(1)
    )
    assert len(seen) == 3 * 5
    assert {k: (v["frames"], v["answered"]) for k, v in found.items()} == {
        "rgb+depth": (2, 2),
        "rgb": (3, 3),
        "depth": (3, 3),
    }
    # What is not of the subset is not given: the labels are those of the one sensor alone.
    for subset, row in (((both), "rgb+depth"), (("rgb",), "rgb"), (("depth",), "depth")):
        scorer = Scorer(pipeline, recording)
        for index in range(5):
            frame = recording.frame(index)
            if set(subset) <= set(frame):
                pipeline.reset()
                scorer.add(pipeline({m: frame[m] for m in subset}), recording.truth(index))
        assert scorer.scores() == found[row]
    assert found["rgb"]["miou"] != found["depth"]["miou"]


def test_the_threshold_of_average_precision_lets_unsure_boxes_through(folder: Path) -> None:
    pipeline = _load(folder, ["road"], ["car", "tree"])
    frame = make_recording(sensors=[("rgb",)]).frame(0)
    counts = []
    for score in (LOW_SCORE, 0.05, 0.99):
        pipeline.reset()
        pipeline.min_score = score
        counts.append(len(pipeline(frame).boxes or ()))
    pipeline.min_score = None
    assert counts[0] >= counts[1] > counts[2]

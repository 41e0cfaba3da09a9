"""What is held against a backend: falls of scores, its tolerance, and where it is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_memory import make_recording
from small_bundles import SmallBundles, fuser

from perception.data.base import Boxes, Recording, Truth
from perception.errors import BundleError, DataError
from perception.evaluation.backends import (
    changes,
    judge_backends,
    largest_loss,
    record_backends,
    score_pipeline,
)
from perception.evaluation.evaluate import evaluate_subsets
from perception.runtime.bundle import Bundle
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.pipeline import Pipeline
from perception.tasks.registry import TASKS

RGB = ("rgb",)
SHOWN = ["miou", "ap50", "pixel_accuracy", "ap"]

rows = st.dictionaries(
    st.sampled_from([*SHOWN, "frames", "miou_3"]), st.one_of(st.none(), st.floats(0, 1))
)


@given(rows, rows)
def test_changes_are_in_points_of_the_scores_that_both_have(
    found: dict[str, Any], wanted: dict[str, Any]
) -> None:
    (change,) = changes({"rgb": found}, {"rgb": wanted, "depth": {}}, TASKS).values()
    both = [n for n in SHOWN if found.get(n) is not None and wanted.get(n) is not None]
    assert sorted(change) == sorted(both)
    for name in both:
        assert change[name] == pytest.approx(100 * found[name] - 100 * wanted[name], abs=6e-4)
        assert change[name] == round(change[name], 3)


@given(st.lists(st.dictionaries(st.sampled_from(SHOWN), st.floats(-50, 50)), max_size=4))
def test_the_largest_loss_is_that_of_miou_or_ap50(table: list[dict[str, float]]) -> None:
    """Negative where all rose; pixel accuracy and the stricter AP are shown, not judged."""
    judged = [row[n] for row in table for n in ("miou", "ap50") if n in row]
    wanted = -min(judged) if judged else 0.0
    assert largest_loss({str(i): row for i, row in enumerate(table)}, TASKS) == wanted


def _recording(bundle: Path, **heads: bool) -> Recording:
    """Frames whose truth is what the bundle itself says, with boxes of any score."""
    pipeline = Pipeline.load(bundle, REFERENCE, threads=1, min_score=0.01)
    names = [f"class {i}" for i in range(3)]
    frames = make_recording(names, names, [RGB] * 4)
    truths = []
    for index in range(4):
        found = pipeline(frames.frame(index))
        pipeline.reset()
        boxes = found.boxes and Boxes.of(found.boxes.xyxy, found.boxes.class_ids)
        truths.append(Truth(found.labels, boxes))
    return make_recording(names, names, [RGB] * 4, truths)


def test_the_reference_on_its_own_loses_nothing(small: SmallBundles) -> None:
    bundle = small()
    scores, judged = judge_backends(bundle, _recording(bundle), [REFERENCE], [RGB], threads=1)
    record = judged[REFERENCE].record
    assert scores["rgb"]["miou"] == 1.0 and judged[REFERENCE].scores is scores
    assert (record.passed, record.lost, record.probe_error, record.frames) == (True, 0, 0, 4)
    assert record.tolerance == 1.0 and record.data == "memory"
    # It is what others are held against: nothing to record.
    record_backends(bundle, judged)
    assert Bundle.open(bundle).records.backends == {}
    with pytest.raises(DataError, match="no labels to judge by"):
        judge_backends(bundle, make_recording(["class 0"], [], [RGB]), [REFERENCE], [RGB])


def test_another_bundle_is_held_against_the_one_it_was_made_from(small: SmallBundles) -> None:
    original = small(name="original")
    recording = _recording(original)

    def say(content: dict[str, Any]) -> None:
        content["precision"] = "int8"

    made = small(graphs={"fuser.onnx": fuser(seed=7)}, edit=say, name="made")

    def judge(tolerance: float) -> Any:
        scores, judged = judge_backends(
            made, recording, [REFERENCE], [RGB], reference_bundle=original, tolerance=tolerance
        )
        assert scores["rgb"]["miou"] == 1.0
        return judged

    record = judge(1.0)[REFERENCE].record
    own = score_pipeline(Pipeline.load(made, REFERENCE, threads=1), recording, [RGB])["rgb"]
    assert 0 < own["miou"] < 0.9
    assert record.lost == pytest.approx(100 * (1 - own["miou"]), abs=6e-4)
    assert record.change["rgb"]["miou"] == -record.lost
    assert not record.passed and record.tolerance == 1.0
    # The same engine on the same graphs: its numbers are its own.
    assert record.probe_error == 0
    for tolerance, passed in ((record.lost - 0.01, False), (record.lost + 0.01, True)):
        assert judge(tolerance)[REFERENCE].record.passed is passed
    # An int8 bundle is written what it costs on the reference, too.
    judged = judge(50.0)
    assert record_backends(made, judged) == made
    assert Bundle.open(made).records.backends == {REFERENCE: judged[REFERENCE].record}


def test_a_fall_of_just_the_tolerance_is_allowed(small: SmallBundles) -> None:
    original = small(name="original")
    recording = _recording(original)
    args = (recording, [REFERENCE], [RGB])
    _, judged = judge_backends(original, *args, reference_bundle=original, tolerance=0.0)
    assert judged[REFERENCE].record.lost == 0 and judged[REFERENCE].record.passed


def test_other_backends_are_recorded_beside_those_before(small: SmallBundles) -> None:
    bundle = small()
    _, judged = judge_backends(bundle, _recording(bundle), [REFERENCE], [RGB], threads=1)
    one = judged[REFERENCE]
    for name in ("first", "second"):
        record_backends(bundle, {name: type(one)(name, one.scores, one.record)})
    assert set(Bundle.open(bundle).records.backends) == {"first", "second"}
    packed = shutil.make_archive(str(bundle), "zip", bundle)
    with pytest.raises(BundleError, match="is a zip"):
        record_backends(packed, judged)


def test_boxes_of_low_scores_count_for_average_precision_only(small: SmallBundles) -> None:
    bundle = small(detection=3)
    recording = _recording(bundle)
    pipeline = Pipeline.load(bundle, REFERENCE, threads=1, min_score=0.01)
    scores = pipeline(recording.frame(0)).boxes.scores  # type: ignore[union-attr]
    middle = float(np.median(scores))
    assert scores.min() < middle
    pipeline.min_score = middle
    row = score_pipeline(pipeline, recording, [RGB])["rgb"]
    assert pipeline.min_score == middle
    without = evaluate_subsets(pipeline, recording, [RGB])["rgb"]
    pipeline.min_score = 0.01
    assert row == evaluate_subsets(pipeline, recording, [RGB])["rgb"]
    assert without["ap50"] < row["ap50"] and without["miou"] == row["miou"]

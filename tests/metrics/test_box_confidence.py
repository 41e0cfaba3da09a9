"""Scores of boxes as probabilities: what is fitted, what changes, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import make_recording
from numpy.typing import NDArray
from scipy.optimize import minimize
from small_bundles import GRID, SmallBundles

from export.calibrated import subset_rows, write_calibrated
from perception.data.base import Boxes, Recording, Truth
from perception.errors import BundleError, DataError, InputError
from perception.evaluation.confidence import calibrate_confidence
from perception.frame import Frame
from perception.metrics import average_precision, fit_scaling, fit_scalings
from perception.metrics.scaling import FARTHEST, HIGHEST, LOWEST, OFFSETS_APART, SLOPES_APART
from perception.runtime.bundle import Bundle
from perception.runtime.manifest import check_manifest
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.tasks.boxes2d import BOXES2D, Boxes2dSpec, BoxesMeter, ScoreScaling
from perception.tasks.detections import Detections
from perception.tasks.spec import ClassSpec

BOTH = ("rgb", "depth")
INPUTS = {"rgb": ("rgb", "rgb"), "depth": ("depth", "depth")}


def _nll(x: NDArray[Any], wanted: NDArray[Any], slope: float, offset: float) -> float:
    z = slope * x.astype(np.float64) + offset
    return float((np.logaddexp(0, z) - wanted * z).mean())


def test_a_known_line_is_found() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(-0.5, 0.8, 200_000).astype(np.float32)
    right = rng.random(len(logits)) < 1 / (1 + np.exp(-(4 * logits + 3)))
    found = fit_scaling(logits, right)
    assert found.slope == pytest.approx(4, rel=0.03) and found.offset == pytest.approx(3, rel=0.03)
    assert found.nll < found.nll_before and found.samples == len(logits)
    assert found.rounded(2).numbers == {
        "slope": round(found.slope, 2),
        "offset": round(found.offset, 2),
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.floats(-6, 6), st.floats(-4, 4))
def test_the_line_is_the_best_one(seed: int, count: int, slope: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=count).astype(np.float32)
    right = rng.random(count) < 1 / (1 + np.exp(-(slope * logits + offset)))
    found = fit_scaling(logits, right)
    assert LOWEST <= found.slope <= HIGHEST and abs(found.offset) <= FARTHEST
    assert found == fit_scaling(logits, right)
    hits = right.sum()
    wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (count - hits + 2))
    best = minimize(
        lambda line: _nll(logits, wanted, *line),
        (1.0, 0.0),
        bounds=((LOWEST, HIGHEST), (-FARTHEST, FARTHEST)),
    )
    assert _nll(logits, wanted, found.slope, found.offset) <= best.fun + 1e-6


def _answers(rng: np.random.Generator, count: int, slope: float, offset: float) -> Any:
    logits = rng.normal(-0.5, 0.8, count).astype(np.float32)
    return logits, rng.random(count) < 1 / (1 + np.exp(-(slope * logits + offset)))


def test_lines_of_many_answers_are_their_own_and_of_few_those_of_all() -> None:
    rng = np.random.default_rng(5)
    true = [(5.0, 4.0), (3.0, 2.0), (4.0, 2.0)]
    many = fit_scalings([_answers(rng, 200_000, *line) for line in true])
    for found, (slope, offset) in zip(many, true, strict=True):
        assert found.slope == pytest.approx(slope, rel=0.04)
        assert found.offset == pytest.approx(offset, rel=0.04)
    few = [_answers(rng, 30, *line) for line in true]
    apart = lambda lines: np.ptp([[f.slope, f.offset] for f in lines], axis=0)  # noqa: E731
    together, alone = apart(fit_scalings(few)), apart([fit_scaling(*one) for one in few])
    assert (together < 0.5 * alone).all() and (together < (0.2, 0.6)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_lines_together_are_the_best_ones(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    groups = [_answers(rng, n, *rng.normal((4, 3), 1.0)) for n in counts]

    def cost(flat: NDArray[Any]) -> float:
        lines = flat.reshape(-1, 2)
        value = float(
            ((lines - lines.mean(0)) ** 2 / (SLOPES_APART**2, OFFSETS_APART**2)).sum() / 2
        )
        for (x, right), line in zip(groups, lines, strict=True):
            hits = right.sum()
            wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (len(x) - hits + 2))
            value += len(x) * _nll(x, wanted, *line)
        return value

    found = fit_scalings(groups)
    assert [f.samples for f in found] == counts
    bounds = ((LOWEST, HIGHEST), (-FARTHEST, FARTHEST)) * len(groups)
    best = minimize(cost, np.tile((4.0, 3.0), len(groups)), bounds=bounds, options={"maxiter": 500})
    inside = all(LOWEST < f.slope < HIGHEST for f in found)
    if inside:  # at a bound the others are not moved with it
        assert cost(np.array([[f.slope, f.offset] for f in found]).ravel()) <= best.fun + 1e-4
    turned = fit_scalings(groups[::-1])[::-1]
    for one, other in zip(found, turned, strict=True):
        assert one.slope == pytest.approx(other.slope, abs=1e-4)
        assert one.offset == pytest.approx(other.offset, abs=1e-4)


def test_of_no_groups_there_are_no_lines() -> None:
    assert fit_scalings([]) == []


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_alike_nothing_is_promised_for_sure(right: bool) -> None:
    found = fit_scaling(np.linspace(-1, 1, 20, dtype=np.float32), np.full(20, right))
    sure = ScoreScaling(**found.numbers)(np.full(1, 0.5, np.float32))[0]
    assert sure == pytest.approx(21 / 22 if right else 1 / 22, abs=1e-3)


@pytest.mark.parametrize(
    ("logits", "right", "text"),
    [
        (np.zeros(0), np.zeros(0, bool), "no samples"),
        (np.zeros(2), np.zeros(3, bool), "no samples"),
        (np.zeros((2, 2)), np.zeros((2, 2), bool), "no samples"),
        (np.full(1, np.inf), np.zeros(1, bool), "not finite"),
    ],
)
def test_samples_that_are_none_are_refused(logits: NDArray, right: NDArray, text: str) -> None:
    with pytest.raises(InputError, match=text):
        fit_scaling(logits.astype(np.float32), right)


@settings(max_examples=60)
@given(
    st.floats(LOWEST, HIGHEST),
    st.floats(-FARTHEST, FARTHEST),
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30),
)
def test_confidence_rises_with_the_score(slope: float, offset: float, scores: list[float]) -> None:
    found = ScoreScaling(slope=slope, offset=offset)(np.sort(np.array(scores, np.float32)))
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert (found >= 0).all() and (found <= 1).all() and (np.diff(found) >= 0).all()


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    def edit(content: dict[str, Any]) -> None:
        content["tasks"]["boxes2d"]["score_threshold"] = 0.05

    return small.named(INPUTS, 3, 2, edit=edit)


def _pipeline(bundle: Path, **options: Any) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1, **options)


@pytest.fixture
def recording(bundle: Path) -> Recording:
    """Of the boxes that the bundle gives from all sensors, the more sure ones are right more often."""
    pipeline, rng = _pipeline(bundle), np.random.default_rng(1)
    names, sensors = ["class 0", "class 1"], [BOTH] * 40
    empty = make_recording(det=names, sensors=sensors)
    truths = []
    for index in range(len(empty)):
        pipeline.reset()
        found = pipeline(empty.frame(index)).boxes
        assert found is not None and len(found)
        line = ScoreScaling(slope=3.0, offset=1.0)
        kept = rng.random(len(found)) < line(found.scores)
        truths.append(Truth(boxes=Boxes.of(found.xyxy[kept], found.class_ids[kept]), size=GRID))
    made = make_recording(det=names, sensors=sensors, truths=truths)
    made.scene = lambda index: str(index // 2)  # type: ignore[method-assign]
    return made


def test_confidence_is_told_beside_scores_that_stay(
    bundle: Path, recording: Recording, tmp_path: Path
) -> None:
    pipeline = _pipeline(bundle)
    found = calibrate_confidence(pipeline, recording)
    assert list(found.temperatures) == ["boxes2d"]
    row = subset_rows(found)["rgb+depth"]
    assert row["box_ece"] < row["box_ece_before"]
    assert row["box_aurc"] == pytest.approx(row["box_aurc_before"], abs=0.01)
    assert {"slope", "offset", "nll_fitted", "nll_fitted_before"} <= set(row)
    for subset, scorer in found.after.items():
        before, after = found.before[subset].scores(), scorer.scores()
        assert before["ap50"] == after["ap50"] and before["ap"] == after["ap"]
    out = write_calibrated(pipeline.bundle, found, tmp_path / "out", "half", {})
    new = _pipeline(out)
    assert new.manifest == found.manifest
    frame = recording.frame(0)
    old, now = pipeline(frame), new(frame)
    assert old.boxes.confidence is None and now.boxes.confidence.dtype == np.float32
    for name in ("xyxy", "scores", "class_ids"):
        assert np.array_equal(getattr(old.boxes, name), getattr(now.boxes, name))
    assert (np.diff(now.boxes.confidence) <= 0).all()  # best first
    spec = new.manifest.tasks.boxes2d
    told = BOXES2D.to_dict(now.boxes, spec)["boxes"]
    assert [box["confidence"] for box in told] == [round(float(c), 4) for c in now.boxes.confidence]
    assert "confidence" not in BOXES2D.to_dict(old.boxes, spec)["boxes"][0]


def test_derating_is_of_scores_alone(small: SmallBundles, recording: Recording) -> None:
    """Confidence has a scaling for the sensors that are left; where it has none, there is no confidence."""

    def edit(content: dict[str, Any]) -> None:
        own = {"rgb": {"slope": 2.0, "offset": 0.5}}
        content["tasks"]["boxes2d"] |= {"score_threshold": 0.05, "scalings": own}

    made = small.named(INPUTS, 3, 2, edit=edit, name="scaled")
    whole, frame = recording.frame(0), recording.frame(0)
    alone = Frame({"rgb": frame["rgb"]}, 10**9)
    plain, derated = _pipeline(made), _pipeline(made, policy=Policy(derating=0.5))
    assert plain(whole).boxes.confidence is None
    first, second = plain(alone).boxes, derated(alone).boxes
    assert np.array_equal(second.scores, first.scores * np.float32(0.5))
    assert np.array_equal(second.confidence, first.confidence)
    assert np.array_equal(first.confidence, ScoreScaling(slope=2, offset=0.5)(first.scores))


@pytest.mark.parametrize("name", ["indoor-rgbd", "road-rgbt", "sim-rgbdtl", "sim-stereo"])
def test_a_manifest_without_new_fields_is_written_as_it_was_read(name: str) -> None:
    """So that versions that know nothing of them go on reading it."""
    old = Path(__file__).parents[1] / "old_files" / "schema2" / f"{name}.yaml"
    content = yaml.safe_load(old.read_text())
    found = check_manifest(content, name).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert found == content


@pytest.mark.parametrize(
    ("scalings", "text"),
    [
        ({"depth+rgb": {"slope": 1, "offset": 0}}, "no subset"),
        ({"rgb": {"slope": -1, "offset": 0}}, "slope"),
        ({"rgb": {"slope": 0, "offset": 0}}, "slope"),
        ({"rgb": {"slope": float("nan"), "offset": 0}}, "slope"),
        ({"rgb": {"slope": 1, "offset": 1e9}}, "offset"),
        ({"rgb": {"slope": 1}}, "offset"),
        ({"rgb": {"slope": 1, "offset": 0, "gain": 1}}, "gain"),
        ({"rgb": 2.0}, "scalings"),
    ],
)
def test_scalings_that_are_none_are_refused(bundle: Path, scalings: Any, text: str) -> None:
    content = yaml.safe_load((bundle / "bundle.yaml").read_text())
    content["tasks"]["boxes2d"]["scalings"] = scalings
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BundleError, match=text) as caught:
        Bundle.open(bundle)
    assert "\n" not in str(caught.value)


def test_without_any_box_nothing_can_be_fitted(small: SmallBundles, recording: Recording) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["tasks"]["boxes2d"]["score_threshold"] = 0.9999

    made = small.named(INPUTS, 3, 2, edit=edit, name="silent")
    with pytest.raises(DataError, match="could be fitted to"):
        calibrate_confidence(_pipeline(made), recording)


@pytest.mark.parametrize("name", ["road-rgbt", "sim-rgbdtl", "sim-stereo"])
def test_shipped_bundles_say_how_often_their_boxes_are_right(name: str) -> None:
    """Their records tell what it is worth in scenes that it was not fitted to, and of these lines."""
    bundle = Bundle.open(Path(__file__).parents[2] / "bundles" / name)
    spec = bundle.manifest.tasks["boxes2d"]
    subsets = {"+".join(subset) for subset in bundle.manifest.subsets}
    assert set(spec.scalings) == subsets  # type: ignore[attr-defined]
    (entry,) = (e for e in bundle.records.accuracy.values() if "bundle temperatures" in str(e))
    assert set(entry["subsets"]) == subsets and "--folds" in entry["command"]
    for subset, row in entry["subsets"].items():
        # Scenes can be simulated at will; of road-rgbt's few boxes chance alone makes more than 0.05.
        most = 0.05 if bundle.manifest.simulated else row["box_ece_before"] / 2
        assert row["box_ece"] < most, subset
        line = spec.scalings[subset]  # type: ignore[attr-defined]
        assert (row["slope"], row["offset"]) == (line.slope, line.offset)


def test_precision_is_found_once_for_the_same_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(frames: Any, classes: int) -> Any:
        asked.append(len(frames))
        return average_precision(frames, classes)

    monkeypatch.setattr("perception.tasks.boxes2d.average_precision", counted)
    info = make_recording(det=["a"], sensors=[BOTH]).info
    spec = Boxes2dSpec(classes=(ClassSpec(id=0, name="a", color=(0, 0, 0)),))
    meter = BoxesMeter(spec, info)
    box, one = np.array([[1, 2, 9, 8]], np.float32), np.ones(1, np.float32)
    found = Detections(box, one, np.zeros(1, np.int64))
    meter.add(found, Truth(boxes=Boxes.of(box, [0]), size=GRID), GRID)
    assert meter.scores()["ap50"] == meter.per_class()["a"]["ap50"] == 1
    meter.add(Detections.empty(), Truth(boxes=Boxes.of(box, [0]), size=GRID), GRID)
    assert meter.scores()["ap50"] == pytest.approx(51 / 101) and asked == [1, 2]

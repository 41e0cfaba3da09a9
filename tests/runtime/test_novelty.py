"""What is far from training: the score, what it does to confidence, what is fitted, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from in_memory import make_recording
from numpy.typing import NDArray
from small_bundles import GRID, SmallBundles

from perception.cli.main import main
from perception.data.base import Recording
from perception.errors import BundleError, ConfigError, DataError
from perception.evaluation.novelty import features_of, fit_novelty
from perception.frame import Frame, Sample
from perception.metrics import auroc
from perception.runtime.bundle import Bundle
from perception.runtime.novelty import (
    ChannelStatistics,
    FarFromTraining,
    InputNovelty,
    NoveltyScore,
    channel_means,
)
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy

INPUTS = {"rgb": ("rgb", "rgb"), "depth": ("depth", "depth")}
BOTH = ("rgb", "depth")


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 5)).flatmap(
        lambda shape: arrays(np.float32, (1, *shape), elements=st.floats(-100, 100, width=32))
    ),
    st.integers(1, 5),
)
def test_means_are_those_of_the_bands(feature: NDArray[Any], bands: int) -> None:
    rows = feature.shape[2]
    wanted = []
    for band in range(bands):
        first, last = band * rows // bands, (band + 1) * rows // bands
        wanted.append(feature[0, :, first : max(last, first + 1)].mean(axis=(1, 2)))
    found = channel_means(feature, bands)
    assert found.dtype == np.float32 and found.shape == (bands * feature.shape[1],)
    assert np.allclose(found, np.concatenate(wanted), atol=1e-3)


def test_features_without_a_picture_are_their_own_means() -> None:
    assert np.array_equal(channel_means(np.float32([[1, 2, 3]])), [1, 2, 3])


def test_the_distance_by_hand() -> None:
    own = ChannelStatistics(mean=(1.0, 2.0), std=(0.5, 2.0))
    known = NoveltyScore(InputNovelty(features={"rgb.f": own}, limit=2.0))
    feature = np.zeros((1, 2, 3, 4), np.float32)
    feature[0, 0], feature[0, 1] = 4.0, 10.0  # 6 and 4 standard deviations off
    assert known.of({"rgb.f": feature}) == pytest.approx(np.sqrt((36 + 16) / 2) / 2)
    assert known.of({}) is None and known.of({"rgb.f": object()}) is None
    assert known.of({"rgb.f": np.zeros((1, 3, 1, 1), np.float32)}) is None


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 3), max_size=8), st.lists(st.integers(-3, 3), max_size=8))
def test_auroc_is_the_share_of_pairs_in_order(low: list[int], high: list[int]) -> None:
    found = auroc(np.array(low, float), np.array(high, float))
    pairs = [1.0 if h > v else 0.5 if h == v else 0.0 for v in low for h in high]
    assert found == pytest.approx(np.mean(pairs)) if pairs else np.isnan(found)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=4), st.floats(0, 10))
def test_confidence_falls_and_never_rises(novelty: list[float], power: float) -> None:
    factor = Policy(novelty_derating=power).familiarity(novelty)
    assert 0 < factor <= 1 and (factor == 1) == (power == 0 or max(novelty) <= 1 or factor == 1)
    worse = Policy(novelty_derating=power).familiarity([n + 1 for n in novelty])
    assert worse <= factor


@pytest.mark.parametrize("power", [-0.1, 10.1, float("nan")])
def test_a_power_that_makes_no_sense_is_refused(power: float) -> None:
    with pytest.raises(ConfigError, match="novelty_derating"):
        Policy(novelty_derating=power)


def _known(small: SmallBundles, novelty: dict[str, Any], name: str = "known") -> Path:
    def edit(content: dict[str, Any]) -> None:
        content["novelty"] = novelty
        content["tasks"]["boxes2d"]["score_threshold"] = 0.05

    return small.named(INPUTS, 3, 2, edit=edit, name=name)


def _load(bundle: Path, **options: Any) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1, **options)


def _about(pipeline: Pipeline, frame: Frame, limit: float) -> dict[str, Any]:
    """Statistics under which rgb's features of this frame are `1 / limit` from training."""
    features = features_of(pipeline, frame["rgb"])
    assert features is not None
    means = channel_means(features["rgb.f"]).astype(float)
    own = {"mean": (means - 1).tolist(), "std": [1.0] * len(means)}
    return {"rgb": {"features": {"rgb.f": own}, "limit": limit}}


@pytest.fixture
def frame() -> Frame:
    return make_recording(["class 0"], sensors=[BOTH]).frame(0)


def test_near_to_training_nothing_changes(small: SmallBundles, frame: Frame) -> None:
    plain = _load(small.named(INPUTS, 3, 2))
    near = _load(_known(small, _about(plain, frame, 1.25)))
    first, second = plain(frame), near(frame)
    assert first.novelty == {} and second.novelty == {"rgb": pytest.approx(0.8, rel=1e-3)}
    assert second.far == () and second.lines == ()
    assert np.array_equal(first.labels, second.labels)
    assert first.confidence.tobytes() == second.confidence.tobytes()


def test_far_from_training_confidence_falls_and_says_so(small: SmallBundles, frame: Frame) -> None:
    plain = _load(_known(small, {}, "plain"))
    bundle = _known(small, _about(plain, frame, 0.25))
    far = _load(bundle)
    first, second = plain(frame), far(frame)
    assert second.novelty == {"rgb": pytest.approx(4, rel=1e-3)} and second.far == ("rgb",)
    factor = far.policy.familiarity(second.novelty.values())
    assert factor == pytest.approx(0.25, rel=1e-3)
    assert np.array_equal(first.labels, second.labels)
    assert np.allclose(second.confidence, factor * first.confidence)
    assert np.allclose(second.boxes.scores, factor * first.boxes.scores)
    # It is used all the same, its health is well, and it is named and counted.
    assert second.used == first.used and second.state == "full" and second.health["rgb"] == "ok"
    (warning,) = second.warnings
    assert warning.sensor == "rgb" and "far from training" in warning.text
    assert far.counters["unfamiliar_rgb"] == 1
    # Without rgb nothing is known, and nothing is said.
    rest = far(Frame({"depth": frame["depth"]}, 10**9))
    assert rest.novelty == {} and rest.lines == ()
    kept = _load(bundle, policy=Policy(novelty_derating=0))
    third = kept(frame)
    assert third.confidence.tobytes() == first.confidence.tobytes() and third.far == ("rgb",)


def test_calibrated_confidence_falls_too(small: SmallBundles, frame: Frame) -> None:
    """What was calibrated knows of missing sensors, not of what was never seen."""
    plain = _load(small.named(INPUTS, 3, 2))
    novelty = _about(plain, frame, 0.5)

    def edit(content: dict[str, Any], known: bool) -> None:
        content["tasks"]["segmentation"]["temperatures"] = {"rgb": 1.5}
        own = {"rgb": {"slope": 1.5, "offset": 0.1}}
        content["tasks"]["boxes2d"] |= {"score_threshold": 0.05, "scalings": own}
        content["novelty"] = novelty if known else {}

    alone = Frame({"rgb": frame["rgb"]}, 10**9)
    results = []
    for known in (False, True):
        made = small.named(INPUTS, 3, 2, edit=lambda c, k=known: edit(c, k), name=f"c{known}")
        results.append(_load(made, policy=Policy(derating=0.3))(alone))
    without, having = results
    assert np.allclose(having.confidence, 0.5 * without.confidence, rtol=1e-3)
    assert np.allclose(having.boxes.confidence, 0.5 * without.boxes.confidence, rtol=1e-3)


def test_a_single_frame_beyond_the_limit_is_no_state() -> None:
    far = FarFromTraining(after=3)
    for novelty, wanted in [(2, ""), (0.5, ""), (2, ""), (3, ""), (4, "4.0"), (9, "9.0")]:
        far.note({"rgb": float(novelty)})
        line = far.line("rgb")
        assert (wanted in line and "far from training" in line) if wanted else not line
    for _ in range(6):
        far.note({"rgb": 0.9, "depth": 0.1})
    assert far.line("rgb") == "" and far.novelty("rgb") == 0.9 and far.novelty("lidar") is None


OWN = {"mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.mark.parametrize(
    ("novelty", "text"),
    [
        ({"lidar": {"features": {"rgb.f": OWN}, "limit": 1}}, "'lidar' is no input"),
        ({"rgb": {"features": {"rgb.g": OWN}, "limit": 1}}, "gives no rgb.g"),
        ({"rgb": {"features": {"depth.f": OWN}, "limit": 1}}, "gives no depth.f"),
        ({"rgb": {"features": {"rgb.f": {"mean": [0], "std": [1]}}, "limit": 1}}, "1 channels"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": 1, "bands": 2}}, "1.5 channels"),
        ({"rgb": {"features": {"rgb.f": {**OWN, "std": [1, 1]}}, "limit": 1}}, "3 means, but 2"),
        ({"rgb": {"features": {"rgb.f": {**OWN, "std": [1, 0, 1]}}, "limit": 1}}, "std"),
        ({"rgb": {"features": {"rgb.f": {**OWN, "mean": [1, float("nan"), 1]}}, "limit": 1}}, "mean"),
        ({"rgb": {"features": {"rgb.f": {**OWN, "mean": [1, 1e300, 1]}}, "limit": 1}}, "mean"),
        ({"rgb": {"features": {}, "limit": 1}}, "features"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": 0}}, "limit"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": float("inf")}}, "limit"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": 1, "bands": 0}}, "bands"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": 1, "bands": 10**9}}, "bands"),
        ({"rgb": {"features": {"rgb.f": OWN}}}, "limit"),
        ({"rgb": {"features": {"rgb.f": OWN}, "limit": 1, "why": 1}}, "why"),
        ({"rgb": 1}, "novelty"),
        ([1], "novelty"),
    ],
)  # fmt: skip
def test_statistics_that_do_not_fit_are_refused(
    small: SmallBundles, novelty: Any, text: str
) -> None:
    with pytest.raises(BundleError, match=text) as caught:
        Bundle.open(_known(small, novelty))
    assert "\n" not in str(caught.value)


def _scenes(recording: Recording, length: int = 2) -> Recording:
    recording.scene = lambda index: str(index // length)  # type: ignore[method-assign]
    return recording


def test_what_is_fitted_knows_its_own_frames(small: SmallBundles, tmp_path: Path) -> None:
    pipeline = _load(small.named(INPUTS, 3, 2))
    recording = make_recording(["class 0"], sensors=[BOTH] * 40)
    held_out = _scenes(make_recording(["class 0"], sensors=[BOTH] * 20))
    found = fit_novelty(pipeline, recording, held_out)
    assert set(found.novelty) == set(BOTH) and found.manifest.version == "2"
    assert found.frames == {"rgb": 40, "depth": 40}
    assert all(share <= 0.5 for share in found.beyond.values())
    again = fit_novelty(pipeline, recording, held_out)
    assert again.manifest == found.manifest
    known = found.novelty["rgb"]
    assert list(known.features) == ["rgb.f"] and known.bands == 2
    score = NoveltyScore(known)
    gray = Sample("rgb", np.full((*GRID, 3), 250, np.uint8), stamp_ns=0)
    clean = features_of(pipeline, recording.frame(0)["rgb"])
    far, near = (score.of(features or {}) for features in (features_of(pipeline, gray), clean))
    assert far is not None and near is not None and far > 1 > near * 0.7


def test_of_few_frames_each_is_judged_by_the_limit_of_the_others(small: SmallBundles) -> None:
    pipeline = _load(small.named(INPUTS, 3, 2))
    recording = make_recording(["class 0"], sensors=[BOTH] * 40)
    held_out = _scenes(make_recording(["class 0"], sensors=[BOTH] * 20), 4)
    found = fit_novelty(pipeline, recording, held_out, folds=5)
    halved = fit_novelty(pipeline, recording, held_out)
    assert (found.folds, halved.folds, found.limited.scenes) == (5, None, 5)
    assert len(found.limited.recording) == len(found.judged.recording) == 20
    for sensor in BOTH:
        known = found.novelty[sensor]
        assert known.features == halved.novelty[sensor].features
        samples = [held_out.frame(i)[sensor] for i in range(20)]
        told = [NoveltyScore(known).of(features_of(pipeline, s) or {}) for s in samples]
        distances = np.array(told, float) * known.limit
        assert known.limit == pytest.approx(np.quantile(distances, 0.99), rel=1e-4)
        far = 0
        for scene in range(5):
            own = np.arange(20) // 4 == scene
            limit = float(f"{np.quantile(distances[~own], 0.99):.5g}")
            far += int((distances[own] > limit).sum())
        assert found.beyond[sensor] == far / 20
    with pytest.raises(DataError, match="too few for 6 parts"):
        fit_novelty(pipeline, recording, held_out, folds=6)


def test_what_cannot_be_fitted_is_said(small: SmallBundles) -> None:
    pipeline = _load(small.named(INPUTS, 3, 2))
    many = make_recording(["class 0"], sensors=[BOTH] * 12)
    with pytest.raises(DataError, match="one scene"):
        fit_novelty(pipeline, many, make_recording(["class 0"], sensors=[BOTH] * 4))
    few = make_recording(["class 0"], sensors=[BOTH] * 7)
    with pytest.raises(DataError, match=r"7 usable frames of rgb, 8 are the least"):
        fit_novelty(pipeline, few, _scenes(many))
    other = _load(small.named({"lidar": ("lidar", "lidar")}, 3, 2, name="other"))
    with pytest.raises(ConfigError, match="none of its sensors"):
        fit_novelty(other, many, _scenes(many))


@pytest.mark.parametrize(
    ("held_out", "text"),
    [
        ("vall", "val"),
        ("all", "another split"),
        ("folder:nowhere", "nowhere"),
        ("sonar:x", "sonar"),
    ],
)
def test_held_out_frames_that_are_none_are_refused(
    small: SmallBundles,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    held_out: str,
    text: str,
) -> None:
    made = small.named(INPUTS, 3, 2)
    out = tmp_path / "out"
    given = ["bundle", "novelty", str(made), "--data", f"folder:{simulated}"]
    assert main([*given, "--held-out", held_out, "--out", str(out)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert text in told and "Traceback" not in told and not out.exists()


@pytest.mark.parametrize("folds", [[], ["--folds", "3"]])
def test_a_bundle_with_novelty_from_the_command_line(
    small: SmallBundles,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folds: list[str],
) -> None:
    made = small.named(INPUTS, 3, 2)
    out, numbers = tmp_path / "out", tmp_path / "n.json"
    held_out = shutil.copytree(simulated, tmp_path / "held out")
    done = main(
        ["bundle", "novelty", str(made), "--data", f"folder:{simulated}", "--held-out",
         f"folder:{held_out}", "--block", "1", "--out", str(out), "--json", str(numbers),
         "--threads", "1", *folds]
    )  # fmt: skip
    assert done == 0, capsys.readouterr().err
    old, new = Bundle.open(made), Bundle.open(out)
    assert new.manifest.files == old.manifest.files and not old.manifest.novelty
    content = json.loads(numbers.read_text())
    assert set(content["inputs"]) == set(new.manifest.novelty) == set(old.manifest.inputs.names)
    for name, row in content["inputs"].items():
        assert row["limit"] == new.manifest.novelty[name].limit and 0 <= row["beyond"] <= 1
    (entry,) = new.records.accuracy.values()
    assert entry["frames"] == {"rgb": 14, "depth": 14} and set(entry["beyond"]) == set(BOTH)
    assert ("3 parts" in entry["judged"]) == bool(folds) == (content["folds"] == 3)
    # What is evaluated, and what is run, says how far its frames are.
    run = tmp_path / "run"
    frames = ["--data", f"folder:{simulated}", "--limit", "2", "--threads", "1"]
    assert main(["run", "--bundle", str(out), *frames, "--out", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert all(set(row["novelty"]) == set(row["used"]) for row in rows)

"""Temperatures by subset: which frames they are fitted to and judged by, what is found, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import InMemory, make_recording
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.special import softmax
from small_bundles import GRID, SmallBundles

from export.calibrated import subset_rows, write_calibrated
from perception.data.base import Boxes, Recording, Truth
from perception.data.msrs import MSRS
from perception.data.nyuv2 import NYUv2
from perception.data.rgbt_person import RGBTPerson
from perception.errors import AnySenseError, BundleError, ConfigError, DataError
from perception.evaluation.confidence import (
    calibrate_confidence,
    next_version,
    with_temperatures,
)
from perception.evaluation.dealing import Dealt, dealt_out, halves
from perception.evaluation.evaluate import evaluate_subsets
from perception.frame import Frame
from perception.runtime.bundle import Bundle, record
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.tasks.pixel_fit import interpolated
from perception.tasks.registry import TASKS
from perception.tasks.segmentation import SEGMENTATION

NAMES = ["class 0", "class 1", "class 2"]
BOTH = ("rgb", "depth")
TRUE = 2.5
INPUTS = {"rgb": ("rgb", "rgb"), "depth": ("depth", "depth")}


def _loaded(bundle: Path, **options: Any) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1, **options)


def _sure(small: SmallBundles, **options: Any) -> Path:
    """A bundle whose logits are some units apart."""
    graph = small.fuser(BOTH, 3, 2, presence=BOTH, separator=".")
    for weight in graph.graph.initializer:
        if weight.name == "w_seg_logits":
            larger = 150 * numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(larger, weight.name))
    return small.named(INPUTS, 3, 2, graphs={"fuser.onnx": graph}, **options)


def _in_scenes(frames: list[str], truths: list[Truth] | None = None, **tables: Any) -> InMemory:
    """A recording with a frame for each of these names of scenes."""
    recording = make_recording(
        tables.pop("seg", NAMES), sensors=[BOTH] * len(frames), truths=truths or (), **tables
    )
    recording.scene = lambda index: frames[index]  # type: ignore[method-assign]
    assert isinstance(recording, InMemory)
    return recording


def _drawn(pipeline: Pipeline, recording: Recording, temperature: float) -> list[Truth]:
    """Labels as the network with all sensors would have them, were it calibrated by this temperature."""
    rng, found = np.random.default_rng(3), []
    y, x = np.divmod(np.arange(GRID[0] * GRID[1]), GRID[1])
    for index in range(len(recording)):
        pipeline.reset()
        encoded = {s: pipeline.encode(sample) for s, sample in recording.frame(index).items()}
        assert all(isinstance(e, Encoded) for e in encoded.values())
        logits = interpolated(pipeline.outputs(encoded)["seg_logits"][0], x, y, GRID)  # type: ignore[arg-type]
        chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
        labels = (chances < rng.random((len(y), 1))).sum(axis=1).clip(0, 2).astype(np.uint8)
        labels[rng.random(len(labels)) < 0.1] = 255
        found.append(Truth(labels.reshape(GRID)))
    return found


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    return _sure(small)


@pytest.fixture
def recording(bundle: Path) -> InMemory:
    scenes = [str(i // 3) for i in range(18)]
    empty = _in_scenes(scenes)
    return _in_scenes(scenes, _drawn(_loaded(bundle), empty, TRUE))


def test_a_known_temperature_is_found_and_helps(bundle: Path, recording: InMemory) -> None:
    pipeline = _loaded(bundle)
    found = calibrate_confidence(pipeline, recording)
    assert list(found.temperatures) == ["segmentation"]
    fitted = found.temperatures["segmentation"]
    assert list(fitted) == ["rgb+depth", "rgb", "depth"]
    assert fitted["rgb+depth"].temperature == pytest.approx(TRUE, rel=0.1)
    assert fitted["rgb+depth"].nll < fitted["rgb+depth"].nll_before
    rows = subset_rows(found)
    both = rows["rgb+depth"]
    assert both["ece"] < 0.05 < both["ece_before"]
    assert both["aurc"] <= both["aurc_before"] + 0.002
    for subset, row in rows.items():
        before, after = found.before[subset].scores(), found.after[subset].scores()
        assert (
            before["miou"] == after["miou"] and before["pixel_accuracy"] == after["pixel_accuracy"]
        )
        assert row["frames"] == len(found.judged.recording) == 9
    # The whole thing again gives the same, and leaves the pipeline as it was.
    again = calibrate_confidence(pipeline, recording)
    assert again.temperatures == found.temperatures and again.manifest == found.manifest
    assert pipeline.manifest.tasks["segmentation"].temperatures == {}  # type: ignore[attr-defined]


def test_what_is_written_is_what_was_judged(
    bundle: Path, recording: InMemory, tmp_path: Path
) -> None:
    old = {"subsets": {"rgb": {"miou": 0.5, "ece": 0.25, "box_aurc": 1, "ece_before": 1}}, "ece": 3}
    record(bundle, accuracy={"elsewhere": old}, parity={"modular": 1e-5})
    content = {p.name: p.read_bytes() for p in bundle.iterdir()}
    pipeline = _loaded(bundle)
    found = calibrate_confidence(pipeline, recording)
    out = write_calibrated(pipeline.bundle, found, tmp_path / "out", "half", {"command": "this"})
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == content
    new = Bundle.open(out)
    assert new.manifest == found.manifest and new.manifest.version == "2"
    assert {n: (out / n).read_bytes() for n in new.manifest.files} == {
        n: content[n] for n in new.manifest.files
    }
    assert dict(new.records.parity) == {"modular": 1e-5}
    # What was measured of labels stays, what was measured of confidence does not.
    assert new.records.accuracy["elsewhere"] == {"subsets": {"rgb": {"miou": 0.5}}}
    rows = new.records.accuracy["half"]["subsets"]
    scores = evaluate_subsets(
        _loaded(out, min_score=0.01), found.judged.recording, [BOTH, ("rgb",)]
    )
    for subset, row in scores.items():
        for name in ("miou", "pixel_accuracy", "ece", "aurc"):
            assert rows[subset][name] == pytest.approx(row[name], abs=6e-5)
    changed = yaml.safe_load((out / "bundle.yaml").read_text())
    plain = yaml.safe_load(content["bundle.yaml"])
    temperatures = changed["tasks"]["segmentation"].pop("temperatures")
    assert temperatures == {s: f.temperature for s, f in found.temperatures["segmentation"].items()}
    plain["tasks"]["segmentation"].pop("temperatures", None)
    assert {**changed, "version": ""} == {
        **Bundle.open(bundle)
        .manifest.model_copy(update={"version": ""})
        .model_dump(mode="json", by_alias=True, exclude_none=True),
        "tasks": changed["tasks"],
    }


def test_temperatures_of_other_subsets_stay(bundle: Path, recording: InMemory) -> None:
    first = calibrate_confidence(_loaded(bundle), recording, [("depth",)]).manifest
    assert [*first.tasks["segmentation"].temperatures] == ["depth"]  # type: ignore[attr-defined]
    second = with_temperatures(first, {"segmentation": {"rgb": 2.0}}, "x", "m")
    assert second.tasks["segmentation"].temperatures["rgb"] == 2.0  # type: ignore[attr-defined]
    assert set(second.tasks["segmentation"].temperatures) == {"depth", "rgb"}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no temperatures"):
        with_temperatures(first, {"boxes2d": {"rgb": 2.0}}, "x", "m")


@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=60))
def test_scenes_are_never_divided(scenes: list[str]) -> None:
    recording = _in_scenes(scenes)
    if len(set(scenes)) < 2:
        with pytest.raises(DataError, match="is of one scene"):
            halves(recording)
        return
    fit, judge = halves(recording)
    parts = [half.recording for half in (fit, judge)]
    ids = [part.ids for part in parts]
    assert sorted(ids[0] + ids[1], key=int) == recording.ids and ids[0] and ids[1]
    named = [{part.scene(i) for i in range(len(part))} for part in parts]
    assert not named[0] & named[1]
    assert [fit.scenes, judge.scenes] == [len(n) for n in named]
    largest = max(scenes.count(name) for name in scenes)
    assert abs(len(parts[0]) - len(parts[1])) <= largest
    for part in parts:
        for index, name in enumerate(part.ids):
            frame = part.frame(index)
            assert frame is recording.frame(int(name)) and part.stamp_ns(index) == int(name) * 10**9
    assert halves(recording)[0].recording.ids == ids[0]


@given(st.lists(st.sampled_from("abcdefg"), min_size=3, max_size=60), st.integers(3, 5))
def test_no_scene_is_in_two_parts(scenes: list[str], count: int) -> None:
    recording = _in_scenes(scenes)
    if len(set(scenes)) < count:
        with pytest.raises(DataError, match="too few|one scene"):
            dealt_out(recording, count)
        return
    parts = dealt_out(recording, count)
    named = [{p.recording.scene(i) for i in range(len(p.recording))} for p in parts]
    assert sum(len(n) for n in named) == len(set(scenes)) == sum(p.scenes for p in parts)
    ids = [name for p in parts for name in p.recording.ids]
    assert all(named) and sorted(ids, key=int) == recording.ids


@pytest.mark.parametrize("folds", [None, 2, 4])
def test_nothing_is_judged_by_what_was_fitted_to_it(folds: int | None) -> None:
    recording = _in_scenes(list("aabcddef"))
    dealt = Dealt.of(recording, folds)
    parts = [set(part.recording.ids) for part in dealt.parts]
    judged: list[str] = []
    for others, own in dealt.rounds(parts):
        assert others and not own & set().union(*others)
        judged += own
        if folds:
            assert own | set().union(*others) == set(recording.ids)
    assert sorted(judged) == sorted(dealt.judged.recording.ids)
    assert set().union(*dealt.to_fit(parts)) == set(dealt.fitted.recording.ids)
    assert (dealt.fitted is dealt.judged) is bool(folds)


def test_in_parts_each_is_judged_by_what_was_fitted_to_the_others(
    bundle: Path, recording: InMemory
) -> None:
    """Of two parts: what one half says of the other, and the other of the one."""
    pipeline = _loaded(bundle)
    found = calibrate_confidence(pipeline, recording, folds=2)
    halved = calibrate_confidence(pipeline, recording)
    turned = recording.part([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8, 15, 16, 17, 12, 13, 14])
    other = calibrate_confidence(pipeline, turned)
    assert other.judged.recording.ids == halved.fitted.recording.ids
    assert (found.folds, halved.folds) == (2, None)
    for subset, scorer in found.after.items():
        assert scorer.frames == scorer.judged == len(recording) == found.before[subset].frames
        told = scorer.meters["segmentation"].confidence
        wanted = halved.after[subset].meters["segmentation"].confidence
        wanted.merge(other.after[subset].meters["segmentation"].confidence)
        assert told.ece() == wanted.ece() and told.aurc() == wanted.aurc() and len(told)
    # What is written is fitted to all of them, and lies between what the halves say.
    whole = found.temperatures["segmentation"]
    assert found.fitted.recording.ids == recording.ids and found.fitted.scenes == 6
    for subset, one in halved.temperatures["segmentation"].items():
        two = other.temperatures["segmentation"][subset]
        low, high = sorted((one.temperature, two.temperature))
        assert low - 0.02 <= whole[subset].temperature <= high + 0.02
    assert pipeline.manifest.tasks["segmentation"].temperatures == {}  # type: ignore[attr-defined]


def test_tasks_that_are_not_asked_for_stay_as_they_are(bundle: Path, recording: InMemory) -> None:
    found = calibrate_confidence(_loaded(bundle), recording, tasks=["segmentation"])
    assert list(found.temperatures) == ["segmentation"]
    with pytest.raises(ConfigError, match="no such task that has temperatures"):
        calibrate_confidence(_loaded(bundle), recording, tasks=["boxes2d"])
    with pytest.raises(ConfigError, match=r"has no task 'boxes'.*boxes2d"):
        calibrate_confidence(_loaded(bundle), recording, tasks=["boxes"])


def test_blocks_are_scenes_where_it_is_said(bundle: Path) -> None:
    one = _in_scenes(["a"] * 7)
    fit, judge = halves(one, block=2)
    assert fit.recording.ids == ["0", "1", "4", "5"] and judge.recording.ids == ["2", "3", "6"]
    assert (fit.scenes, judge.scenes) == (2, 2)
    with pytest.raises(DataError, match=r"is of one scene.*--block"):
        halves(one, block=7)


def test_scenes_of_readers(tmp_path: Path) -> None:
    for folder in ("rgb", "depth", "thermal", "label", "boxes_fusion"):
        (tmp_path / folder).mkdir()
    for number in (3, 4, 5, 9, 10, 12):
        (tmp_path / f"rgb/{number:04d}.png").touch()
    found = NYUv2(tmp_path)
    assert [found.scene(i) for i in range(6)] == ["0003"] * 3 + ["0009"] * 2 + ["0012"]
    persons = RGBTPerson(tmp_path)
    assert len({persons.scene(i) for i in range(6)}) == 6
    for number in range(60):
        (tmp_path / f"rgb/{number:04d}.png").touch()
    roads = MSRS(tmp_path, "val")
    assert [roads.scene(i) for i in range(len(roads))] == ["2"] * 10
    every = MSRS(tmp_path)
    every.select("day")
    assert [every.scene(i) for i in (0, 9, 10, 59)] == ["0", "0", "1", "5"]


def test_a_pause_begins_another_sequence(tmp_path: Path) -> None:
    from perception.data.folder import FolderRecording, FolderWriter, folder_info

    info = folder_info(
        name="two drives",
        sensors={"rgb": "rgb"},
        size=GRID,
        rate_hz=10.0,
        seg_classes=(),
        det_classes=(),
    )
    stamps = [0, 1, 2, 12, 22, 33, 34]  # periods; ten without a frame are none too many
    with FolderWriter(tmp_path / "drives", info) as writer:
        for index, stamp in enumerate(stamps):
            picture = np.zeros((*GRID, 3), np.uint8)
            writer.add(f"f{index}", {"rgb": picture}, stamp_ns=stamp * 10**8)
    drives = FolderRecording(tmp_path / "drives")
    assert [drives.scene(i) for i in range(7)] == ["f0"] * 5 + ["f5"] * 2


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 7))
def test_logits_are_interpolated_as_pictures_are(seed: int, h: int, w: int, factor: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, h, w)).astype(np.float32)
    size = (h * factor, w * factor)
    y, x = np.divmod(np.arange(size[0] * size[1]), size[1])
    wanted: NDArray[Any] = np.stack(
        [cv2.resize(v, size[::-1], interpolation=cv2.INTER_LINEAR).ravel() for v in values], 1
    )
    assert np.allclose(interpolated(values, x, y, size), wanted, atol=1e-5)


def test_classes_that_cannot_be_told_are_not_fitted_to(bundle: Path, recording: InMemory) -> None:
    """Two of the bundle's classes are the recording's background: no class is the truth of its pixels."""
    pipeline = _loaded(bundle)
    spec = pipeline.manifest.tasks["segmentation"]
    other = _in_scenes(["a", "b"], seg=["background", "class 1"])
    assert SEGMENTATION.temperature_fit is not None
    fit = SEGMENTATION.temperature_fit(spec, other.info, 2)
    assert fit is not None
    frame = recording.frame(0)
    encoded = {s: pipeline.encode(sample) for s, sample in frame.items()}
    labels = np.zeros(GRID, np.uint8)
    grid = encoded["rgb"].grid  # type: ignore[union-attr]
    outputs = pipeline.outputs(encoded)  # type: ignore[arg-type]
    fit.add(outputs, grid, Truth(labels))
    assert fit.fitted() is None
    labels[:4] = 1
    fit.add(outputs, grid, Truth(labels))
    fitted = fit.fitted()
    assert fitted is not None and fitted.samples == 4 * GRID[1]
    with pytest.raises(ConfigError, match="gives no seg_logits"):
        fit.add({}, grid, Truth(labels))


def test_samples_are_bounded(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, recording: InMemory
) -> None:
    monkeypatch.setattr("perception.tasks.pixel_fit.MOST_VALUES", 3 * 9 * 50)
    found = calibrate_confidence(_loaded(bundle), recording)
    fitted = found.temperatures["segmentation"]["rgb+depth"]
    assert fitted.samples == 9 * 50
    assert fitted.temperature == pytest.approx(TRUE, rel=0.5)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"seg": ["nothing"]}, "share no class"),
        ({"truths": []}, "no truth for segmentation from rgb"),
        ({"scenes": ["a"] * 4}, "is of one scene"),
        ({"version": "a\nb"}, "version"),
        ({"version": ""}, "version"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    bundle: Path, given: dict[str, Any], text: str
) -> None:
    labels = Truth(np.zeros(GRID, np.uint8), Boxes.empty())
    truths = given.get("truths", [labels] * 4)
    tables = {k: v for k, v in given.items() if k in ("seg", "det")}
    recording = _in_scenes(given.get("scenes", [*"abcd"]), truths, **tables)
    with pytest.raises(AnySenseError, match=text) as caught:
        calibrate_confidence(_loaded(bundle), recording, version=given.get("version"))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, BundleError) == ("version" in given)


def test_tasks_of_which_nothing_can_be_fitted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfitted = {n: replace(TASKS[n], temperature_fit=None) for n in ("segmentation", "boxes2d")}
    monkeypatch.setattr("perception.evaluation.confidence.TASKS", unfitted)
    with pytest.raises(ConfigError, match="no task of it that has temperatures"):
        calibrate_confidence(_loaded(bundle), _in_scenes([*"abcd"], [Truth()] * 4))


def test_a_half_without_truth_is_named(bundle: Path) -> None:
    labels = Truth(np.ones(GRID, np.uint8))
    with pytest.raises(DataError, match="the half to fit to has no truth"):
        calibrate_confidence(_loaded(bundle), _in_scenes([*"ab"], [Truth(), labels]))
    with pytest.raises(DataError, match="the half to judge by has no truth"):
        calibrate_confidence(_loaded(bundle), _in_scenes([*"ab"], [labels, Truth()]))


@pytest.mark.parametrize(
    ("old", "new"), [("1", "2"), ("009", "10"), ("1.0", "1.0-calibrated"), ("²", "²-calibrated")]
)
def test_the_next_version(old: str, new: str) -> None:
    assert next_version(old) == new


def test_a_calibrated_confidence_is_not_derated_again(
    small: SmallBundles, recording: InMemory
) -> None:
    """What has a temperature says by itself how much worse it is; boxes and other subsets are derated."""

    def results(derating: float) -> list[Any]:
        def edit(content: dict[str, Any]) -> None:
            content["tasks"]["segmentation"]["temperatures"] = {"rgb": 1.5, "rgb+depth": 1.2}

        made = _sure(small, edit=edit, name="derated")
        pipeline = _loaded(made, policy=Policy(derating=derating), min_score=0.01)
        frame = recording.frame(0)
        parts = [
            frame,
            Frame({"rgb": frame["rgb"]}, 10**10),
            Frame({"depth": frame["depth"]}, 2 * 10**10),
        ]
        return [pipeline(part) for part in parts]

    for index, (plain, derated) in enumerate(zip(results(1.0), results(0.5), strict=True)):
        factor = 1.0 if index == 0 else 0.5
        assert np.array_equal(plain.labels, derated.labels)
        own = 0.5 if index == 2 else 1.0
        assert np.allclose(derated.confidence, own * plain.confidence, atol=1e-7)
        assert np.allclose(derated.boxes.scores, factor * plain.boxes.scores, atol=1e-7)

"""Robustness of a pipeline: each number is what the pipeline gives when it is called by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_memory import InMemory
from small_bundles import GRID, SmallBundles

from perception.corruptions import corrupt
from perception.data.base import ClassInfo, RecordingInfo, Truth
from perception.errors import ConfigError, DataError
from perception.evaluation.evaluate import Scorer, evaluate_subsets
from perception.evaluation.past import Past
from perception.evaluation.robustness import (
    FEED,
    LEAVE_OUT,
    RobustnessOptions,
    measure_all,
    measure_robustness,
    plan_of,
)
from perception.evaluation.robustness_report import Robustness
from perception.evaluation.variants import ALWAYS, Damage, make_plan
from perception.frame import Frame, Sample
from perception.metrics.robustness import expected_score, intact_sets
from perception.runtime.health import HealthConfig
from perception.runtime.pipeline import Pipeline

NAMES = ("road", "wall", "tree")
STEP_NS = 10**8
EIGHT = (
    "clean_full", "mean_subsets", "min_subsets", "emm", "rmm", "nm", "corruptions", "retained",
)  # fmt: skip


def drive(frames: int = 6, *, sequential: bool = True, labeled: bool = True) -> InMemory:
    """Frames of noise 0.1 s apart, whose labels follow from nothing."""
    rng = np.random.default_rng(7)
    made, truths = [], []
    for index in range(frames):
        rgb = rng.integers(20, 230, (*GRID, 3), dtype=np.uint8)
        depth = rng.uniform(1, 9, GRID).astype(np.float32)
        stamp = index * STEP_NS
        samples = {
            "rgb": Sample("rgb", rgb, stamp_ns=stamp),
            "depth": Sample("depth", depth, stamp_ns=stamp),
        }
        made.append(Frame(samples, stamp))
        truths.append(Truth(rng.integers(0, 3, GRID).astype(np.uint8) if labeled else None))
    classes = tuple(ClassInfo(i, n, (i, 1, 2)) for i, n in enumerate(NAMES))
    info = RecordingInfo("folder", "memory", ("rgb", "depth"), classes, rate_hz=10.0)
    recording = InMemory(info, made, truths)
    recording.sequential = sequential
    return recording


def edit_names(content: dict[str, Any]) -> None:
    for row, name in zip(content["classes"]["segmentation"], NAMES, strict=True):
        row["name"] = name


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    bundle = SmallBundles(tmp_path_factory.mktemp("bundles"))(("rgb", "depth"), edit=edit_names)
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1)


def by_hand(
    pipeline: Pipeline, recording: InMemory, frames: Mapping[int, Mapping[str, Sample]]
) -> float:
    """The score of what the pipeline says of these frames, called as anybody would."""
    scorer = Scorer(pipeline, recording)
    for index, samples in frames.items():
        pipeline.reset()
        scorer.add(pipeline(Frame(dict(samples), index * STEP_NS)), recording.truth(index))
    pipeline.reset()
    score: float = scorer.scores()["miou"]
    return score


def fault_of(run: Robustness, sensor: str, fault: str) -> Mapping[str, float | None]:
    return run.faults("miou")[sensor][fault].levels


def test_subsets_and_scenarios(pipeline: Pipeline) -> None:
    recording = drive(4)
    [run] = measure_robustness(pipeline, recording)
    subsets = pipeline.manifest.subsets
    expected = {n: r["miou"] for n, r in evaluate_subsets(pipeline, recording, subsets).items()}
    assert run.subsets("miou") == expected and run.titles == {"miou": "mIoU"}
    assert run.clean_full("miou") == expected["rgb+depth"]
    assert run.of_subsets("miou") == (np.mean(list(expected.values())), min(expected.values()))
    table = {frozenset(n.split("+")): v for n, v in expected.items()}
    both, rgb, depth = (expected[n] for n in ("rgb+depth", "rgb", "depth"))
    assert run.emm("miou")["0.2"] == pytest.approx((0.64 * both + 0.16 * (rgb + depth)) / 0.96)
    assert run.emm("miou")["0.05"] == expected_score(table, ("rgb", "depth"), 0.05)
    rmm = run.rmm_table("miou", 0.3)
    assert (
        set(rmm) == set(intact_sets(("rgb", "depth"))) and rmm[frozenset(["rgb", "depth"])] == both
    )
    assert run.rmm("miou")["0.3"] == pytest.approx(np.mean(list(rmm.values())))  # type: ignore[arg-type]
    assert run.rmm_expected("miou")["0.3"]["0.1"] == expected_score(rmm, ("rgb", "depth"), 0.1)
    assert set(run.rmm("miou")) == {"0.1", "0.3", "0.5"} and set(run.nm("miou")) == {
        "low",
        "mid",
        "high",
    }
    content = run.content()
    assert set(EIGHT) <= set(content) and all(set(content[k]) == {"miou"} for k in EIGHT)
    assert content["retained"]["miou"]["mean_subsets"] == pytest.approx(
        content["mean_subsets"]["miou"] / content["clean_full"]["miou"], abs=1e-5
    )


def test_the_faults_are_those_of_corruptions(pipeline: Pipeline) -> None:
    """What is damaged is spoilt as `corrupt` does, the rest is in order; all by hand."""
    import zlib

    recording = drive(3)
    options = RobustnessOptions(seed=5, methods=(FEED,))
    [run] = measure_robustness(pipeline, recording, options)

    def seed(sensor: str, index: int, still: bool) -> tuple[int, ...]:
        own = (5, zlib.crc32(sensor.encode()))
        return own if still else (*own, zlib.crc32(recording.ids[index].encode()))

    for sensor, fault, still in (
        ("rgb", "motion_blur", False),
        ("rgb", "lens_dirt", True),
        ("depth", "holes", True),
    ):
        for severity in (1, 5):
            frames = {}
            for index in range(3):
                frame = dict(recording.frame(index))
                frame[sensor] = corrupt(frame[sensor], fault, severity, seed(sensor, index, still))
                frames[index] = frame
            found = fault_of(run, sensor, fault)[str(severity)]
            assert found == by_hand(pipeline, recording, frames)
    noisy = {
        index: {
            s: corrupt(v, "noise", 3, seed(s, index, False))
            for s, v in recording.frame(index).items()
        }
        for index in range(3)
    }
    assert run.nm("miou")["mid"] == by_hand(pipeline, recording, noisy)
    partly = {
        index: {**recording.frame(index), "depth": corrupt(
            recording.frame(index)["depth"], "random_missing", 5, seed("depth", index, False))}
        for index in range(3)
    }  # fmt: skip
    assert run.rmm_table("miou", 0.5)[frozenset(["rgb"])] == by_hand(pipeline, recording, partly)


def test_a_dead_sensor_is_left_out_or_fed(pipeline: Pipeline) -> None:
    recording = drive(3)
    options = RobustnessOptions(methods=(LEAVE_OUT, FEED), corruptions=("dark", "saturated"))
    left_out, fed = measure_robustness(pipeline, recording, options)
    unchecked = HealthConfig(dark_level=-1.0, saturated_share=2.0)
    trusting = Pipeline.load(pipeline.bundle.path, "onnxruntime-cpu", threads=1, health=unchecked)
    assert (left_out.method, fed.method) == (LEAVE_OUT, FEED)
    for fault in ("dark", "saturated"):
        assert fault_of(left_out, "rgb", fault) == {ALWAYS: left_out.without("miou", "rgb")}
        spoilt = {
            i: {**recording.frame(i), "rgb": corrupt(recording.frame(i)["rgb"], fault)}
            for i in range(3)
        }
        assert fault_of(fed, "rgb", fault)[ALWAYS] == by_hand(trusting, recording, spoilt)
    # A depth image without any return cannot be fed: there is nothing that a network could take.
    assert fault_of(fed, "depth", "dark") == {ALWAYS: fed.without("miou", "depth")}
    assert left_out.subsets("miou") == fed.subsets("miou")
    black = {
        i: {**recording.frame(i), "rgb": corrupt(recording.frame(i)["rgb"], "dark")}
        for i in range(3)
    }
    without = {i: {"depth": recording.frame(i)["depth"]} for i in range(3)}
    assert by_hand(pipeline, recording, black) == by_hand(pipeline, recording, without)


def test_what_the_checks_find_dead_in_the_data_is_fed_only_where_that_is_asked_for(
    pipeline: Pipeline,
) -> None:
    recording = drive(3)
    for index in range(3):
        frame = dict(recording.frame(index))
        night = np.random.default_rng(index).integers(0, 8, (*GRID, 3), dtype=np.uint8)
        frame["rgb"] = replace(frame["rgb"], data=night)
        recording._frames[index] = Frame(frame, index * STEP_NS)
    options = RobustnessOptions(methods=(LEAVE_OUT, FEED), corruptions=("scale",), severities=(1,))
    left_out, fed = measure_robustness(pipeline, recording, options)
    assert left_out.clean_full("miou") == left_out.subsets("miou")["depth"]
    trusting = Pipeline.load(
        pipeline.bundle.path,
        "onnxruntime-cpu",
        threads=1,
        health=HealthConfig(dark_level=0.0),
    )
    frames = {i: recording.frame(i) for i in range(3)}
    assert fed.clean_full("miou") == by_hand(trusting, recording, frames)
    assert fed.clean_full("miou") != left_out.clean_full("miou")
    assert left_out.subsets("miou")["rgb"] == 0.0  # nothing is left


def test_what_is_old_comes_from_frames_before(pipeline: Pipeline) -> None:
    recording = drive(14)
    options = RobustnessOptions(methods=(LEAVE_OUT, FEED), corruptions=("time_skew", "frozen"))
    left_out, fed = measure_robustness(pipeline, recording, options)
    found = left_out.faults("miou")["rgb"]["time_skew"]
    # 30 ms is nearer to the frame itself than to the one before; the others are 0.1, 0.1, 0.2 and 0.3 s.
    assert set(found.levels) == {"2", "3", "4", "5"} and found.frames == 11
    for severity, back in (("3", 1), ("4", 2), ("5", 3)):
        frames = {
            i: {**recording.frame(i), "rgb": recording.frame(i - back)["rgb"]}
            for i in range(back, 14)
        }
        assert found.levels[severity] == by_hand(pipeline, recording, frames)
    # Frozen for 0.1 and 0.2 s nobody can know; from 0.3 s on it is found out and left out.
    frozen, kept = (run.faults("miou")["rgb"]["frozen"] for run in (left_out, fed))
    assert frozen.levels["2"] == kept.levels["2"] == found.levels["4"]
    later = {i: {"depth": recording.frame(i)["depth"]} for i in range(5, 14)}
    assert frozen.levels["3"] == by_hand(pipeline, recording, later)
    old = {i: {**recording.frame(i), "rgb": recording.frame(i - 5)["rgb"]} for i in range(5, 14)}
    assert kept.levels["3"] == by_hand(pipeline, recording, old)
    assert "5" not in kept.levels  # 2 s back there is none
    # What is left is of the clean score of the same frames.
    shares = []
    for severity, back in (("1", 1), ("2", 2), ("3", 5), ("4", 10)):
        clean = by_hand(pipeline, recording, {i: recording.frame(i) for i in range(back, 14)})
        value = kept.levels[severity]
        assert value is not None
        shares.append(value / clean)
    assert kept.retained == pytest.approx(np.mean(shares))


def test_without_a_sequence_time_is_not_measured(pipeline: Pipeline) -> None:
    for recording, stills in ((drive(3, sequential=False), False), (drive(3), True)):
        options = RobustnessOptions(corruptions=("time_skew", "frozen", "rain"), stills=stills)
        [run] = measure_robustness(pipeline, recording, options)
        for sensor in ("rgb", "depth"):
            assert run.plan.lacking[f"{sensor} time_skew"] == "no sequence"
            assert run.plan.lacking[f"{sensor} frozen"] == "no sequence"
            assert set(run.faults("miou")[sensor]) == {"rain"}
    [run] = measure_robustness(pipeline, drive(1), RobustnessOptions(corruptions=("frozen",)))
    assert "no frame so long before" in run.plan.lacking["rgb frozen"]


def test_what_a_fault_cannot_change_is_not_measured(pipeline: Pipeline) -> None:
    [run] = measure_robustness(pipeline, drive(2), RobustnessOptions(corruptions=("extrinsics",)))
    assert run.faults("miou") == {}
    assert "nothing that it changes" in run.content()["not_measured"]["rgb extrinsics"]
    assert run.retained("miou")["corruptions"] is None


def test_the_same_seed_gives_the_same_and_another_another(pipeline: Pipeline) -> None:
    recording, faults = drive(3), ("noise", "rain", "dropout")[:2]
    first, again, other = (
        measure_robustness(pipeline, recording, RobustnessOptions(corruptions=faults, seed=s))[
            0
        ].content()
        for s in (1, 1, 2)
    )
    assert first == again and first["corruptions"] != other["corruptions"]
    assert first["clean_full"] == other["clean_full"] and first["emm"] == other["emm"]


def test_a_frame_fares_the_same_whichever_others_are_judged(pipeline: Pipeline) -> None:
    recording = drive(6)
    options = RobustnessOptions(frames=2, corruptions=("noise", "frozen"))
    [some] = measure_robustness(pipeline, recording, options)
    part = recording.part([0, 3])
    [alone] = measure_robustness(pipeline, part, replace(options, frames=None))
    assert some.frames == alone.frames == 2
    assert some.nm("miou") == alone.nm("miou")
    assert fault_of(some, "rgb", "noise") == fault_of(alone, "rgb", "noise")
    # Frames between those that are judged are there all the same.
    assert some.faults("miou")["rgb"]["frozen"].frames == 1
    steps: list[tuple[int, int]] = []
    measure_robustness(
        pipeline, recording, options, lambda what, done, total: steps.append((done, total))
    )
    total = 2 * len(plan_of(pipeline, recording, options).given)
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_the_pipeline_is_as_it_was(pipeline: Pipeline) -> None:
    before = pipeline.wanted, pipeline.min_score, pipeline.health.config
    measure_robustness(pipeline, drive(1), RobustnessOptions(corruptions=("rain",)))
    assert before == (pipeline.wanted, pipeline.min_score, pipeline.health.config)


def test_frames_that_lack_a_sensor_say_nothing_of_it(pipeline: Pipeline) -> None:
    recording = drive(3)
    lacking = Frame({"rgb": recording.frame(1)["rgb"]}, STEP_NS)
    recording._frames[1] = lacking
    [run] = measure_robustness(pipeline, recording, RobustnessOptions(corruptions=("rain",)))
    frames = {i: recording.frame(i) for i in (0, 2)}
    assert run.clean_full("miou") == by_hand(pipeline, recording, frames)
    assert run.faults("miou")["rgb"]["rain"].frames == 2
    assert run.subsets("miou")["rgb"] == by_hand(
        pipeline, recording, {i: {"rgb": recording.frame(i)["rgb"]} for i in range(3)}
    )


def test_two_bundles_and_two_methods(pipeline: Pipeline, tmp_path: Path) -> None:
    other = Pipeline.load(
        SmallBundles(tmp_path)(("depth",), edit=edit_names), "onnxruntime-cpu", threads=1
    )
    options = RobustnessOptions(methods=(LEAVE_OUT, FEED), corruptions=("fog",), severities=(2,))
    runs = measure_all([pipeline, other], drive(2), options)
    assert [(run.plan.sensors, run.method) for run in runs] == [
        (("rgb", "depth"), LEAVE_OUT), (("rgb", "depth"), FEED), (("depth",), LEAVE_OUT), (("depth",), FEED),
    ]  # fmt: skip
    assert set(fault_of(runs[0], "rgb", "fog")) == {"2"}
    # Of one sensor there is no set that could be left.
    assert runs[2].plan.lacking["emm"] == runs[2].plan.lacking["rmm"] == "there is one sensor only"
    assert runs[2].emm("miou") == {} and runs[2].content()["rmm"] == {"miou": {}}
    assert set(runs[2].nm("miou")) == {"low", "mid", "high"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"corruptions": ("motion_blurr",)}, "did you mean 'motion_blur'"),
        ({"corruptions": ("delay",)}, "messages on their way"),
        ({"corruptions": ("beam_loss",)}, "no fault of these sensors"),
        ({"severities": (6,)}, "none of 1 to 5"),
        ({"severities": ()}, "at least one"),
        ({"methods": ("feeed",)}, "did you mean 'feed'"),
        ({"methods": ()}, "at least one"),
        ({"frames": 0}, "at least 1"),
    ],
)
def test_what_is_refused(pipeline: Pipeline, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        measure_robustness(pipeline, drive(1), RobustnessOptions(**options))


def test_data_that_do_not_fit(pipeline: Pipeline) -> None:
    fast = RobustnessOptions(corruptions=("rain",), severities=(1,))
    with pytest.raises(DataError, match="no labels"):
        measure_robustness(pipeline, drive(2, labeled=False), fast)
    recording = drive(2)
    for index in range(2):
        recording._frames[index] = Frame({"rgb": recording.frame(index)["rgb"]}, index)
    with pytest.raises(DataError, match="no frame with all sensors"):
        measure_robustness(pipeline, recording, fast)
    others = RecordingInfo("folder", "memory", ("rgb",), (ClassInfo(0, "sea", (1, 2, 3)),))
    with pytest.raises(ConfigError, match="share no class"):
        measure_robustness(pipeline, InMemory(others, [], []), fast)
    with pytest.raises(ConfigError, match="has no rgb, depth"):
        info = replace(drive(1).info, sensors=("thermal",), labels_of="thermal")
        measure_robustness(pipeline, InMemory(info, [], []), fast)


def test_plans_of_many_sensors_and_of_other_kinds(laser: Path) -> None:
    many = {f"camera{i}": "rgb" for i in range(7)}
    plan = make_plan(many, [tuple(many)], corruptions=("fog",), severities=(1,))
    assert plan.lacking["emm"] == plan.lacking["rmm"] == "there are more than 6 sensors"
    assert len(plan.given) == 1 + 3 + 7
    six = dict(list(many.items())[:6])
    plan = make_plan(six, [tuple(six)], corruptions=("fog",), severities=(1,))
    assert len(plan.given) == 63 + 3 * 62 + 3 + 6 and not plan.lacking
    # A kind of another distribution without such faults: the scenarios say so, its own faults are tried.
    plan = make_plan({"rgb": "rgb", "front": "laser"}, [("rgb", "front")])
    assert "front" in plan.lacking["rmm"] and "front" in plan.lacking["nm"]
    assert "emm" not in plan.lacking and "misalignment" in plan.faults["front"]
    # What stands for missing data has a scenario of its own, but may be asked for.
    assert "random_missing" not in plan.faults["rgb"]
    asked = make_plan({"rgb": "rgb"}, [("rgb",)], corruptions=("random_missing",))
    assert asked.faults == {"rgb": {"random_missing": ["1", "2", "3", "4", "5"]}}


def test_earlier_frames_are_of_the_same_scene() -> None:
    recording = drive(9)
    scenes = ["a"] * 4 + ["b"] * 5
    recording.scene = lambda index: scenes[index]  # type: ignore[method-assign]
    past = Past(recording)
    assert past.step_s == 0.1
    assert past.before(3, 0.1) == 2 and past.before(3, 0.3) == 0
    assert past.before(3, 0.4) is None and past.before(4, 0.1) is None  # the first of its scene
    assert past.before(6, 0.2) == 4 and past.before(6, 0.3) is None
    assert past.before(3, 0.05) == 2 and past.before(3, 0.04) is None  # half a step at most
    assert past.stamps_since(3, 0.2) == [STEP_NS, 2 * STEP_NS, 3 * STEP_NS]
    assert past.stamps_since(4, 0.1) == []
    assert Past(drive(1)).before(0, 0.1) is None and Past(drive(1)).step_s == 0.0


def test_ages() -> None:
    assert Damage("fog", 3).age_s is None
    assert [Damage("time_skew", s).age_s for s in (1, 5)] == [0.03, 0.3]
    assert [Damage("frozen", s).age_s for s in (1, 5)] == [0.1, 2.0]

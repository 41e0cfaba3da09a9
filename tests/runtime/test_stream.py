"""Samples in, results out: encoding on arrival, reuse, losses, heartbeats, and the books."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.errors import ConfigError, EngineError
from perception.frame import KINDS, Kind, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.collector import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Result

MS = 1_000_000
CAMERA = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5)
TO_OPTICAL = RigidTransform(np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.zeros(3))


@pytest.fixture(scope="module")
def loaded(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "cpu", threads=1)


@pytest.fixture
def pipeline(loaded: Pipeline) -> Pipeline:
    loaded.reset()
    loaded.counters.clear()
    loaded.policy = Policy(max_age_ms=150, hold_ms=400)
    return loaded


def _sample(modality: Kind, stamp_ms: float) -> Sample:
    random = np.random.default_rng(round(stamp_ms * 10) % 2**32)
    stamp = round(stamp_ms * MS)
    if modality == "rgb":
        return Sample("rgb", random.integers(20, 220, (96, 128, 3), np.uint8), stamp)
    if modality == "depth":
        return Sample("depth", random.uniform(1, 9, (96, 128)).astype(np.float32), stamp)
    if modality == "thermal":
        values = random.uniform(0, 200, (96, 128)).astype(np.float32)
        return Sample("thermal", values, stamp, unit="counts8")
    points = random.uniform([5, -3, -2, 0], [15, 3, 2, 1], (600, 4)).astype(np.float32)
    return Sample("lidar", points, stamp, camera=CAMERA, extrinsics=TO_OPTICAL)


def _stream(pipeline: Pipeline, *modalities: Kind, **timing: int) -> StreamCore:
    sensors = {m: SensorTiming(**{"timeout_ns": 300 * MS, **timing}) for m in modalities}
    return StreamCore(pipeline, StreamSettings(sensors, 80 * MS, heartbeat_ns=100 * MS))


def _tick(stream: StreamCore, now_ms: float, *modalities: Kind) -> list[Result]:
    for modality in modalities:
        stream.push(_sample(modality, now_ms), round(now_ms * MS))
    return stream.poll(round(now_ms * MS))


def _accounted(stream: StreamCore) -> bool:
    return all(
        r.received == r.used + r.superseded + r.rejected + r.waiting and r.superseded >= 0
        for r in stream.report(10**15).values()
    )


def test_a_complete_group_needs_only_the_fuser(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, *KINDS)
    before = {name: engine.runs for name, engine in pipeline.engines.items()}

    def ran() -> dict[str, int]:
        return {n: e.runs - before[n] for n, e in pipeline.engines.items() if e.runs > before[n]}

    assert _tick(stream, 0, "rgb", "depth", "thermal") == []
    assert ran() == {"rgb": 1, "depth": 1, "thermal": 1}  # encoded on arrival, not fused yet
    (output,) = _tick(stream, 1, "lidar")
    assert ran() == {"rgb": 1, "depth": 1, "thermal": 1, "lidar": 1, "fuser": 1}
    assert output.used == KINDS
    assert (output.state, output.reason, output.coverage) == ("full", "complete", 1.0)
    assert (output.reference, output.output_ns, output.arrived_ns) == ("rgb", 0, 1 * MS)
    assert {"encode_lidar", "fuse"} <= set(output.timings)
    assert output.timings["total"] >= output.engine_ms
    steps = sum(ms for step, ms in output.timings.items() if step != "total")
    assert output.timings["total"] >= steps * (1 - 1e-9)


def test_the_same_numbers_as_a_single_call(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    (output,) = _tick(stream, 0, "rgb", "depth")
    direct = pipeline({m: _sample(m, 0) for m in ("rgb", "depth")})
    assert np.array_equal(output.labels, direct.labels)  # type: ignore[arg-type]
    assert np.allclose(output.boxes.scores, direct.boxes.scores)  # type: ignore[union-attr]


def test_full_is_measured_against_the_inputs_there_are(pipeline: Pipeline) -> None:
    (output,) = _tick(_stream(pipeline, "rgb", "depth"), 0, "rgb", "depth")
    assert output.state == "full"


def test_a_slower_sensor_takes_part_between_its_samples(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "lidar")
    ages = []
    for now in range(0, 400, 33):
        both = ("rgb", "lidar") if now % 99 == 0 else ("rgb",)
        ages += [o.ages_ns.get("lidar") for o in _tick(stream, now, *both)]
        ages += [o.ages_ns.get("lidar") for o in stream.poll((now + 32) * MS)]
    assert None not in ages
    assert {0, 33 * MS, 66 * MS} == set(ages)
    assert _accounted(stream)


def test_old_features_are_not_used(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    used = []
    for now in range(50, 400, 50):
        used += [o.used for o in _tick(stream, now, "rgb")]
        used += [o.used for o in stream.poll((now + 49) * MS)]
    assert used[0] == ("rgb", "depth")
    assert used[-1] == ("rgb",)


def test_a_bad_sample_drops_the_features_before_it(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    black = replace(_sample("rgb", 30), data=np.zeros((96, 128, 3), np.uint8))
    assert stream.push(black, 30 * MS) == "unusable"
    (output,) = _tick(stream, 30, "depth")
    assert (output.used, output.reference) == (("depth",), "depth")
    assert output.health == {"rgb": "dark", "depth": "ok"}
    assert stream.report(30 * MS)["rgb"].rejected == 1
    assert _accounted(stream)


def test_loss_hold_stop_and_recovery(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    states = [o.state for now in range(20, 1000, 20) for o in stream.poll(now * MS)]
    assert states[0] == "hold"
    assert states[-1] == "stop"
    assert states == sorted(states)
    assert stream.report(1000 * MS)["rgb"].health == "lost"
    assert stream.arrivals.counters["lost_rgb"] == 1
    (output,) = _tick(stream, 1020, "rgb", "depth")
    assert output.used == ("rgb", "depth")  # nobody else is left: trusted at once
    assert _accounted(stream)


def test_a_returning_sensor_must_prove_itself_while_others_see(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    for now in range(50, 500, 50):
        _tick(stream, now, "rgb")
    (first,) = _tick(stream, 500, "rgb", "depth")
    (second,) = _tick(stream, 550, "rgb", "depth")
    assert (first.used, second.used) == (("rgb",), ("rgb", "depth"))


def test_messages_that_cannot_be_decoded_are_malformed_not_lost(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    for now in range(0, 900, 50):
        stream.reject("rgb", "rgb: unknown color encoding 'jpeg2000'", now * MS)
        outputs = _tick(stream, now, "depth")
    assert outputs[-1].health["rgb"] == "malformed"
    assert "jpeg2000" in outputs[-1].lines[0]
    stream.poll(1300 * MS)
    assert stream.report(1300 * MS)["rgb"].health == "lost"
    assert _accounted(stream)


def test_a_late_sensor_is_late(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    for now in range(0, 600, 50):
        stream.push(_sample("rgb", now), now * MS)
        if now >= 200:
            stream.push(_sample("depth", now - 200), now * MS)
        outputs = stream.poll(now * MS)
    assert outputs[-1].health == {"rgb": "ok", "depth": "late"}


def test_a_clock_set_back_begins_anew(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 60_000, "rgb", "depth")
    for modality in ("rgb", "depth"):
        stream.push(_sample(modality, 5), 60_100 * MS)
    (output,) = stream.poll(60_100 * MS)
    assert (output.output_ns, output.used) == (5 * MS, ("rgb", "depth"))


def test_the_stamp_given_is_the_sensors_own(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", offset_ns=-40 * MS)
    (output,) = _tick(stream, 100, "rgb")
    assert output.output_ns == 100 * MS
    assert output.samples["rgb"].stamp_ns == 60 * MS


def test_heartbeats_before_the_first_sample(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    beats = [o for now in range(0, 500, 10) for o in stream.poll(now * MS)]
    assert 4 <= len(beats) <= 5
    assert {(b.state, b.reason) for b in beats} == {("stop", "heartbeat")}
    assert math.isnan(stream.report(0)["rgb"].silent_ms)


def test_skipped_messages_are_superseded(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    stream.skip("rgb")
    _tick(stream, 0, "rgb")
    assert stream.report(0)["rgb"].superseded == 1
    assert _accounted(stream)


def test_inputs_that_the_bundle_lacks_are_refused(pipeline: Pipeline) -> None:
    narrow = Pipeline(
        pipeline.bundle,
        {"rgb": pipeline.engines["rgb"]},
        pipeline.engines["fuser"],
        Policy(),
        pipeline.health.config,
        sensors={"rgb": "rgb"},
    )
    with pytest.raises(ConfigError, match="not lidar"):
        StreamCore(narrow, StreamSettings({"lidar": SensorTiming()}, MS))


def test_timings_can_change(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    stream.push(_sample("rgb", 0), 0)
    stream.collector.retime({m: SensorTiming() for m in ("rgb", "depth")}, 10 * MS)
    assert len(stream.poll(10 * MS)) == 1
    with pytest.raises(ConfigError):
        stream.collector.retime({"rgb": SensorTiming()}, 10 * MS)


def test_engines_can_be_loaded_anew(pipeline: Pipeline) -> None:
    before = pipeline.engines["fuser"]
    pipeline.use_device("cpu", 1)
    assert pipeline.engines["fuser"] is not before
    assert _tick(_stream(pipeline, "rgb"), 0, "rgb")[0].used == ("rgb",)


def test_encoding_in_parallel_gives_the_same_and_accounts_for_all(pipeline: Pipeline) -> None:
    found = {}
    for parallel in (False, True):
        pipeline.reset()
        timings: dict[Kind, SensorTiming] = {m: SensorTiming() for m in ("rgb", "depth")}
        stream = StreamCore(pipeline, StreamSettings(timings, 50 * MS), parallel=parallel)
        outputs = []
        for now in range(100, 1300, 100):
            outputs += _tick(
                stream, now, *(("rgb", "depth") if now not in (500, 600) else ("depth",))
            )
            outputs += _tick(stream, now + 60)
        assert _accounted(stream)
        stream.close()
        found[parallel] = [(o.used, o.output_ns, int(_labels(o).sum())) for o in outputs]
    assert found[True] == found[False]
    assert len(found[True]) == 12


def _labels(output: Result) -> np.ndarray:
    assert output.labels is not None
    return output.labels


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("graph", ["rgb", "fuser"])
def test_samples_lost_to_an_engine_are_counted_as_rejected(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, graph: str, parallel: bool
) -> None:
    timings: dict[Kind, SensorTiming] = {m: SensorTiming() for m in ("rgb", "depth")}
    stream = StreamCore(pipeline, StreamSettings(timings, 50 * MS), parallel=parallel)
    _tick(stream, 100, "rgb", "depth")
    before = stream.report(10**15)
    with monkeypatch.context() as broken:
        broken.setattr(pipeline.engines[graph], "infer", _fail)
        with pytest.raises(EngineError, match="device lost"):
            _tick(stream, 200, "rgb", "depth")
    _tick(stream, 300, "rgb", "depth")
    stream.poll(400 * MS)
    after = stream.report(10**15)
    assert after["rgb"].rejected == before["rgb"].rejected + 1
    assert after["rgb"].used == before["rgb"].used + 1
    assert _accounted(stream)
    stream.close()


def _fail(feeds: object) -> None:
    raise RuntimeError("device lost")  # not the type that is promised


def test_parts_that_nobody_wants_are_not_computed(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    pipeline.wanted = frozenset({"labels"})
    try:
        (output,) = _tick(stream, 0, "rgb")
    finally:
        pipeline.wanted = pipeline.parts
    assert output.labels is not None
    assert output.confidence is None
    assert output.boxes is None


EPOCH_MS = 1_700_000_000_000
"""What a receiver's calendar clock is ahead of the monotonic one here."""


def _at(
    stream: StreamCore, modality: Kind, now_ms: float, stamp_ms: float, content: float | None = None
) -> str:
    """Push a sample with both clocks known; its stamp is given on the calendar's, less the epoch."""
    stamp = round((EPOCH_MS + stamp_ms) * MS)
    sample = replace(_sample(modality, now_ms if content is None else content), stamp_ns=stamp)
    now = round(now_ms * MS)
    return stream.push(sample, now, EPOCH_MS * MS + now)


def _rising(outputs: list[Result]) -> bool:
    stamps = [o.output_ns for o in outputs if o.reference is not None]
    return all(a < b for a, b in itertools.pairwise(stamps))


@pytest.mark.parametrize("phase", [20, 50, 75])
def test_sensors_out_of_step_give_one_output_for_each_picture(
    pipeline: Pipeline, phase: int
) -> None:
    """Camera and LiDAR at 10 Hz, further apart than the window."""
    stream = _stream(pipeline, "rgb", "lidar", window_ns=17 * MS)
    outputs: list[Result] = []
    for now in range(0, 3000, 5):
        if now % 100 == 0:
            stream.push(_sample("rgb", now), now * MS)
        if now % 100 == phase:
            stream.push(_sample("lidar", now), now * MS)
        outputs += stream.poll(now * MS)
    settled = [o for o in outputs if o.output_ns > 1000 * MS]
    assert _rising(outputs)
    assert {o.reference for o in settled} == {"rgb"}
    assert len(settled) == 19
    assert {o.used for o in settled} == {("rgb", "lidar")}
    clouds = [o.source_ns["lidar"] for o in outputs if "lidar" in o.fresh]
    assert clouds == sorted(set(clouds))
    assert len(clouds) >= 28  # every cloud takes part, once as a fresh one
    assert _accounted(stream)
    assert stream.report(3000 * MS)["lidar"].used >= 28


def test_a_reference_that_stays_out_is_not_waited_for_beyond_its_age(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "lidar", window_ns=17 * MS)
    outputs: list[Result] = []
    for now in range(0, 3000, 5):
        if now % 100 == 0 and now < 1500:
            stream.push(_sample("rgb", now), now * MS)
        if now % 100 == 50:
            stream.push(_sample("lidar", now), now * MS)
        outputs += stream.poll(now * MS)
    assert _rising(outputs)
    first = next(o for o in outputs if o.reference == "lidar" and o.output_ns > 1400 * MS)
    assert first.output_ns <= 1650 * MS
    assert outputs[-1].used == ("lidar",)
    assert _accounted(stream)


@pytest.mark.parametrize("ahead", [300, 900, 3_600_000])
@pytest.mark.parametrize("first", ["rgb", "depth"])
def test_a_sensor_whose_clock_is_ahead_is_left_out_by_name(
    pipeline: Pipeline, ahead: int, first: Kind
) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    second: Kind = "depth" if first == "rgb" else "rgb"
    outputs: list[Result] = []
    for now in range(100, 2100, 100):
        for place, modality in enumerate((first, second)):
            late = 3 * place + 5
            _at(stream, modality, now + late, now + (ahead if modality == "depth" else 0))
        for step in range(10, 100, 10):
            outputs += stream.poll((now + step) * MS)
    assert _rising(outputs)
    assert [o.output_ns // MS - EPOCH_MS for o in outputs][-15:] == list(range(600, 2100, 100))
    last = outputs[-1]
    assert (last.used, last.health) == (("rgb",), {"rgb": "ok", "depth": "skewed"})
    assert len(last.lines) == 1
    assert last.lines[0].startswith("depth: stamps are") and "ahead" in last.lines[0]
    report = stream.report(2100 * MS)
    assert report["depth"].rejected == report["depth"].received == 20
    assert report["depth"].offset_ms == pytest.approx(ahead, abs=20)
    assert report["rgb"].line == ""
    assert _accounted(stream)


def test_a_clock_that_goes_wrong_and_right_again(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    used = []
    for now in range(100, 6000, 100):
        off = 400 if 2000 <= now < 4000 else 0
        _at(stream, "rgb", now + 5, now)
        _at(stream, "depth", now + 8, now + off)
        outputs = [o for step in range(10, 100, 10) for o in stream.poll((now + step) * MS)]
        assert [o.output_ns // MS - EPOCH_MS for o in outputs] == [now]
        used += [o.used for o in outputs]
    assert used[18] == ("rgb", "depth")
    assert used[22:39] == [("rgb",)] * 17
    assert used[-1] == ("rgb", "depth")
    assert _accounted(stream)


def test_samples_without_stamps_are_dated_by_their_arrival(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for now in range(100, 2000, 100):
        clock = (EPOCH_MS + now) * MS
        bare = replace(_sample("depth", now), stamp_ns=None)
        stream.push(stream.dated(bare, clock), now * MS, clock)
        _at(stream, "rgb", now + 1, now - 5)
        outputs += stream.poll((now + 2) * MS)
    assert _rising(outputs)
    assert {o.used for o in outputs[2:]} == {("rgb", "depth")}
    assert outputs[-1].health == {"rgb": "ok", "depth": "ok"}
    assert outputs[-1].lines == ("depth: no stamps in its messages; arrival is taken",)
    assert stream.dated(_sample("depth", 5), 0).stamp_ns == 5 * MS


@pytest.mark.parametrize("off", [0, -(10**9), 3_600_000])
def test_what_has_no_stamps_is_no_witness_against_those_that_have(
    pipeline: Pipeline, off: int
) -> None:
    """A recording from a while ago, or a clock that is ahead: the only one that there is."""
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for now in range(100, 3000, 100):
        clock = (EPOCH_MS + now) * MS
        bare = replace(_sample("depth", now), stamp_ns=None)
        stream.push(stream.dated(bare, clock), now * MS, clock)
        _at(stream, "rgb", now + 1, now - 5 + off)
        outputs += stream.poll((now + 2) * MS)
    assert {o.used for o in outputs[-10:]} == {("rgb", "depth")}
    assert outputs[-1].health == {"rgb": "ok", "depth": "ok"}
    assert outputs[-1].output_ns == (EPOCH_MS + 2895 + off) * MS
    assert _accounted(stream)


def test_dates_differ_while_a_simulated_clock_stands(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    bare = replace(_sample("rgb", 1), stamp_ns=None)
    stamps = [stream.dated(bare, 5000 * MS).stamp_ns for _ in range(5)]
    assert stamps == sorted(set(stamps)) and stamps[0] == 5000 * MS
    assert stream.dated(bare, 1 * MS).stamp_ns == 1 * MS  # set back, as when a recording loops


def test_a_stamp_that_stands_is_told(pipeline: Pipeline) -> None:
    """The sensor speaks, nothing of it can be used: it is named, the other goes on."""
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for now in range(100, 2000, 50):
        _at(stream, "rgb", now + 5, now)
        _at(stream, "depth", now + 6, min(now, 500))
        outputs += stream.poll((now + 6) * MS)
    result = outputs[-1]
    assert (result.used, result.health["depth"]) == (("rgb",), "frozen")
    assert "same stamp" in result.lines[0]
    assert _accounted(stream)


def test_alone_with_a_stamp_that_stands_a_sensor_gives_heartbeats(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    outputs: list[Result] = []
    for now in range(100, 3000, 50):
        _at(stream, "rgb", now, 100)
        outputs += stream.poll(now * MS)
    assert outputs[-1].state == "stop"
    assert outputs[-1].health == {"rgb": "frozen"}
    assert len(outputs) > 10


def test_what_has_arrived_and_waits_counts_as_heard(pipeline: Pipeline) -> None:
    """A receiver that needs a second for each group looks at every message late."""
    stream = _stream(pipeline, "rgb", "depth")
    for now in range(1000, 6000, 1000):
        for modality in ("rgb", "depth"):
            _at(stream, modality, now, now)
        (output,) = stream.poll(now * MS)
        assert output.used == ("rgb", "depth")
        for modality in ("rgb", "depth"):  # arrive while the group is worked on
            stream.hear(modality, (now + 950) * MS)
        health = {m: r.health for m, r in stream.report((now + 1000) * MS).items()}
        assert health == {"rgb": "ok", "depth": "ok"}
        stream.poll((now + 999) * MS)
    stream.poll(9000 * MS)
    assert stream.report(9000 * MS)["rgb"].health == "lost"


def test_one_late_sample_makes_no_late_sensor(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    states = []
    for now in range(0, 3000, 50):
        stream.push(_sample("rgb", now), now * MS)
        late = 200 if now % 200 == 0 else 0
        if now >= 200:
            stream.push(_sample("depth", now - late), now * MS)
        states += [o.health["depth"] for o in stream.poll(now * MS)]
    assert set(states[10:]) == {"ok"}


def test_stamps_without_output_go_on_with_the_sensors_clock(pipeline: Pipeline) -> None:
    """In hold as in stop: the last output's stamp and the time since, and none twice."""
    stream = _stream(pipeline, "rgb")
    before = [o for now in range(0, 500, 20) for o in stream.poll(now * MS)]
    for now in range(1000, 1500, 100):
        _at(stream, "rgb", now + 30, now)
        (last,) = stream.poll((now + 30) * MS)
    assert last.output_ns == (EPOCH_MS + 1400) * MS
    silent = [(now, o) for now in range(1500, 4000, 20) for o in stream.poll(now * MS)]
    assert {o.state for _, o in silent} == {"hold", "stop"}
    for now, output in silent:
        assert output.output_ns == pytest.approx((EPOCH_MS + now - 30) * MS, abs=MS)
    _at(stream, "rgb", 4010, 3980)
    (after,) = stream.poll(4010 * MS)
    stamps = [o.output_ns for o in before + [last] + [o for _, o in silent] + [after]]
    assert len(set(stamps)) == len(stamps)
    assert stamps[len(before) :] == sorted(stamps[len(before) :])


def test_stamps_in_hold_by_policy_are_the_present_time_too(pipeline: Pipeline) -> None:
    pipeline.policy = Policy(required=("rgb",), max_age_ms=150, hold_ms=400)
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for now in range(100, 2000, 50):
        for modality in ("rgb", "depth") if now < 500 else ("depth",):
            _at(stream, modality, now + 5, now)
        outputs += stream.poll((now + 5) * MS)
    stamps = [o.output_ns for o in outputs]
    assert {o.state for o in outputs} == {"full", "hold", "stop"}
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == pytest.approx((EPOCH_MS + 1950) * MS, abs=100 * MS)


def test_a_group_that_waits_when_the_clock_is_set_back_silences_nobody(pipeline: Pipeline) -> None:
    """It leaves as the last of its own epoch; what comes after has earlier stamps."""
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for now in range(0, 4000, 100):
        stamp = now if now < 2000 else now - 2000
        for modality in ("rgb", "depth") if now != 1900 else ("depth",):
            stream.push(replace(_sample(modality, now), stamp_ns=stamp * MS), now * MS)
        outputs += stream.poll(now * MS)
    by_epoch = [[o.output_ns // MS for o in outputs if o.epoch == e] for e in (0, 1)]
    assert by_epoch == [list(range(0, 2000, 100)), list(range(0, 2000, 100))]
    assert _accounted(stream)


def test_a_large_offset_between_two_references_silences_nobody(pipeline: Pipeline) -> None:
    """Their own stamps lie 20 s apart, those that count for the groups do not."""
    sensors = {
        "rgb": SensorTiming(timeout_ns=300 * MS),
        "depth": SensorTiming(offset_ns=-20_000 * MS, timeout_ns=300 * MS),
    }
    stream = StreamCore(pipeline, StreamSettings(sensors, 80 * MS))
    outputs: list[Result] = []
    for now in range(30_000, 36_000, 100):
        stream.push(_sample("depth", now + 20_000), now * MS)
        if not 31_000 < now < 33_000:
            stream.push(_sample("rgb", now), now * MS)
        outputs += stream.poll((now + 1) * MS) + stream.poll((now + 90) * MS)
    assert {o.reference for o in outputs} == {"rgb", "depth"}
    assert len([o for o in outputs if o.output_ns > 33_000 * MS and o.reference == "rgb"]) >= 28


def test_outputs_keep_the_stamps_of_their_sources(pipeline: Pipeline) -> None:
    sensors = {"rgb": SensorTiming(), "lidar": SensorTiming(offset_ns=-50 * MS)}
    stream = StreamCore(pipeline, StreamSettings(sensors, 80 * MS))
    _at(stream, "rgb", 110, 100)
    _at(stream, "lidar", 160, 150)
    (output,) = stream.poll(160 * MS)
    assert output.samples["lidar"].stamp_ns == (EPOCH_MS + 100) * MS
    assert output.source_ns == {"rgb": (EPOCH_MS + 100) * MS, "lidar": (EPOCH_MS + 150) * MS}
    assert output.fresh == {"rgb", "lidar"}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    periods=st.tuples(*[st.sampled_from([30, 50, 100, 200])] * 3),
    phases=st.tuples(*[st.integers(0, 99)] * 3),
    delays=st.tuples(*[st.integers(0, 60)] * 3),
    offset=st.sampled_from([0, -50, 30]),
    silent=st.tuples(*[st.tuples(st.integers(0, 1500), st.integers(0, 1500))] * 3),
    jitter=st.integers(0, 15),
    seed=st.integers(0, 99),
)
def test_random_patterns_of_drivers(
    pipeline: Pipeline,
    periods: tuple[int, ...],
    phases: tuple[int, ...],
    delays: tuple[int, ...],
    offset: int,
    silent: tuple[tuple[int, int], ...],
    jitter: int,
    seed: int,
) -> None:
    """Whatever their rates, phases and pauses: stamps rise, clouds are fresh once, books balance."""
    pipeline.reset()
    pipeline.wanted = frozenset()
    random = np.random.default_rng(seed)
    names: tuple[Kind, ...] = ("rgb", "depth", "lidar")
    sensors = {m: SensorTiming(timeout_ns=300 * MS) for m in names}
    sensors["lidar"] = replace(sensors["lidar"], offset_ns=offset * MS)
    stream = StreamCore(pipeline, StreamSettings(sensors, 80 * MS, heartbeat_ns=100 * MS))
    events = sorted(
        (stamp + delay + int(random.integers(0, jitter + 1)), m, stamp)
        for m, period, phase, delay, (start, span) in zip(
            names, periods, phases, delays, silent, strict=True
        )
        for stamp in range(phase, 2000, period)
        if not start <= stamp < start + span
    )
    outputs: list[Result] = []
    now = 0
    try:
        for at, modality, stamp in events:
            while stream.next_deadline_ns() < at * MS and now * MS < stream.next_deadline_ns():
                now = math.ceil(stream.next_deadline_ns() / MS)
                outputs += stream.poll(now * MS)
            now = max(now, at)
            _at(stream, modality, now, stamp, content=stamp)
            outputs += stream.poll(now * MS)
            assert _accounted(stream)
    finally:
        pipeline.wanted = pipeline.parts
    assert _rising(outputs)
    stamps = [o.output_ns for o in outputs]
    assert len(set(stamps)) == len(stamps)
    for modality in names:
        fresh = [o.source_ns[modality] for o in outputs if modality in o.fresh]
        assert fresh == sorted(set(fresh))


def test_reports_are_in_milliseconds(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    stream.push(_sample("rgb", 100), 112 * MS, clock_ns=112 * MS)
    report = stream.report(3_600_112 * MS)["rgb"]
    assert (report.silent_ms, report.offset_ms) == (3_600_000.0, -12.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_third_late_sample_in_a_row_makes_a_late_sensor(pipeline: Pipeline, count: int) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    for now in range(0, 1000, 100):
        stream.push(_sample("rgb", now), now * MS)
        on_time = now < 1000 - 100 * count
        assert stream.push(_sample("depth", now - (0 if on_time else 250)), now * MS) == (
            "accepted" if on_time else "late"
        )
        stream.poll(now * MS + 90 * MS)
    report = stream.report(1000 * MS)
    assert report["depth"].health == ("late" if count >= 3 else "ok")
    assert report["rgb"].health == "ok"
    # Of a sensor with another fault, that is said.
    stream.reject("depth", "depth: no picture", 1000 * MS)
    assert stream.report(1000 * MS)["depth"].health == "malformed"


def test_heartbeats_come_five_times_a_second_and_only_in_silence(pipeline: Pipeline) -> None:
    """Those of a stream that is told nothing else."""
    timing = SensorTiming(timeout_ns=500 * MS)
    stream = StreamCore(pipeline, StreamSettings({"rgb": timing, "depth": timing}, 80 * MS))
    _tick(stream, 0, "rgb", "depth")
    # Samples that wait are an answer to come, though none was given for so long.
    assert _tick(stream, 250, "rgb") == []
    assert [o.used for o in stream.poll(330 * MS)] == [("rgb",)]
    beats = [now for now in range(331, 2000) for _ in stream.poll(now * MS)]
    assert beats[0] == 930, "nothing was heard since 250; the beat goes on from 330"
    assert {b - a for a, b in itertools.pairwise(beats)} == {200}


def test_each_sensor_is_encoded_in_order_on_one_thread(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings: dict[Kind, SensorTiming] = {m: SensorTiming() for m in ("rgb", "depth")}
    stream = StreamCore(pipeline, StreamSettings(timings, 10_000 * MS), parallel=True)
    encode, begun = pipeline.encode, []
    there, go_on = threading.Event(), threading.Event()

    def slow(sample: Sample, **named: bool) -> Encoded | None:
        begun.append(sample.time_ns)
        there.set()
        go_on.wait(60)
        return encode(sample, **named)

    monkeypatch.setattr(pipeline, "encode", slow)
    for now in (0, 100, 200):
        assert stream.push(_sample("rgb", now), now * MS) == "accepted"
    assert there.wait(60)
    go_on.wait(0.2)
    assert begun == [0], "the others wait for it"
    go_on.set()
    stream.close()
    assert begun == [0, 100 * MS, 200 * MS]


def test_what_is_held_is_of_the_same_clock(pipeline: Pipeline) -> None:
    """Without the sensor that it needs, it holds the last result, until the clock is set back."""
    pipeline.policy = Policy(required=("rgb",), max_age_ms=150, hold_ms=10_000)
    stream = _stream(pipeline, "rgb", "depth")
    outputs: list[Result] = []
    for stamp, now, modalities in (
        (5000, 60_000, ("rgb", "depth")),  # the sensors' clock is behind that of the caller
        (5200, 60_200, ("depth",)),
        (5400, 60_400, ("rgb",)),  # waits, while the clock is set back
        (100, 60_450, ("depth",)),
    ):
        for modality in modalities:
            stream.push(_sample(modality, stamp), now * MS)
        if stamp != 5400:
            outputs += stream.poll((now + 1) * MS) + stream.poll((now + 90) * MS)
    found = [(o.epoch, o.state, o.labels is not None) for o in outputs]
    assert found == [
        (0, "full", True),
        (0, "hold", True),
        (0, "degraded", True),
        (1, "stop", False),
    ]


def test_ages_are_on_the_reference_clock(pipeline: Pipeline) -> None:
    sensors = {"rgb": SensorTiming(), "depth": SensorTiming(offset_ns=-50 * MS)}
    stream = StreamCore(pipeline, StreamSettings(sensors, 80 * MS))
    stream.push(_sample("rgb", 110), 110 * MS)
    stream.push(_sample("depth", 150), 111 * MS)  # taken at 100
    (output,) = stream.poll(111 * MS)
    assert output.ages_ns == {"rgb": 0, "depth": 10 * MS}
    assert output.stamp_ns == 110 * MS


@pytest.mark.parametrize("parallel", [False, True])
def test_a_stream_that_is_let_go_takes_its_samples_along(
    pipeline: Pipeline, parallel: bool
) -> None:
    """At once, and not when Python looks for objects that refer to one another: fleets make thousands."""
    settings = StreamSettings({"rgb": SensorTiming(), "depth": SensorTiming()}, 80 * MS)
    stream = StreamCore(pipeline, settings, parallel=parallel)
    sample = _sample("rgb", 100)
    stream.push(sample, 100 * MS)
    stream.push(_sample("depth", 100), 100 * MS)
    assert len(stream.poll(101 * MS)) == 1
    stream.close()
    gc.disable()
    try:
        gone = weakref.ref(stream)
        del stream
        assert gone() is None
    finally:
        gc.enable()

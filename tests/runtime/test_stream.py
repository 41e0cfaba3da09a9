"""Samples in, results out: encoding on arrival, reuse, losses, heartbeats, and the books."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.errors import ConfigError, EngineError
from perception.frame import MODALITIES, Modality, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.collector import SensorTiming
from perception.runtime.pipeline import PARTS, Pipeline
from perception.runtime.policy import Policy
from perception.runtime.stream import Output, Stream

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


def _sample(modality: Modality, stamp_ms: float) -> Sample:
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


def _stream(pipeline: Pipeline, *modalities: Modality, **timing: int) -> Stream:
    sensors = {m: SensorTiming(**{"timeout_ns": 300 * MS, **timing}) for m in modalities}
    return Stream(pipeline, sensors, 80 * MS, heartbeat_ns=100 * MS)


def _tick(stream: Stream, now_ms: float, *modalities: Modality) -> list[Output]:
    for modality in modalities:
        stream.push(_sample(modality, now_ms), round(now_ms * MS))
    return stream.poll(round(now_ms * MS))


def _accounted(stream: Stream) -> bool:
    return all(
        r.received == r.used + r.superseded + r.rejected + r.waiting and r.superseded >= 0
        for r in stream.report(10**15).values()
    )


def test_a_complete_group_needs_only_the_fuser(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, *MODALITIES)
    _tick(stream, 0, "rgb", "depth", "thermal")
    assert {m: pipeline.engines[m].runs for m in MODALITIES[:3]}.keys() == set(MODALITIES[:3])
    runs = pipeline.engines["fuser"].runs
    (output,) = _tick(stream, 1, "lidar")
    assert pipeline.engines["fuser"].runs == runs + 1
    assert output.result.used == MODALITIES
    assert (output.result.state, output.reason, output.coverage) == ("full", "complete", 1.0)
    assert (output.reference, output.stamp_ns, output.arrived_ns) == ("rgb", 0, 1 * MS)
    assert {"encode_lidar", "fuse"} <= set(output.result.timings)
    assert output.result.timings["total"] >= output.result.engine_ms


def test_the_same_numbers_as_a_single_call(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    (output,) = _tick(stream, 0, "rgb", "depth")
    direct = pipeline({m: _sample(m, 0) for m in ("rgb", "depth")})
    assert np.array_equal(output.result.labels, direct.labels)  # type: ignore[arg-type]
    assert np.allclose(output.result.boxes.scores, direct.boxes.scores)  # type: ignore[union-attr]


def test_full_is_measured_against_the_inputs_there_are(pipeline: Pipeline) -> None:
    (output,) = _tick(_stream(pipeline, "rgb", "depth"), 0, "rgb", "depth")
    assert output.result.state == "full"


def test_a_slower_sensor_takes_part_between_its_samples(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "lidar")
    ages = []
    for now in range(0, 400, 33):
        both = ("rgb", "lidar") if now % 99 == 0 else ("rgb",)
        ages += [o.result.ages_ns.get("lidar") for o in _tick(stream, now, *both)]
        ages += [o.result.ages_ns.get("lidar") for o in stream.poll((now + 32) * MS)]
    assert None not in ages
    assert {0, 33 * MS, 66 * MS} == set(ages)
    assert _accounted(stream)


def test_old_features_are_not_used(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    used = []
    for now in range(50, 400, 50):
        used += [o.result.used for o in _tick(stream, now, "rgb")]
        used += [o.result.used for o in stream.poll((now + 49) * MS)]
    assert used[0] == ("rgb", "depth")
    assert used[-1] == ("rgb",)


def test_a_bad_sample_drops_the_features_before_it(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    black = replace(_sample("rgb", 30), data=np.zeros((96, 128, 3), np.uint8))
    assert stream.push(black, 30 * MS) == "unusable"
    (output,) = _tick(stream, 30, "depth")
    assert (output.result.used, output.reference) == (("depth",), "depth")
    assert output.result.health == {"rgb": "dark", "depth": "ok"}
    assert stream.report(30 * MS)["rgb"].rejected == 1
    assert _accounted(stream)


def test_loss_hold_stop_and_recovery(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    states = [o.result.state for now in range(20, 1000, 20) for o in stream.poll(now * MS)]
    assert states[0] == "hold"
    assert states[-1] == "stop"
    assert states == sorted(states)
    assert stream.report(1000 * MS)["rgb"].health == "lost"
    assert pipeline.counters["lost_rgb"] == 1
    (output,) = _tick(stream, 1020, "rgb", "depth")
    assert output.result.used == ("rgb", "depth")  # nobody else is left: trusted at once
    assert _accounted(stream)


def test_a_returning_sensor_must_prove_itself_while_others_see(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 0, "rgb", "depth")
    for now in range(50, 500, 50):
        _tick(stream, now, "rgb")
    (first,) = _tick(stream, 500, "rgb", "depth")
    (second,) = _tick(stream, 550, "rgb", "depth")
    assert (first.result.used, second.result.used) == (("rgb",), ("rgb", "depth"))


def test_messages_that_cannot_be_decoded_are_malformed_not_lost(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    for now in range(0, 900, 50):
        stream.reject("rgb", "rgb: unknown color encoding 'jpeg2000'", now * MS)
        outputs = _tick(stream, now, "depth")
    assert outputs[-1].result.health["rgb"] == "malformed"
    assert "jpeg2000" in outputs[-1].result.warnings[0]
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
    assert outputs[-1].result.health == {"rgb": "ok", "depth": "late"}


def test_a_clock_set_back_begins_anew(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", "depth")
    _tick(stream, 60_000, "rgb", "depth")
    for modality in ("rgb", "depth"):
        stream.push(_sample(modality, 5), 60_100 * MS)
    (output,) = stream.poll(60_100 * MS)
    assert (output.stamp_ns, output.result.used) == (5 * MS, ("rgb", "depth"))


def test_the_stamp_given_is_the_sensors_own(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb", offset_ns=-40 * MS)
    (output,) = _tick(stream, 100, "rgb")
    assert output.stamp_ns == 100 * MS
    assert output.samples["rgb"].stamp_ns == 60 * MS


def test_heartbeats_before_the_first_sample(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    beats = [o for now in range(0, 500, 10) for o in stream.poll(now * MS)]
    assert 4 <= len(beats) <= 5
    assert {(b.result.state, b.reason) for b in beats} == {("stop", "heartbeat")}
    assert math.isnan(stream.report(0)["rgb"].silent_ms)


def test_skipped_messages_are_superseded(pipeline: Pipeline) -> None:
    stream = _stream(pipeline, "rgb")
    stream.skip("rgb")
    _tick(stream, 0, "rgb")
    assert stream.report(0)["rgb"].superseded == 1
    assert _accounted(stream)


def test_inputs_that_the_bundle_lacks_are_refused(tiny_bundle: Path, pipeline: Pipeline) -> None:
    narrow = Pipeline(
        pipeline.bundle, {}, pipeline.engines["fuser"], Policy(), pipeline.health.config
    )
    narrow.manifest = narrow.manifest.model_copy(update={"modalities": ("rgb",)})
    with pytest.raises(ConfigError, match="not lidar"):
        Stream(narrow, {"lidar": SensorTiming()}, MS)


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
    assert _tick(_stream(pipeline, "rgb"), 0, "rgb")[0].result.used == ("rgb",)


def test_encoding_in_parallel_gives_the_same_and_accounts_for_all(pipeline: Pipeline) -> None:
    found = {}
    for parallel in (False, True):
        pipeline.reset()
        timings: dict[Modality, SensorTiming] = {m: SensorTiming() for m in ("rgb", "depth")}
        stream = Stream(pipeline, timings, 50 * MS, parallel=parallel)
        outputs = []
        for now in range(100, 1300, 100):
            outputs += _tick(
                stream, now, *(("rgb", "depth") if now not in (500, 600) else ("depth",))
            )
            outputs += _tick(stream, now + 60)
        assert _accounted(stream)
        stream.close()
        found[parallel] = [(o.result.used, o.stamp_ns, int(_labels(o).sum())) for o in outputs]
    assert found[True] == found[False]
    assert len(found[True]) == 12


def _labels(output: Output) -> np.ndarray:
    assert output.result.labels is not None
    return output.result.labels


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("graph", ["rgb", "fuser"])
def test_samples_lost_to_an_engine_are_counted_as_rejected(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, graph: str, parallel: bool
) -> None:
    timings: dict[Modality, SensorTiming] = {m: SensorTiming() for m in ("rgb", "depth")}
    stream = Stream(pipeline, timings, 50 * MS, parallel=parallel)
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
        pipeline.wanted = PARTS
    assert output.result.labels is not None
    assert output.result.confidence is None
    assert output.result.boxes is None

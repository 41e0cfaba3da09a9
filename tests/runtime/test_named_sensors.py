"""Sensors with names of their own: wired to inputs, several of a kind on one encoder, one of them hung."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundles import GRID, SmallBundles

from perception.errors import ConfigError, InputError
from perception.frame import Frame, Sample
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.engines.base import Engine, Tensor
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Result, SensorWarning
from perception.runtime.stream import Stream
from perception.sensors.depth import DepthSpec

MS, S = 10**6, 10**9
PATIENCE_S = 60.0
INPUTS = {"left": ("rgb", "color"), "right": ("rgb", "color"), "depth": ("depth", "depth")}


def _picture(sensor: str, seed: int = 0, stamp_ns: int | None = 1) -> Sample:
    rng = np.random.default_rng([seed, *sensor.encode()])
    if sensor.endswith("depth"):
        return Sample("depth", rng.uniform(1, 9, GRID).astype(np.float32), stamp_ns, sensor=sensor)
    data = rng.integers(20, 220, (*GRID, 3), dtype=np.uint8)
    return Sample("rgb", data, stamp_ns, sensor=sensor)


def _frame(*sensors: str, seed: int = 0) -> Frame:
    return Frame({s: _picture(s, seed) for s in sensors})


def _same(one: Result, other: Result) -> bool:
    pairs = [(one.labels, other.labels), (one.confidence, other.confidence)]
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)


@pytest.fixture
def stereo(tmp_path: Path) -> Pipeline:
    return Pipeline.load(SmallBundles(tmp_path).named(INPUTS), "cpu", threads=1)


@pytest.fixture
def rgbd(small: SmallBundles) -> Path:
    return small(("rgb", "depth"))


def test_renamed_sensors_give_what_the_inputs_names_give(rgbd: Path) -> None:
    plain = Pipeline.load(rgbd, "cpu", threads=1)
    renamed = Pipeline.load(rgbd, "cpu", threads=1, sensors={"tof_depth": "depth", "cam": "rgb"})
    assert renamed.sensors == ("cam", "tof_depth")  # in the order of the inputs
    assert renamed.inputs == {"cam": "rgb", "tof_depth": "depth"}
    assert renamed.kinds == {"cam": "rgb", "tof_depth": "depth"}
    rgb, depth = _picture("rgb"), _picture("depth")
    wanted = plain({"rgb": rgb, "depth": depth})
    got = renamed({"cam": rgb, "tof_depth": depth.named("tof_depth")})
    assert _same(got, wanted)
    assert (got.used, got.present, got.state) == (("cam", "tof_depth"),) * 2 + ("full",)
    assert got.reference == "cam" and set(got.health) == set(got.samples) == {"cam", "tof_depth"}
    assert {k for k in got.timings if k.startswith("encode_")} == {"encode_cam", "encode_tof_depth"}
    assert renamed.counters["encoded_cam"] == 1 and not renamed.counters["encoded_rgb"]
    # Under the kind's name nobody is known here any more.
    assert renamed({"rgb": rgb}).used == () and renamed({"rgb": rgb}).state in ("hold", "stop")
    dark = renamed({"cam": Sample("rgb", np.zeros((*GRID, 3), np.uint8)), "tof_depth": depth})
    assert dark.used == ("tof_depth",) and dark.lines == ("cam: sensor is dark",)
    assert dark.warnings == (SensorWarning("cam", "dark", "cam: sensor is dark"),)


def test_of_several_inputs_some_may_have_no_sensor(rgbd: Path) -> None:
    alone = Pipeline.load(rgbd, "cpu", threads=1, sensors={"cam": "rgb"})
    result = alone({"cam": _picture("rgb")})
    assert (alone.sensors, result.used, result.state) == (("cam",), ("cam",), "full")
    plain = Pipeline.load(rgbd, "cpu", threads=1)({"rgb": _picture("rgb")})
    assert _same(result, plain) and plain.state == "degraded"


@pytest.mark.parametrize(
    ("sensors", "error", "message"),
    [
        ({"cam": "sonar"}, ConfigError, "cam: the bundle has no input 'sonar' .*rgb, depth"),
        ({"a": "rgb", "b": "rgb"}, ConfigError, "rgb: a and b are for the same input"),
        ({"rgb": "depth"}, ConfigError, "rgb: is for an input of kind depth"),
        ({"Cam": "rgb"}, InputError, "'Cam' is no name of a sensor"),
        ({"policy": "rgb"}, InputError, "no sensor can be called 'policy'"),
        ({"": "rgb"}, InputError, "'' is no name"),
        ({}, ConfigError, "needs a sensor"),
    ],
)
def test_wrong_wirings_are_refused(
    rgbd: Path, sensors: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Pipeline.load(rgbd, "cpu", threads=1, sensors=sensors)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_cannot_be_required(rgbd: Path) -> None:
    """Otherwise a slip of the pen would keep a robot from ever getting an output."""
    wrong = Policy(required=("rbg",))
    with pytest.raises(ConfigError, match=r"policy.required: 'rbg' is not among rgb, depth"):
        Pipeline.load(rgbd, "cpu", threads=1, policy=wrong)
    pipeline = Pipeline.load(rgbd, "cpu", threads=1, policy=Policy(required=("depth",)))
    good = StreamSettings({"rgb": SensorTiming(), "depth": SensorTiming()})
    stream = StreamCore(pipeline, good)
    for bad in (
        StreamSettings({"rgb": SensorTiming()}),
        StreamSettings(good.sensors, policy=wrong),
    ):
        with pytest.raises(ConfigError, match="policy.required"):
            StreamCore(pipeline, bad)
    with pytest.raises(ConfigError, match="policy.required"):
        stream.configure(StreamSettings(good.sensors, policy=wrong))
    assert pipeline.policy.required == ("depth",)


@pytest.mark.parametrize(
    "frame",
    [
        lambda array: array,
        lambda array: {"rgb": array},
        lambda array: {"rgb": array.tolist()},
        lambda array: {"rgb": _picture("rgb"), "depth": array[..., 0]},
        lambda array: [_picture("rgb")],
        lambda array: None,
    ],
)
def test_bare_arrays_are_told_how_to_become_samples(
    rgbd: Path, frame: Callable[[Any], Any]
) -> None:
    pipeline = Pipeline.load(rgbd, "cpu", threads=1)
    with pytest.raises(InputError, match=r"bare.*perception\.sample_of") as caught:
        pipeline(frame(_picture("rgb").data))
    assert "\n" not in str(caught.value)


def test_a_sample_of_another_kind_is_malformed_by_its_sensors_name(stereo: Pipeline) -> None:
    wrong = Sample("depth", np.ones(GRID, np.float32), 1, sensor="left")
    result = stereo({"left": wrong, "right": _picture("right")})
    assert result.used == ("right",) and result.health["left"] == "malformed"
    assert result.lines == ("left: is depth, this input takes rgb",)


def test_an_encoder_that_is_shared_keeps_its_inputs_apart(stereo: Pipeline) -> None:
    left, right = _frame("left"), _frame("right")
    alone, other = stereo(left), stereo(right)
    both = stereo(Frame({**left, **right}))
    assert both.used == ("left", "right") and both.state == "degraded"
    # Presence says which of the two it was: the fuser adds what is there, and nothing else.
    swapped = stereo({"left": _picture("right").named("left")})
    assert _same(swapped, other) and not _same(swapped, alone) and not _same(both, alone)
    engines = {id(stereo.engines[n]): stereo.engines[n] for n in ("left", "right")}
    assert sum(e.runs for e in engines.values()) == 5 and stereo.engines["depth"].runs == 0


@given(order=st.permutations(["left", "right", "depth"]), count=st.integers(1, 3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_in_which_samples_come_changes_nothing(
    stereo: Pipeline, order: list[str], count: int
) -> None:
    stereo.reset()
    frame = _frame(*order[:count])
    got = stereo(dict(frame.samples))
    stereo.reset()
    names = [s for s in stereo.sensors if s in frame]
    assert got.used == tuple(names) and _same(got, stereo({s: frame[s] for s in names}))


def test_two_threads_call_one_pipeline(stereo: Pipeline) -> None:
    frames = [_frame("left", "depth", seed=1), _frame("right", seed=2), _frame(*INPUTS, seed=3)]
    wanted = [stereo(f) for f in frames]
    stereo.health.config = type(stereo.health.config)(frozen_after=0)

    def call(index: int) -> bool:
        return all(_same(stereo(frames[index]), wanted[index]) for _ in range(25))

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(call, [0, 1, 2, 0, 1, 2]))
    assert stereo.counters["engine_failures"] == 0


class Hung(Engine):
    """A real engine that does not answer until it is let go."""

    def __init__(self, inner: Engine) -> None:
        self.inner, self.backend = inner, inner.backend
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.entered, self.go = threading.Event(), threading.Event()

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.entered.set()
        assert self.go.wait(PATIENCE_S)
        return self.inner.infer(feeds)


@contextmanager
def hung(pipeline: Pipeline, name: str) -> Iterator[Hung]:
    engine = Hung(pipeline.engines[name])
    pipeline.engines[name] = engine
    try:
        yield engine
    finally:
        engine.go.set()


def _soon(call: Callable[[], Any]) -> Any:
    """What it gives, on a thread of its own, if it gives anything."""
    threads = ThreadPoolExecutor(1)
    try:
        return threads.submit(call).result(PATIENCE_S / 2)
    finally:
        threads.shutdown(wait=False)


def test_a_hung_encoder_keeps_only_its_caller(stereo: Pipeline) -> None:
    wanted = stereo(_frame("right", "depth"))
    with hung(stereo, "left") as engine, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(stereo, _frame("left"))
        assert engine.entered.wait(PATIENCE_S)
        assert isinstance(_soon(lambda: stereo.encode(_picture("right", 5))).stamp_ns, int)
        assert _same(_soon(lambda: stereo(_frame("right", "depth"))), wanted)
        assert _soon(stereo.reset) is None
        assert not waiting.done()
        engine.go.set()
        assert waiting.result(PATIENCE_S).used == ("left",)


def test_nor_does_it_keep_a_stream_from_reporting(
    stereo: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perception.runtime.encoding_lanes.PATIENCE_S", 1.0)
    timing = {s: SensorTiming(timeout_ns=20 * S, window_ns=60 * MS) for s in stereo.sensors}
    policy = Policy(max_age_ms=5000)
    with (
        hung(stereo, "left") as engine,
        Stream(StreamSettings(timing, 2 * S, 100 * MS, policy=policy), pipeline=stereo) as stream,
    ):
        results: list[Result] = []
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not any("right" in r.used for r in results):
            for sensor in ("left", "right"):
                stream.push(sensor, _picture(sensor, int(time.monotonic() * 1e6), None))
            report = _soon(stream.report)
            assert set(report) == set(stereo.sensors)
            result = stream.get(0.05)
            results += [result] if result is not None else []
        assert engine.entered.is_set() and results[-1].used == ("right",)
        assert results[-1].health["left"] == "stalled"
        assert any("left: its encoder has not answered" in line for line in results[-1].lines)
        assert _soon(stream.report)["left"].health == "stalled"
        engine.go.set()
        while time.monotonic() < end and "left" not in results[-1].used:
            stream.push("left", _picture("left", int(time.monotonic() * 1e6), None))
            result = stream.get(0.05)
            results += [result] if result is not None else []
        assert "left" in results[-1].used


def test_inputs_that_share_an_encoder_share_their_preprocessings_kind(small: SmallBundles) -> None:
    """Of each its own values: what one input was trained on is not the other's."""

    def edit(content: dict[str, Any]) -> None:
        content["inputs"]["far_depth"]["preprocess"] = {"max_m": 80.0}

    inputs = {"near_depth": ("depth", "range"), "far_depth": ("depth", "range")}
    pipeline = Pipeline.load(small.named(inputs, edit=edit), "cpu", threads=1)
    specs = [pipeline.manifest.inputs[n].preprocess for n in inputs]
    assert specs == [DepthSpec(), DepthSpec(max_m=80.0)]
    near = pipeline({"near_depth": _picture("depth").named("near_depth")})
    far = pipeline({"far_depth": _picture("depth").named("far_depth")})
    assert near.used == ("near_depth",) and far.used == ("far_depth",) and not _same(near, far)


def test_a_stream_of_two_cameras_gives_what_calls_give(stereo: Pipeline) -> None:
    stream = StreamCore(stereo, StreamSettings({s: SensorTiming() for s in stereo.sensors}))
    for count in range(5):
        now = (1 + count) * 100 * MS
        frame = Frame({s: _picture(s, count, now) for s in stereo.sensors})
        if count == 3:
            frame = frame.without("left")
        for sample in frame.values():
            assert stream.push(sample, now) == "accepted"
        results = stream.poll(now + 90 * MS)
        got = results[-1]
        assert got.used == tuple(frame) and set(got.fresh) == set(frame)
        assert got.state == ("degraded" if count == 3 else "full")
        assert got.reference == ("right" if count == 3 else "left") and got.output_ns == now
        wanted = stereo.fuse(
            {s: stereo.encode(x, trust=True) for s, x in frame.items()}, _about(frame)
        )
        assert _same(got, wanted)
    report = stream.report(now)
    assert {s: (r.received, r.used) for s, r in report.items()} == {
        "left": (4, 4),
        "right": (5, 5),
        "depth": (5, 5),
    }


def _about(frame: Frame) -> Result:
    stamps = {s: x.time_ns for s, x in frame.items()}
    return Result(
        present=tuple(frame), stamp_ns=max(stamps.values()), samples=frame, source_ns=stamps
    )

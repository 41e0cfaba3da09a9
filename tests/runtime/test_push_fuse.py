"""`push` and `fuse` as the README shows them: no stamps, no times, threads, and sensors that die."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import perception
from perception.errors import InputError
from perception.frame import Frame, Sample
from perception.runtime.collector import SensorTiming
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.stream import Stream

MS, S = 10**6, 10**9
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def loaded(tiny_bundle: Path) -> Pipeline:
    # Slow machines take long between two lines of a test, and ages count real time.
    pipeline = Pipeline.load(tiny_bundle, "cpu", threads=1)
    for modality in ("rgb", "depth"):
        pipeline.push(modality, _sample(modality))
    pipeline.fuse()
    return pipeline


@pytest.fixture
def pipeline(loaded: Pipeline) -> Pipeline:
    loaded.reset()
    loaded.counters.clear()
    loaded.policy = Policy(max_age_ms=2000, hold_ms=3000)
    loaded.clock = time.time_ns
    return loaded


def _sample(modality: str, stamp_ns: int | None = None) -> Sample:
    """A new picture each time, so that none is frozen; made as the README makes it."""
    if modality == "rgb":
        sample = perception.Sample("rgb", RANDOM.integers(20, 220, (48, 64, 3), np.uint8))
    else:
        meters = RANDOM.uniform(1, 9, (48, 64)).astype(np.float32)
        sample = perception.Sample("depth", meters)
    return sample if stamp_ns is None else replace(sample, stamp_ns=stamp_ns)


class Clock:
    """A system clock that the test sets; its time is a recent one."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * S

    def __call__(self) -> int:
        return self.now


def test_the_readmes_recipe_uses_every_sample(pipeline: Pipeline) -> None:
    before, stamps = time.time_ns(), []
    for _ in range(5):
        assert pipeline.push("rgb", _sample("rgb"))
        assert pipeline.push("depth", _sample("depth"))
        result = pipeline.fuse()
        assert result.used == ("rgb", "depth")
        stamps.append(result.stamp_ns)
    assert before <= stamps[0] and stamps == sorted(set(stamps)) and stamps[-1] <= time.time_ns()
    assert pipeline.counters["encoded_rgb"] == pipeline.counters["encoded_depth"] == 5
    assert not pipeline.counters["out_of_order_rgb"]


def test_results_follow_the_newest_picture(pipeline: Pipeline) -> None:
    """The first answer must not come again for another picture."""
    pictures = [_sample("rgb") for _ in range(3)]
    alone = []
    for picture in pictures:
        pipeline.reset()
        alone.append(pipeline({"rgb": picture}).confidence)
    pipeline.reset()
    for picture, wanted in zip(pictures, alone, strict=True):
        pipeline.push("rgb", picture)
        assert np.array_equal(pipeline.fuse().confidence, wanted)


def test_threads_and_a_sensor_that_dies(pipeline: Pipeline) -> None:
    pipeline.policy = Policy(max_age_ms=1500, hold_ms=100)
    ended = {m: threading.Event() for m in ("rgb", "depth")}

    def drive(modality: str) -> None:
        while not ended[modality].is_set():
            pipeline.push(modality, _sample(modality))
            time.sleep(0.01)

    threads = [threading.Thread(target=drive, args=(m,)) for m in ended]
    for thread in threads:
        thread.start()

    def until(used: tuple[str, ...]) -> perception.Result:
        patience = time.monotonic() + 30
        while (result := pipeline.fuse()).used != used and time.monotonic() < patience:
            time.sleep(0.01)
        return result

    try:
        assert until(("rgb", "depth")).health["rgb"] == "ok"
        ended["rgb"].set()
        result = until(("depth",))
        assert result.used == ("depth",) and result.health["rgb"] == "late"
        assert "rgb: its newest sample is" in result.warnings[0]
        assert result.state == "degraded"
        ended["depth"].set()
        result = until(())
        assert result.used == () and result.state in ("hold", "stop")
        time.sleep(0.2)
        assert pipeline.fuse().state == "stop"
    finally:
        for event in ended.values():
            event.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(lambda: None, id="unstamped"),
        pytest.param(time.time_ns, id="wall clock"),
        pytest.param(time.monotonic_ns, id="monotonic clock"),
        pytest.param(lambda: 0, id="simulation from zero"),
        pytest.param(lambda: 1_500_000_000 * S, id="an old recording"),
        pytest.param(lambda: time.time_ns() + 3600 * S, id="a clock that is an hour ahead"),
        pytest.param(lambda: time.time_ns() - 3600 * S, id="a clock that is an hour behind"),
    ],
)
def test_dead_sensors_are_noticed_whatever_their_clock(pipeline: Pipeline, base) -> None:  # type: ignore[no-untyped-def]
    pipeline.policy = Policy(max_age_ms=400, hold_ms=300)
    pipeline.push("rgb", _sample("rgb", base()))
    first = pipeline.fuse()
    assert first.used in (("rgb",), ())  # a machine may take that long in between
    time.sleep(0.5)
    result = pipeline.fuse()
    assert result.used == () and result.state in ("hold", "stop")
    assert result.health["rgb"] == "late"
    time.sleep(0.4)
    assert pipeline.fuse().state == "stop"


def test_dark_pictures_do_not_stop_the_time_of_the_others(pipeline: Pipeline) -> None:
    pipeline.policy = Policy(max_age_ms=300)
    pipeline.push("depth", _sample("depth", 5 * S))
    black = perception.Sample("rgb", np.zeros((48, 64, 3), np.uint8), stamp_ns=5 * S)
    for step in range(8):
        assert not pipeline.push("rgb", replace(black, stamp_ns=5 * S + step))
        time.sleep(0.06)
    assert pipeline.fuse().used == ()


def test_a_stale_result_is_not_fresh_though_it_has_just_come(pipeline: Pipeline) -> None:
    clock = pipeline.clock = Clock()
    pipeline.push("rgb", _sample("rgb", clock.now - 60 * S))  # a minute in some buffer
    result = pipeline.fuse()
    assert result.used == () and result.health["rgb"] == "late"
    assert "60000 ms old" in result.warnings[0]
    pipeline.push("rgb", _sample("rgb", clock.now - 50 * MS))
    result = pipeline.fuse()
    assert result.used == ("rgb",) and not result.warnings


@pytest.mark.parametrize("step_ns", [0, -1, -500 * MS, -3600 * S, 3600 * S])
def test_unstamped_samples_survive_a_clock_that_is_set(pipeline: Pipeline, step_ns: int) -> None:
    clock = pipeline.clock = Clock()
    for _ in range(3):
        assert pipeline.push("rgb", _sample("rgb"))
        assert pipeline.fuse().used == ("rgb",)
        clock.now += step_ns
    assert not pipeline.counters["out_of_order_rgb"]


def test_unstamped_frames_get_the_time_of_the_call(pipeline: Pipeline) -> None:
    """Otherwise the last result would be held for ever, as no time passes."""
    clock = pipeline.clock = Clock()
    pipeline.policy = Policy(hold_ms=400)
    assert pipeline({"rgb": _sample("rgb")}).stamp_ns == clock.now
    black = perception.Sample("rgb", np.zeros((48, 64, 3), np.uint8))
    states = []
    for _ in range(4):
        clock.now += 150 * MS
        states.append(pipeline(Frame({"rgb": black})).state)
    assert states == ["hold", "hold", "stop", "stop"]


def test_zero_is_a_time(pipeline: Pipeline) -> None:
    clock = pipeline.clock = Clock()
    assert Frame({"rgb": _sample("rgb", 0)}).stamp_ns == 0
    assert pipeline({"rgb": _sample("rgb", 0)}).stamp_ns == 0
    pipeline.reset()
    assert pipeline.push("rgb", _sample("rgb", 0))
    assert not pipeline.push("rgb", _sample("rgb", 0))
    assert pipeline.push("rgb", _sample("rgb", 33 * MS))
    assert pipeline.fuse(now_ns=40 * MS).stamp_ns == 33 * MS
    assert clock.now not in (0, 33 * MS)


def test_one_stamp_serves_the_others_of_a_frame(pipeline: Pipeline) -> None:
    result = pipeline({"rgb": _sample("rgb"), "depth": _sample("depth", 7 * S)})
    assert result.stamp_ns == 7 * S and result.ages_ns == {"rgb": 0, "depth": 0}
    assert Frame({}).stamp_ns is None
    with pytest.raises(InputError, match="no stamp"):
        _ = _sample("rgb").time_ns


def test_streams_take_the_time_of_arrival(pipeline: Pipeline) -> None:
    sensors = {"rgb": SensorTiming(), "depth": SensorTiming()}
    stream = Stream(pipeline, sensors, 80 * MS)
    for now in (1000 * MS, 1100 * MS):
        assert stream.push(_sample("rgb"), now) == "accepted"
        assert stream.push(_sample("depth"), now + 5 * MS) == "accepted"
        (output,) = stream.poll(now + 5 * MS)
        assert output.stamp_ns == now and output.result.used == ("rgb", "depth")

"""`perception.Stream` as people use it: threads that push, sensors that die, engines that fail or hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import perception
from perception.errors import ConfigError, EngineError, InputError
from perception.runtime import encoding_lanes, recovery
from perception.runtime.collector import SensorTiming
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import EngineEvent, Result
from perception.runtime.stream import Clock, Listener, Moment, Stream, StreamSettings
from perception.runtime.timing import Rates, settings_for

MS, S = 10**6, 10**9
PATIENCE_S = 60.0
LONG = SensorTiming(timeout_ns=20 * S, window_ns=60 * MS)
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def loaded(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "cpu", threads=1)


@pytest.fixture
def pipeline(loaded: Pipeline) -> Pipeline:
    loaded.reset()
    loaded.counters.clear()
    loaded.wanted = frozenset({"labels"})
    return loaded


def picture(sensor: str) -> tuple[np.ndarray[Any, Any], str]:
    """A new one each time, so that none is frozen."""
    if sensor == "rgb":
        return RANDOM.integers(20, 220, (48, 64, 3), np.uint8), "bgr8"
    return RANDOM.integers(900, 9000, (48, 64), np.uint16), "16UC1"


def push(stream: Stream, *sensors: str) -> None:
    for sensor in sensors:
        array, encoding = picture(sensor)
        stream.push(sensor, array, encoding=encoding)


@contextmanager
def stream_of(pipeline: Pipeline, *sensors: str, **options: Any) -> Iterator[Stream]:
    timing = {m: options.pop("timing", LONG) for m in sensors or ("rgb", "depth")}
    policy = options.pop("policy", Policy(max_age_ms=5000))
    settings = StreamSettings(timing, 2 * S, 100 * MS, policy=policy)
    with Stream(settings, pipeline=pipeline, **options) as stream:
        yield stream


def until(stream: Stream, wanted: Callable[[Result], bool], *pushed: str) -> Result:
    """The first result that is wanted, while these sensors give samples."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        push(stream, *pushed)
        result = stream.get(0.05)
        if result is not None and wanted(result):
            return result
    raise AssertionError(f"never came; {stream.report()}")


def test_sensors_die_and_return(pipeline: Pipeline) -> None:
    timing = SensorTiming(timeout_ns=600 * MS, window_ns=60 * MS)
    policy = Policy(max_age_ms=500, hold_ms=300)
    with stream_of(pipeline, timing=timing, policy=policy) as stream:
        both = until(stream, lambda r: r.state == "full", "rgb", "depth")
        assert both.used == ("rgb", "depth") and both.labels is not None
        alone = until(stream, lambda r: r.health["rgb"] == "lost" and bool(r.used), "depth")
        assert alone.used == ("depth",) and alone.state == "degraded"
        assert [(w.sensor, w.state) for w in alone.warnings] == [("rgb", "lost")]
        assert alone.lines[0] == "rgb: no message for more than 600 ms" == str(alone.warnings[0])
        stop = until(stream, lambda r: r.state == "stop")
        assert (stop.used, stop.labels, stop.reason) == ((), None, "heartbeat")
        until(stream, lambda r: r.state == "full" and not r.warnings, "rgb", "depth")


def test_what_is_not_fetched_in_time_gives_way_and_is_counted(pipeline: Pipeline) -> None:
    with stream_of(pipeline) as stream:
        until(stream, lambda r: r.state == "full", "rgb", "depth")
        for _ in range(50):
            push(stream, "rgb", "depth")
        end = time.monotonic() + PATIENCE_S
        while stream._inbox._items and time.monotonic() < end:
            time.sleep(0.01)
        assert stream.counters["dropped_rgb"] > 0
    report = stream.report()
    for sensor, one in report.items():
        assert one.received == stream.counters[f"received_{sensor}"]
        assert one.received == one.used + one.superseded + one.rejected + one.waiting


def test_results_that_nobody_fetches_give_way(pipeline: Pipeline) -> None:
    with stream_of(pipeline, kept=1) as stream:
        end = time.monotonic() + PATIENCE_S
        while not stream.dropped_results and time.monotonic() < end:
            push(stream, "rgb", "depth")
            time.sleep(0.02)
        assert stream.dropped_results > 0
        assert stream.get(1) is not None


def test_an_array_may_be_filled_again_at_once(pipeline: Pipeline) -> None:
    array, encoding = picture("rgb")
    wanted = pipeline({"rgb": perception.sample_of("rgb", array, encoding)}).labels
    pipeline.reset()
    with stream_of(pipeline, "rgb") as stream:
        stream.push("rgb", array, encoding=encoding)
        array[:] = 0
        result = stream.get(PATIENCE_S)
    assert result is not None and np.array_equal(result.labels, wanted)  # type: ignore[arg-type]


def test_callbacks_instead_of_iteration(pipeline: Pipeline) -> None:
    got: list[Result] = []
    there = threading.Event()

    def take(result: Result) -> None:
        got.append(result)
        there.set()

    with stream_of(pipeline, on_result=take) as stream:
        push(stream, "rgb", "depth")
        assert there.wait(PATIENCE_S)
    assert got[0].used == ("rgb", "depth")


def test_iteration_ends_when_another_thread_closes(pipeline: Pipeline) -> None:
    with stream_of(pipeline) as stream:
        threading.Timer(0.3, stream.close).start()
        for _ in stream:
            pass
        with pytest.raises(InputError, match="closed"):
            push(stream, "rgb")
    assert not any(t.name.startswith(("perception", "encode_")) for t in threading.enumerate())


def test_bad_input_never_kills(pipeline: Pipeline) -> None:
    with stream_of(pipeline) as stream:
        with pytest.raises(InputError, match=r"no sensor 'rbg' in this stream.*rgb, depth"):
            push(stream, "rbg")
        bad: list[tuple[Any, dict[str, Any]]] = [
            (np.zeros((3, 3, 3, 3)), {}),
            (np.zeros((48, 64, 3), np.uint8), {"encoding": "nonsense"}),
            (np.zeros((48, 64, 3), np.uint8), {"colour": "bgr8"}),
            (None, {}),
            ("a string", {}),
        ]
        for count, (data, hints) in enumerate(bad, 1):
            stream.push("rgb", data, **hints)
            # Each for itself: of two that wait, the newer one would be looked at alone.
            result = until(
                stream,
                lambda r, n=count: (
                    r.health["rgb"] == "malformed" and stream.counters["malformed_rgb"] == n
                ),
                "depth",
            )
            assert result.warnings[0].state == "malformed", data
            assert result.lines[0].startswith("rgb: ") and "\n" not in result.lines[0]
        assert stream.counters["malformed_rgb"] == len(bad)
        until(stream, lambda r: r.state == "full" and not r.warnings, "rgb", "depth")


def test_messages_and_samples_are_taken_too(pipeline: Pipeline) -> None:
    array, _ = picture("rgb")

    def message(sec: int) -> SimpleNamespace:
        header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=0), frame_id="cam")
        return SimpleNamespace(
            header=header,
            height=48,
            width=64,
            encoding="rgb8",
            data=array.tobytes(),
            step=192,
            is_bigendian=False,
        )

    with stream_of(pipeline, "rgb") as stream:
        stream.push("rgb", message(0))
        result = stream.get(PATIENCE_S)
        assert result is not None and result.samples["rgb"].frame_id == "cam"
        assert "no stamps in its messages" in result.lines[0]
        stream.push("rgb", perception.Sample("rgb", array[::-1].copy(), time.time_ns()))
        result = stream.get(PATIENCE_S)
        assert result is not None and result.used == ("rgb",) and not result.warnings


def test_a_pipeline_may_come_later(pipeline: Pipeline) -> None:
    settings = StreamSettings({"rgb": LONG}, 2 * S, 50 * MS)
    told = threading.Event()

    class Ears(Listener):
        def waiting(self) -> None:
            told.set()

        def wanted(self) -> frozenset[str] | None:
            return frozenset({"labels"})

    with Stream(settings, listener=Ears()) as stream:
        assert stream.report() == {}
        push(stream, "rgb")
        assert told.wait(PATIENCE_S)
        stream.use(pipeline)
        end = time.monotonic() + PATIENCE_S
        while not stream.report() and time.monotonic() < end:
            time.sleep(0.01)
        assert stream.report()["rgb"].rejected == stream.counters["early_rgb"] == 1


@pytest.mark.parametrize("graph", ["rgb", "fuser"])
def test_engines_that_fail_are_loaded_anew(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    events: list[EngineEvent] = []

    def fail(*_: object, **__: object) -> None:
        raise EngineError("device lost")

    engine = pipeline.engines[graph]
    with stream_of(pipeline) as stream:
        stream._recovery._tell = events.append
        until(stream, lambda r: r.state == "full", "rgb", "depth")
        monkeypatch.setattr(engine, "infer", fail)
        until(stream, lambda r: bool(events) and r.state == "full", "rgb", "depth")
    assert [e.kind for e in events][:2] == ["failed", "reloaded"]
    assert "device lost" in events[0].text and events[1].backend
    assert pipeline.engines[graph] is not engine
    assert stream.counters["engine_reloads"] >= 1
    assert stream.report()["rgb"].rejected >= (graph == "rgb")


def test_engines_that_cannot_be_loaded_rest_and_are_tried_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[EngineEvent] = []
    broken = threading.Event()
    broken.set()
    load = pipeline.use_device

    def use_device(*arguments: Any) -> None:
        if broken.is_set():
            raise EngineError("no memory")
        load(*arguments)

    def fail(*_: object, **__: object) -> None:
        raise EngineError("device lost")

    monkeypatch.setattr(recovery, "_REST_S", (0.2,))
    monkeypatch.setattr(pipeline, "use_device", use_device)
    monkeypatch.setattr(pipeline.engines["fuser"], "infer", fail)
    with stream_of(pipeline) as stream:
        stream._recovery._tell = events.append
        end = time.monotonic() + PATIENCE_S
        while not stream.engine_error and time.monotonic() < end:
            push(stream, "rgb", "depth")
            time.sleep(0.02)
        assert "no memory; next attempt in 0 s" in stream.engine_error
        broken.clear()
        until(stream, lambda r: r.state == "full", "rgb", "depth")
        assert not stream.engine_error
    assert {e.kind for e in events} == {"failed", "resting", "reloaded"}


def test_two_sensors_are_encoded_at_the_same_time(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each engine waits until the other runs, too: one after the other, neither would ever end."""
    barrier = threading.Barrier(2, timeout=PATIENCE_S)
    for sensor in ("rgb", "depth"):
        engine = pipeline.engines[sensor]

        def infer(feeds: Any, ignored: Any, inner: Any = engine.infer_linked) -> Any:
            barrier.wait()
            return inner(feeds, ignored)

        monkeypatch.setattr(engine, "infer_linked", infer)
    with stream_of(pipeline) as stream:
        push(stream, "rgb", "depth")
        result = stream.get(PATIENCE_S)
    assert result is not None and result.used == ("rgb", "depth")


def test_an_encoder_that_hangs_stops_nobody_else(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_lanes, "PATIENCE_S", 0.3)
    go_on = threading.Event()
    engine = pipeline.engines["rgb"]
    inner = engine.infer_linked

    def hang(feeds: Any, ignored: Any = ()) -> Any:
        go_on.wait(PATIENCE_S)
        return inner(feeds)

    with stream_of(pipeline) as stream:
        until(stream, lambda r: r.state == "full", "rgb", "depth")
        monkeypatch.setattr(engine, "infer_linked", hang)
        before = time.monotonic()
        result = until(
            stream, lambda r: r.health["rgb"] == "stalled" and bool(r.used), "rgb", "depth"
        )
        assert result.used == ("depth",) and result.state == "degraded"
        assert result.lines == ("rgb: its encoder has not answered for 0.3 s",)
        again = until(stream, lambda r: r.used == ("depth",), "rgb", "depth")
        assert again.health["rgb"] == "stalled"
        report = stream.report()["rgb"]
        assert report.health == "stalled" and report.rejected >= 1
        assert time.monotonic() - before < PATIENCE_S / 2
        go_on.set()
        monkeypatch.setattr(engine, "infer_linked", inner)
        until(stream, lambda r: r.state == "full" and not r.warnings, "rgb", "depth")


@pytest.mark.parametrize("step_ns", [0, -1, -500 * MS, -3600 * S, 3600 * S])
def test_arrays_survive_a_clock_that_is_set(pipeline: Pipeline, step_ns: int) -> None:
    class Set(Clock):
        now = 1_800_000_000 * S

        def reading(self) -> Moment:
            Set.now += 10 * MS
            return Moment(time.monotonic_ns(), Set.now)

    with stream_of(pipeline, "rgb", clock=Set()) as stream:
        for _ in range(4):
            result = until(stream, lambda r: bool(r.used), "rgb")
            assert result.used == ("rgb",)
            Set.now += step_ns
    assert not stream.report()["rgb"].rejected


@pytest.mark.parametrize("base", ["wall", "monotonic", "zero", "old", "ahead"])
def test_dead_sensors_are_noticed_whatever_their_clock(pipeline: Pipeline, base: str) -> None:
    starts = {
        "wall": time.time_ns(),
        "monotonic": time.monotonic_ns(),
        "zero": 0,
        "old": 1_500_000_000 * S,
        "ahead": time.time_ns() + 3600 * S,
    }
    began = time.monotonic_ns()
    timing = SensorTiming(timeout_ns=400 * MS)
    policy = Policy(max_age_ms=400, hold_ms=200)
    with stream_of(pipeline, "rgb", timing=timing, policy=policy) as stream:
        for _ in range(3):
            array, encoding = picture("rgb")
            stamp = starts[base] + time.monotonic_ns() - began
            stream.push("rgb", array, encoding=encoding, stamp_ns=stamp)
            time.sleep(0.1)
        first = until(stream, lambda r: bool(r.used))
        assert first.samples["rgb"].stamp_ns == pytest.approx(starts[base], abs=60 * S)
        result = until(stream, lambda r: r.state == "stop")
        assert result.used == () and result.health["rgb"] == "lost"


def test_settings_change_while_it_runs(pipeline: Pipeline) -> None:
    with stream_of(pipeline) as stream:
        until(stream, lambda r: r.state == "full", "rgb", "depth")
        quick = {m: SensorTiming(timeout_ns=200 * MS) for m in ("rgb", "depth")}
        policy = Policy(required=("depth",), hold_ms=0)
        stream.configure(StreamSettings(quick, 50 * MS, 100 * MS, policy=policy))
        result = until(stream, lambda r: r.health["depth"] == "lost", "rgb")
        assert result.state == "stop" and stream.settings.deadline_ns == 50 * MS
        assert pipeline.policy.required == ("depth",)


def test_open_takes_rates_and_warms_up(tiny_bundle: Path) -> None:
    sensors = {"rgb": 30, "depth": None, "lidar": LONG}
    with Stream.open(tiny_bundle, sensors, device="cpu", threads=1) as stream:
        assert stream.core is not None
        assert all(e.runs == 1 for e in stream.core.pipeline.engines.values())
        timings = stream.core.collector.sensors
        assert timings["rgb"].timeout_ns == 300 * MS and timings["lidar"] == LONG
        result = until(stream, lambda r: r.used == ("rgb", "depth"), "rgb", "depth")
        assert result.state == "degraded" and result.health["lidar"] == "lost"
    with Stream.open(tiny_bundle, device="cpu", threads=1) as stream:
        assert tuple(stream.settings.sensors) == ("rgb", "depth", "thermal", "lidar")


@pytest.mark.parametrize(
    ("sensors", "words"),
    [
        ({"rgb": 0}, "rgb: a rate of 0 Hz"),
        ({"rgb": -3.0}, "a rate of -3.0 Hz"),
        ({"rgb": float("nan")}, "a rate of nan Hz"),
        ({"rgb": True}, "a rate of True Hz"),
        ({"rgb": "30"}, "a rate of '30' Hz"),
        ({"sonar": 3}, "not sonar"),
    ],
)
def test_open_refuses_what_makes_no_sense(
    tiny_bundle: Path, sensors: dict[str, Any], words: str
) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError, match=words):
        Stream.open(tiny_bundle, sensors, device="cpu", threads=1)
    assert threading.active_count() == before


def test_sensors_may_be_called_otherwise_than_inputs(tiny_bundle: Path) -> None:
    names = {"head": "rgb", "belly": "depth"}
    with Stream.open(tiny_bundle, {"head": 30, "belly": 15}, inputs=names, device="cpu") as stream:
        end = time.monotonic() + PATIENCE_S
        result = None
        while time.monotonic() < end and (result is None or result.state != "full"):
            for sensor, kind in names.items():
                array, encoding = picture(kind)
                stream.push(sensor, array, encoding=encoding)
            result = stream.get(0.5)
    assert result is not None and result.used == ("head", "belly") and result.reference == "head"
    assert set(result.samples) == {"head", "belly"}


def test_what_is_wrong_with_a_message_is_told_by_the_sensors_name(tiny_bundle: Path) -> None:
    """Once, and not by its kind: a robot may have several of a kind."""
    header = SimpleNamespace(frame_id="", stamp=SimpleNamespace(sec=1, nanosec=0))
    bad = SimpleNamespace(header=header, encoding="sonar", data=b"", height=1, width=1, step=1)
    bad.is_bigendian = 0
    names = {"head": "rgb", "belly": "depth"}
    with Stream.open(tiny_bundle, {"head": 30, "belly": 15}, inputs=names, device="cpu") as stream:
        stream.push("head", bad)
        end = time.monotonic() + PATIENCE_S
        lines: list[str] = []
        while time.monotonic() < end and not lines:
            stream.push("belly", picture("depth")[0], encoding="16UC1")
            result = stream.get(0.5)
            lines = [] if result is None else [s for s in result.lines if "sonar" in s]
    assert lines and lines[0].startswith("head: ") and "rgb" not in lines[0].split(" (")[0]


def test_timeouts_follow_the_rates_that_are_observed() -> None:
    settings, rates = settings_for({"slow": 30, "fast": None, "fixed": LONG})
    for step in range(40):
        rates.note("slow", step * S // 2)
        rates.note("fast", step * S // 100)
        rates.note("fixed", step * S)
    adapted = rates.adapt(settings)
    assert adapted is not None
    timeouts = {m: t.timeout_ns for m, t in adapted.sensors.items()}
    assert timeouts == {"slow": 2500 * MS, "fast": 300 * MS, "fixed": LONG.timeout_ns}
    assert rates.adapt(adapted) is None, "nothing has changed since"
    rates.note("slow", 10**6 * S)
    assert rates.adapt(adapted) is None, "a silence says nothing about a rate"
    assert Rates(("a",)).adapt(settings) is None


def test_settings_from_rates() -> None:
    settings, _ = settings_for({"rgb": 30.0, "lidar": 2})
    assert settings.sensors["rgb"].window_ns == pytest.approx(0.5e9 / 30, abs=1)
    assert settings.sensors["lidar"].timeout_ns == 2500 * MS
    assert settings.policy is not None and settings.policy.max_age_ms == 1250.0
    own = Policy(max_age_ms=7)
    assert settings_for({"rgb": 30}, own)[0].policy is own
    with pytest.raises(ConfigError, match="needs a sensor"):
        settings_for({})


def test_a_backend_that_takes_over_is_an_event(
    loaded: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[EngineEvent] = []

    class Ears(Listener):
        def event(self, event: EngineEvent) -> None:
            events.append(event)

    pipeline = Pipeline.load(loaded.bundle.path, "auto", threads=1)
    engine = pipeline.engines["rgb"]
    if not getattr(engine, "_reserve", None):
        pytest.skip("one backend here: nothing in reserve")
    before = engine.backend

    def fail(*_: object, **__: object) -> None:
        raise EngineError("device lost")

    with Stream(StreamSettings({"rgb": LONG}, 2 * S), pipeline=pipeline, listener=Ears()) as stream:
        monkeypatch.setattr(engine._engine, "infer", fail)  # type: ignore[attr-defined]
        push(stream, "rgb")
        end = time.monotonic() + PATIENCE_S
        while not events and time.monotonic() < end:
            time.sleep(0.02)
    assert [e.kind for e in events] == ["fallback"] and "device lost" in events[0].text
    assert events[0].backend == engine.backend != before


def test_a_process_ends_though_an_encoder_hangs(tiny_bundle: Path) -> None:
    script = f"""
import threading, time
import numpy as np
import perception
from perception.runtime import encoding_lanes
encoding_lanes.PATIENCE_S = 0.2
stream = perception.Stream.open({str(tiny_bundle)!r}, {{"rgb": 30, "depth": 15}}, device="cpu")
stream.core.pipeline.engines["rgb"].infer_linked = lambda feeds, ignored: threading.Event().wait()
end = time.monotonic() + 60
while time.monotonic() < end:
    for sensor, array in (("rgb", np.random.randint(20, 220, (48, 64, 3), np.uint8)),
                          ("depth", np.random.randint(900, 9000, (48, 64), np.uint16))):
        stream.push(sensor, array)
    result = stream.get(0.1)
    if result is not None and result.health["rgb"] == "stalled" and result.used:
        break
stream.close()
print(result.health["rgb"], result.used)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.stdout.strip() == "stalled ('depth',)", done.stderr
    assert done.returncode == 0

"""A stream whose surroundings fail: listeners that raise, encoders that hang, floods, odd settings."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.errors import ConfigError, InputError
from perception.runtime import encoding_lanes
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore
from perception.runtime.lane import Lane
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import EngineEvent, Result
from perception.runtime.stream import Listener, Stream, StreamSettings
from perception.sensors.samples import sample_of

MS, S = 10**6, 10**9
LONG = SensorTiming(timeout_ns=20 * S, window_ns=60 * MS)
SETTINGS = StreamSettings(
    {"rgb": LONG, "depth": LONG}, 2 * S, 50 * MS, policy=Policy(max_age_ms=5000)
)
RANDOM = np.random.default_rng(0)


@pytest.fixture
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "cpu", threads=1)


def push(stream: Stream) -> None:
    stream.push("rgb", RANDOM.integers(20, 220, (48, 64, 3), np.uint8), encoding="bgr8")
    stream.push("depth", RANDOM.integers(900, 9000, (48, 64), np.uint16))


def wait(wanted: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "never came"
        time.sleep(0.01)


def accounted(stream: Stream) -> bool:
    return all(
        one.received == stream.counters[f"received_{sensor}"]
        and one.received == one.used + one.superseded + one.rejected + one.waiting
        for sensor, one in stream.report().items()
    )


class Raises(Listener):
    """Hears all, and raises in every method that `bad` names."""

    def __init__(self, *bad: str) -> None:
        self.bad, self.heard = set(bad), set[str]()
        self.used = 0

    def _hear(self, name: str) -> None:
        self.heard.add(name)
        if name in self.bad:
            raise RuntimeError(f"in {name}")

    def result(self, result: Result) -> None:
        self.used += bool(result.used)
        self._hear("result")

    def waiting(self) -> None:
        self._hear("waiting")

    def alive(self) -> None:
        self._hear("alive")

    def wanted(self) -> frozenset[str] | None:
        self._hear("wanted")
        return None

    def event(self, event: EngineEvent) -> None:
        self._hear(event.kind)

    def problem(self, error: Exception) -> None:
        self._hear("problem")


def has_used(listener: Raises, count: int) -> bool:
    return listener.used >= count


@pytest.mark.parametrize("bad", ["result", "alive", "wanted"])
def test_a_listener_that_raises_costs_no_message(pipeline: Pipeline, bad: str) -> None:
    listener = Raises(bad, "problem")
    with Stream(SETTINGS, pipeline=pipeline, listener=listener) as stream:
        for count in range(1, 4):
            push(stream)
            wait(partial(has_used, listener, count))
    assert accounted(stream), stream.report()
    assert bad in listener.heard


def test_engines_are_loaded_anew_though_a_listener_raises(pipeline: Pipeline) -> None:
    listener = Raises("failed", "reloaded", "problem")

    def fail(feeds: Any, *rest: Any) -> Any:
        raise RuntimeError("device lost")

    for engine in pipeline.engines.values():
        engine.infer = engine.infer_linked = fail  # type: ignore[method-assign]
        engine.fallback = None  # type: ignore[attr-defined]
    with Stream(SETTINGS, pipeline=pipeline, listener=listener) as stream:
        end = time.monotonic() + 60
        while not listener.used and time.monotonic() < end:
            push(stream)
            time.sleep(0.05)
    assert listener.used and {"failed", "reloaded"} <= listener.heard
    assert accounted(stream), stream.report()


def test_settings_that_cannot_be_taken_cost_no_message(pipeline: Pipeline) -> None:
    listener = Raises()
    with Stream(SETTINGS, pipeline=pipeline, listener=listener) as stream:
        for count in range(1, 4):
            stream.configure(StreamSettings({"lidar": LONG}))
            push(stream)
            wait(partial(has_used, listener, count))
    assert "problem" in listener.heard and accounted(stream), stream.report()


def test_a_pipeline_that_does_not_fit_leaves_the_one_that_runs(pipeline: Pipeline) -> None:
    listener = Raises()
    other = Pipeline.load(pipeline.bundle.path, "cpu", threads=1, sensors={"front": "rgb"})
    with Stream(SETTINGS, pipeline=pipeline, listener=listener) as stream:
        core = stream.core
        stream.use(other)
        wait(lambda: "problem" in listener.heard)
        began = time.monotonic()
        push(stream)
        wait(lambda: listener.used)
        assert time.monotonic() - began < 20 and stream.core is core
        assert {r.health for r in stream.report().values()} == {"ok"}


@pytest.mark.parametrize("how", ["close", "use"])
def test_an_encoder_that_hangs_keeps_nobody_from_going_on(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(encoding_lanes, "PATIENCE_S", 0.5)
    other = Pipeline.load(pipeline.bundle.path, "cpu", threads=1)
    go_on, there = threading.Event(), threading.Event()

    def hang(feeds: Any, ignored: Any = ()) -> Any:
        there.set()
        go_on.wait(60)
        raise RuntimeError("gone")

    monkeypatch.setattr(pipeline.engines["rgb"], "infer_linked", hang)
    listener = Raises()
    stream = Stream(SETTINGS, pipeline=pipeline, listener=listener)
    try:
        # Alone it waits for the other for two seconds: nobody has asked for its features yet.
        stream.push("rgb", RANDOM.integers(20, 220, (48, 64, 3), np.uint8))
        assert there.wait(60)
        ended = threading.Event()
        if how == "use":
            stream.use(other)
            wait(lambda: stream.core is not None and stream.core.pipeline is other, 20)
            push(stream)
            wait(lambda: listener.used, 20)

        def close() -> None:
            stream.close()
            ended.set()

        threading.Thread(target=close, daemon=True).start()
        assert ended.wait(20), "close hangs"
    finally:
        go_on.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_iteration_ends_where_the_streams_thread_does(
    pipeline: Pipeline, error: type[BaseException]
) -> None:
    class Ends(Listener):
        def wanted(self) -> frozenset[str] | None:
            raise error

    with Stream(SETTINGS, pipeline=pipeline, listener=Ends()) as stream:
        assert stream.get(30) is None and stream._inbox.closed
        with pytest.raises(InputError, match="closed"):
            push(stream)
    assert not [t for t in threading.enumerate() if t.name.startswith(("perception", "encode_"))]


def test_all_that_was_taken_in_is_accounted_for_at_the_end(pipeline: Pipeline) -> None:
    stream = Stream(SETTINGS, pipeline=pipeline, on_result=lambda result: time.sleep(0.05))

    def drive() -> None:
        with pytest.raises(InputError, match="closed"):
            while True:
                push(stream)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stream.close()
    for thread in threads:
        thread.join()
    assert accounted(stream), (stream.counters, stream.report())


def test_a_flood_of_pictures_makes_no_sensor_stall(pipeline: Pipeline) -> None:
    """Those that newer ones replaced are not encoded: their lane would be behind for seconds."""
    own = pipeline.encode
    calls: list[int] = []
    pushed = threading.Event()

    def encode(sample: Any, **how: Any) -> Any:
        calls.append(sample.stamp_ns)
        assert pushed.wait(60)  # slower than any flood
        return own(sample, **how)

    pipeline.encode = encode  # type: ignore[method-assign]
    timing = SensorTiming(window_ns=S, timeout_ns=20 * S)
    core = StreamCore(pipeline, StreamSettings({"rgb": timing, "depth": timing}), parallel=True)
    depth = RANDOM.integers(900, 9000, (48, 64), np.uint16)
    core.push(sample_of("depth", depth, stamp_ns=10 * S), 10 * S)
    for count in range(100):  # each nearer to the group's stamp than the one before
        picture = RANDOM.integers(20, 220, (48, 64, 3), np.uint8)
        stamp = 10 * S - (100 - count) * MS
        core.push(sample_of("rgb", picture, stamp_ns=stamp), 10 * S + count)
    pushed.set()
    results = core.poll(11 * S)
    core.close()
    # Depth, the first picture or one that overtook it, and the last.
    assert results and len(calls) <= 4, len(calls)
    report = core.report(11 * S)["rgb"]
    assert (
        report.received == 100 == report.used + report.superseded + report.rejected + report.waiting
    )


def test_what_is_cancelled_is_not_done() -> None:
    lane: Lane[int] = Lane("lane")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go_on.wait(30)
        return 1

    first = lane.submit(work)
    assert begun.wait(30)
    second, third = lane.submit(lambda: 1 // 0), lane.submit(lambda: 3)
    assert second.cancel()
    go_on.set()
    assert (first.result(30), third.result(30)) == (1, 3)
    lane.close()
    lane.join(30)


@pytest.mark.parametrize(
    "times", [{"heartbeat_ns": 0}, {"heartbeat_ns": -1}, {"deadline_ns": 0}, {"jump_ns": 0}]
)
def test_times_that_make_no_sense_are_refused(times: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(times))}.*positive"):
        StreamSettings(SETTINGS.sensors, **times)  # type: ignore[arg-type]


def test_waits_may_be_longer_than_the_system_can_count(pipeline: Pipeline) -> None:
    settings = StreamSettings(SETTINGS.sensors, heartbeat_ns=1 << 80, deadline_ns=1 << 80)
    with Stream(settings, pipeline=pipeline) as stream:
        push(stream)
        result = stream.get(1e15)
        assert result is not None and result.used == ("rgb", "depth")


def test_what_nobody_foresaw_in_one_sample_costs_the_others_nothing(pipeline: Pipeline) -> None:
    listener = Raises()
    found: list[Result] = []
    listener.result = found.append  # type: ignore[method-assign,assignment]
    with Stream(SETTINGS, pipeline=pipeline, listener=listener) as stream:
        picture = RANDOM.integers(20, 220, (48, 64, 3), np.uint8)
        stream.push("rgb", picture, camera=5)
        stream.push("depth", RANDOM.integers(900, 9000, (48, 64), np.uint16))
        wait(lambda: any(r.used for r in found))
    (result,) = [r for r in found if r.used]
    assert result.used == ("depth",) and result.health["rgb"] == "malformed"
    assert result.lines[0].startswith("rgb: AttributeError: ") and accounted(stream)


@pytest.mark.parametrize("hints", [{}, {"encoding": "bgr8"}])
@pytest.mark.parametrize("data", [[1, 2], (1, 2), (1, 2, 3), (), None, "x", b"x", 5])
def test_what_is_no_array_is_named(pipeline: Pipeline, data: Any, hints: dict[str, str]) -> None:
    with Stream(SETTINGS, pipeline=pipeline, listener=Raises()) as stream:
        stream.push("rgb", data, **hints)
        wait(lambda: stream.counters["malformed_rgb"])
    line = stream.report()["rgb"].line
    assert line == f"rgb: data is a {type(data).__name__}, expected a numpy array", line
    assert not stream.counters["errors"]


def test_a_process_that_closes_no_stream_ends_well(tiny_bundle: Path) -> None:
    """An encoder that comes back to a Python that is gone makes C++ abort the process."""
    script = f"""
import time
import cv2
import numpy as np
import perception
stream = perception.Stream.open({str(tiny_bundle)!r}, {{"rgb": None}}, device="cpu", threads=1)
engine = stream.core.pipeline.engines["rgb"]
inner, begun = engine.infer_linked, []
def slow(*given):
    begun.append(time.monotonic())
    while time.monotonic() < begun[-1] + 1:
        cv2.GaussianBlur(np.zeros((500, 500), np.float32), (0, 0), 9)
    return inner(*given)
engine.infer_linked = slow
stream.push("rgb", np.random.randint(20, 220, (48, 64, 3), np.uint8))
while not begun:
    time.sleep(0.01)
print("ends")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr

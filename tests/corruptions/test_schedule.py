"""Schedules, and what comes out when they are put on recordings and streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.corruptions import DELIVERY, Event, FaultInjector, FaultSchedule, corrupt, faults_of
from perception.data import open_recording
from perception.data.base import Recording
from perception.errors import AnySenseError, ConfigError
from perception.frame import Frame, Sample
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.pipeline import Pipeline
from perception.sensors.kind import SensorKind
from perception.sensors.registry import KINDS, kind_of

MS = 10**6
SENSORS = {"rgb": "rgb", "depth": "depth", "thermal": "thermal", "lidar": "lidar"}


@pytest.fixture(scope="module")
def recording(simulated: Path) -> Recording:
    return open_recording("folder", simulated)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(Path(__file__).parents[2] / "bundles" / "sim-rgbdtl", "cpu", threads=1)


def test_a_schedule_is_read(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(
        "events:\n"
        "  - {at: 1, for: 2, sensor: [rgb, depth], fault: rain, severity: 5}\n"
        "  - {at: 2, sensor: rgb, fault: delay, value: 0.25}\n"
        "  - {at: 2.5, sensor: rgb, fault: rain}\n"
        "loop: 10\nseed: 3\n"
    )
    schedule = FaultSchedule.read(path).check(SENSORS)
    assert schedule.seed == 3

    def active(sensor: str, time_s: float) -> list[tuple[str, int]]:
        return [(e.fault, e.severity) for e in schedule.active(sensor, time_s)]

    assert active("rgb", 0.99) == []
    assert active("depth", 1.0) == active("depth", 12.9) == [("rain", 5)]
    assert active("depth", 3.0) == []
    assert active("rgb", 2.2) == [("rain", 5), ("delay", 3)]
    assert active("rgb", 2.6) == [("delay", 3), ("rain", 3)]  # of one fault the last one
    delay = schedule.active("rgb", 22.0)[1]
    assert delay.delivery_amount == 0.25 and schedule.began_s(delay, 22.0) == 22.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "events: 3",
        "events: []\nsurprise: 1",
        "events: [3]",
        "events: [{at: 1, sensor: rgb}]",
        "events: [{at: -1, sensor: rgb, fault: drop}]",
        "events: [{at: .nan, sensor: rgb, fault: drop}]",
        "events: [{at: soon, sensor: rgb, fault: drop}]",
        "events: [{at: true, sensor: rgb, fault: drop}]",
        "events: [{at: 1, for: 0, sensor: rgb, fault: drop}]",
        "events: [{at: 1, for: -3, sensor: rgb, fault: drop}]",
        "events: [{at: 1, sensor: rgb, fault: melt}]",
        "events: [{at: 1, sensor: rgb, fault: beam_loss}]",
        "events: [{at: 1, sensor: sonar, fault: drop}]",
        "events: [{at: 1, sensor: rgb, fault: rain, severity: 9}]",
        "events: [{at: 1, sensor: rgb, fault: rain, severity: high}]",
        "events: [{at: 1, sensor: rgb, fault: rain, severity: [1]}]",
        "events: [{at: 1, sensor: rgb, fault: rain, value: 3.0}]",
        "events: [{at: 1, sensor: rgb, fault: drop, value: 3.0}]",
        "events: [{at: 1, sensor: rgb, fault: drop, value: 0.5, severity: 3}]",
        "events: [{at: 1, sensor: rgb, fault: drop, value: .inf}]",
        "events: []\nloop: never",
        "events: []\nloop: -1",
        "events: []\nloop: .inf",
        "events: []\nseed: -1",
        "events: []\nseed: 1.5",
        "{",
    ],
)
def test_wrong_schedules_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"faults\.yaml") as caught:
        FaultSchedule.read(path, lambda event: event.check(SENSORS))
    assert "\n" not in str(caught.value)


def test_faults_in_words() -> None:
    schedule = FaultSchedule.parse(["rgb:rain:5", "depth:lost"]).check(SENSORS)
    assert schedule.events == (Event("rgb", "rain", severity=5), Event("depth", "lost"))
    assert schedule.active("rgb", 1e6)[0].severity == 5
    for text in ("rgb", "rgb:rain:6", "rgb:rain:x", "rgb:rain:3:4", "", ":rain", "Rgb:rain"):
        with pytest.raises(AnySenseError) as caught:
            FaultSchedule.parse([text])
        assert "\n" not in str(caught.value)
    for text in ("rgb:beam_loss", "sonar:lost", "rgb:melt"):
        with pytest.raises(ConfigError, match="event 1"):
            FaultSchedule.parse([text]).check(SENSORS)


def _played(recording: Recording, *events: Event, seed: int = 0) -> list[Frame]:
    injector = FaultInjector(FaultSchedule(events, seed=seed).check(SENSORS))
    frames = [recording.frame(i) for i in range(10)]
    return [injector.frame(f, f.stamp_ns or 0) for f in frames]


def test_without_events_frames_are_as_they_were(recording: Recording) -> None:
    for index, frame in enumerate(_played(recording)):
        clean = recording.frame(index)
        assert set(frame) == set(clean) and frame.stamp_ns == clean.stamp_ns
        for name in frame:
            np.testing.assert_array_equal(frame[name].data, clean[name].data)
            assert frame[name].stamp_ns == clean[name].stamp_ns


@pytest.mark.parametrize("stamp_ns", [None, 0, 7])
def test_without_events_samples_come_at_once_and_are_not_copied(stamp_ns: int | None) -> None:
    injector = FaultInjector(FaultSchedule())
    sent = [Sample(kind, np.zeros((2, 3), np.float32), stamp_ns) for kind in ("depth", "thermal")]
    for now, sample in enumerate(sent):
        injector.push(sample, now)
        assert injector.next_ns() == now
        [(found, at)] = injector.poll(now)
        assert found is sample and at == now
        assert injector.next_ns() is None and not injector.poll(now + 1)


def test_frames_lose_freeze_and_wait(recording: Recording) -> None:
    out = _played(
        recording,
        Event("rgb", "lost", 0.3, 0.5),
        Event("depth", "frozen", 0.3, 0.5),
        Event("thermal", "delay", 0.3, 0.5, amount=0.15),
        Event("lidar", "dark", 0.3, 0.5),
    )
    clean = [recording.frame(i) for i in range(10)]
    assert [i for i, f in enumerate(out) if "rgb" not in f] == [3, 4]
    for i in (3, 4):
        np.testing.assert_array_equal(out[i]["depth"].data, clean[2]["depth"].data)
        assert out[i]["depth"].stamp_ns == clean[i]["depth"].stamp_ns
        assert len(out[i]["lidar"].data) == 0
    assert len(out[5]["lidar"].data) > 0
    # Delayed by one and a half frames: nothing for two frames, then the late one, overtaken by a new one.
    assert [i for i, f in enumerate(out) if "thermal" not in f] == [3, 4]
    assert out[5]["thermal"].stamp_ns in (
        clean[3]["thermal"].stamp_ns,
        clean[5]["thermal"].stamp_ns,
    )


def test_still_faults_hit_the_same_places_and_others_new_ones(recording: Recording) -> None:
    def changed(fault: str) -> list[Any]:
        out = _played(recording, Event("depth", fault), seed=5)
        return [np.isnan(f["depth"].data) & ~np.isnan(recording.frame(i)["depth"].data)
                for i, f in enumerate(out)]  # fmt: skip

    dead, fog = changed("dead_pixels"), changed("fog")
    known = ~np.isnan(recording.frame(0)["depth"].data) & ~np.isnan(
        recording.frame(1)["depth"].data
    )
    np.testing.assert_array_equal(dead[0][known], dead[1][known])
    assert (fog[0][known] != fog[1][known]).any()


events = st.builds(
    Event,
    st.just("depth"),
    st.sampled_from([*DELIVERY, *faults_of("depth")]),
    st.floats(0, 0.5),
    st.floats(0.6, 2),
    st.integers(1, 5),
)


@given(st.lists(events, max_size=4), st.integers(0, 99))
def test_any_schedule_is_the_same_each_time_and_never_raises(
    chosen: list[Event], seed: int
) -> None:
    data = np.random.default_rng(0).uniform(1, 5, (6, 8)).astype(np.float32)
    schedule = FaultSchedule(tuple(chosen), seed=seed).check(SENSORS)

    def played() -> list[tuple[Any, int]]:
        injector, out = FaultInjector(schedule), []
        for n in range(12):
            injector.push(Sample("depth", data, stamp_ns=n * 100 * MS), n * 100 * MS)
            out += injector.poll(n * 100 * MS)
        while (due := injector.next_ns()) is not None:
            out += injector.poll(due)
        return [((s.data.tobytes(), s.stamp_ns), at) for s, at in out]

    assert played() == played()


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (Event("rgb", "clock_jump", 0.5, amount=3600.0), "skewed"),
        (Event("rgb", "lost", 0.5), "lost"),
        (Event("rgb", "frozen", 0.5), "frozen"),
        (Event("rgb", "dark", 0.5), "dark"),
        (Event("rgb", "saturated", 0.5), "saturated"),
        (Event("rgb", "delay", 0.5, amount=0.5), "late"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.fault,
)
def test_a_stream_finds_out(
    recording: Recording, pipeline: Pipeline, event: Event, state: str
) -> None:
    pipeline.reset()
    timing = SensorTiming(timeout_ns=1000 * MS)
    settings = StreamSettings({"rgb": timing, "depth": timing}, 50 * MS)
    stream = StreamCore(pipeline, settings)
    injector = FaultInjector(FaultSchedule((event,)).check(SENSORS))
    frame, found = recording.frame(0), set()
    noise = np.random.default_rng(0)
    for now in range(10**9, 10**9 + 2500 * MS, 20 * MS):
        if now % (100 * MS) == 0:
            for name in ("rgb", "depth"):
                sample = replace(frame[name], stamp_ns=now)
                if name == "rgb":  # a live picture is never twice the same
                    data = frame[name].data ^ noise.integers(0, 2, frame[name].data.shape, np.uint8)
                    sample = replace(sample, data=data)
                injector.push(sample, now)
        for sample, _ in injector.poll(now):
            stream.push(sample, now, now)
        for result in stream.poll(now):
            found.add(result.health.get("rgb"))
            assert result.health.get("depth", "ok") in ("ok", "frozen")
    assert state in found, found
    assert "ok" in found


def test_a_kind_from_elsewhere_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(fault: str, value: Any, layer: str, severity: int, rng: np.random.Generator) -> Any:
        assert (fault, layer) == ("clutter", "sample")
        return replace(value, data=value.data + np.float32(severity) * rng.random())

    depth = kind_of("depth")
    radar: SensorKind = replace(depth, name="radar", apply=apply, faults=("clutter",))
    monkeypatch.setitem(KINDS.own, "radar", radar)
    assert faults_of("radar")[0] == "clutter"
    sample = Sample("radar", np.zeros((2, 2), np.float32))
    assert corrupt(sample, "clutter", 2, seed=1).data[0, 0] == pytest.approx(
        2 * corrupt(sample, "clutter", 1, seed=1).data[0, 0]
    )
    injector = FaultInjector(FaultSchedule.parse(["radar:clutter:4"]).check({"radar": "radar"}))
    injector.push(sample, 0)
    assert injector.poll(0)[0][0].data.any()

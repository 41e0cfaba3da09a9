"""Harnesses of what puts samples together: an input is a list of what happens, three bytes each."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from small_bundles import GRID, SmallBundles

from perception.errors import EngineError
from perception.frame import Sample
from perception.runtime.collector import Arrival, Collector, Group, SensorTiming
from perception.runtime.core import StreamCore
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.runtime.settings import StreamSettings

MS = 1_000_000
_MOST = 300  # things that happen in one input
_SENSORS = ("rgb", "depth", "thermal", "elsewhere")
# Milliseconds by which a stamp differs from the time of arrival, and that pass.
_STEPS = (0, 1, -1, 5, -5, 20, -20, 33, -33, 80, 81, -80, 500, -2000, 3600_000, -(10**12))
_PAUSES = (0, 0, 1, 1, 5, 10, 33, 34, 80, 100, 200, 501, 1000, 5000, 60_000, 10**9)


def _events(data: bytes) -> list[tuple[int, int, int]]:
    whole = len(data) - len(data) % 3
    return [(data[i], data[i + 1], data[i + 2]) for i in range(0, min(whole, 3 * _MOST), 3)]


class _Books:
    """Where every sample that was accepted has gone."""

    def __init__(self) -> None:
        self.held: dict[int, Arrival] = {}
        self.superseded = 0
        self.left: dict[int, int] = {}  # stamp of the last group, by epoch

    def drop(self, arrival: Arrival) -> None:
        assert self.held.pop(id(arrival.payload), None) is not None, "let go twice"
        self.superseded += 1

    def leave(self, groups: list[Group]) -> None:
        for group in groups:
            last = self.left.get(group.epoch)
            assert last is None or group.stamp_ns > last, "groups out of order"
            self.left[group.epoch] = group.stamp_ns
            assert group.samples and not set(group.samples) & set(group.missing)
            assert 0 < group.coverage <= 1 and group.waited_ns >= 0
            for arrival in group.samples.values():
                assert self.held.pop(id(arrival.payload), None) is not None, "in two groups"

    def check(self, collector: Collector) -> None:
        counts = collector.counters
        rejected = sum(n for name, n in counts.items() if name.startswith("rejected_"))
        gone = counts["used"] + counts["superseded"] + rejected
        assert counts["received"] == gone + collector.pending, dict(counts)
        assert len(self.held) == collector.pending and self.superseded == counts["superseded"]


def collector(data: bytes, place: Path) -> str:
    """At any time received = used + superseded + rejected + waiting, and each sample has one fate."""
    if len(data) < 2:
        return "nothing"
    books = _Books()
    window, wait = (0, 5 * MS, 25 * MS, 200 * MS)[data[0] % 4], (1, 20 * MS, 80 * MS)[data[1] % 3]
    sensors = {m: SensorTiming(window_ns=window, timeout_ns=300 * MS) for m in _SENSORS[:3]}
    skew = None if data[0] & 4 else 10**9
    held = Collector(sensors, wait, max_skew_ns=skew, superseded=books.drop)
    now, arrivals = 0, []
    for what, who, when in _events(data[2:]):
        now += _PAUSES[when >> 4] * MS
        if what < 180:
            stamp = now + _STEPS[when & 15] * MS + (who >> 4)
            payload = object()
            arrival = Arrival(_SENSORS[who & 3], stamp, stamp, now, payload)
            arrivals.append(payload)  # so that no identity comes twice
            books.held[id(payload)] = arrival
            clock = now + 10**15 if what & 1 else None
            if held.push(arrival, clock, dated=what % 7 == 0) != "accepted":
                del books.held[id(payload)]
        elif what < 230:
            books.leave(held.poll(now))
        elif what < 240:
            books.leave(held.flush(now))
            assert held.pending == 0
        elif what < 245:
            held.hear(_SENSORS[who & 3], now)
        elif what < 250:
            held.retime(sensors, (1, 20 * MS, 80 * MS)[who % 3])
        else:
            held.reset()
            books.left.clear()
        books.check(held)
    books.leave(held.flush(now))
    books.check(held)
    assert not books.held
    return "groups" if books.left else "no group"


@lru_cache(maxsize=1)
def _pipeline() -> Pipeline:
    folder = Path(tempfile.mkdtemp(prefix="anysense-fuzz-"))
    inputs = {m: (m, m) for m in _SENSORS[:3]}
    return Pipeline.load(SmallBundles(folder).named(inputs, 3, 2), "cpu", threads=1)


def _sample(sensor: str, content: int, stamp: int | None) -> Sample:
    """Good ones of several contents, and some that no sensor should send."""
    rng = np.random.default_rng(content)
    shape = GRID if content % 4 else (8, 8)
    kind = sensor if sensor in _SENSORS[:3] else "rgb"
    values: np.ndarray
    if kind == "rgb":
        values = rng.integers(20, 220, (*shape, 3), dtype=np.uint8)
    else:
        values = rng.uniform(1, 9, shape).astype(np.float32)
    strange = content >> 4
    if strange == 15:
        values = np.zeros_like(values)
    elif strange == 14:
        values = np.zeros((0, *values.shape[1:]), values.dtype)
    elif strange == 13:
        values = values.astype(np.float64)
    elif strange == 12:
        values = values[..., 0]
    elif strange == 11 and kind != "rgb":
        values[:] = np.nan
    unit = "counts8" if kind == "thermal" else ""
    return Sample(kind, values, stamp, unit=unit, sensor=sensor)


def stream(data: bytes, place: Path) -> str:
    """No sample unaccounted for, stamps of outputs rise, and every output is one of the pipeline's."""
    pipeline = _pipeline()
    pipeline.reset()
    pipeline.counters.clear()
    sensors = {m: SensorTiming(timeout_ns=300 * MS) for m in _SENSORS[:3]}
    core = StreamCore(pipeline, StreamSettings(sensors, 80 * MS, heartbeat_ns=100 * MS))
    now, found, told = 0, 0, 0
    for what, who, when in _events(data):
        now += min(_PAUSES[when >> 4], 5000) * MS
        sensor = _SENSORS[who & 3]
        if what < 150:
            stamp = None if what % 11 == 0 else now + _STEPS[when & 15] * MS
            clock = now + 10**15 if what & 1 else None
            if sensor in sensors:
                told += 1
                core.push(_sample(sensor, who, stamp), now, clock)
        elif what < 220:
            found += _outputs(core, now)
        elif what < 235 and sensor in sensors:
            told += 1
            core.reject(sensor, "no message", now)
        elif what < 245 and sensor in sensors:
            told += 1 + who % 3
            core.skip(sensor, 1 + who % 3)
        elif sensor in sensors:
            core.hear(sensor, now)
        _accounted(core, told, now)
    for _ in range(3):
        now += 1000 * MS
        found += _outputs(core, now)
    _accounted(core, told, now)
    core.close()
    return "outputs" if found else "heartbeats"


def _outputs(core: StreamCore, now: int) -> int:
    try:
        results = core.poll(now)
    except EngineError as error:
        raise AssertionError(f"a sound backend failed: {error}") from error
    for result in results:
        _sound(result)
    return sum(bool(r.used) for r in results)


def _sound(result: Result) -> None:
    assert result.state in ("full", "degraded", "hold", "stop")
    assert set(result.fresh) <= set(result.used) <= set(_SENSORS[:3])
    if result.state in ("full", "degraded"):
        assert result.used and result.labels is not None and result.confidence is not None
        assert np.isfinite(result.confidence).all() and int(result.labels.max(initial=0)) < 3


def _accounted(core: StreamCore, told: int, now: int) -> None:
    reports = core.report(now).values()
    for r in reports:
        assert r.received == r.used + r.superseded + r.rejected + r.waiting, r
        assert min(r.used, r.superseded, r.rejected, r.waiting) >= 0, r
    assert sum(r.received for r in reports) == told

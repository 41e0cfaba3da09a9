"""The report's charts: keys, seconds, and texts that do not run into each other."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest

from perception.demo.charts import latency_chart, timeline_chart
from perception.demo.scenario import make_scenario

SENSORS = ("rgb", "depth", "thermal", "lidar")


def _record(frames: int, *, rate_hz: float = 10.0, stamps: list[int] | None = None) -> Any:
    phases = [SimpleNamespace(phase=phase) for phase in make_scenario(SENSORS, frames)]
    rows = [
        {"used": "+".join(SENSORS), "present": "+".join(SENSORS), "state": "full"}
        for _ in range(frames)
    ]
    times = stamps or [round(i * 1e9 / rate_hz) for i in range(frames)]
    info = SimpleNamespace(rate_hz=rate_hz)
    recording = SimpleNamespace(stamp_ns=times.__getitem__, info=info)
    timed = {"rgb": (9.0, 10.0), "rgb+depth": (15.0, 18.0), "+".join(SENSORS): (30.0, 33.0)}
    found = {"rows": rows, "phases": phases, "sensors": SENSORS, "recording": recording}
    return SimpleNamespace(**found, timed=timed)


@pytest.mark.parametrize("frames", [10, 45, 90, 3000])
def test_the_timeline_has_seconds_and_no_label_runs_into_the_next(frames: int) -> None:
    chart = timeline_chart(_record(frames))
    seconds = [float(s) for s in re.findall(r">([\d.]+) s</text>", chart)]
    assert 2 <= len(seconds) <= 11 and seconds == sorted(set(seconds))
    assert seconds[0] == 0 and seconds[-1] <= (frames - 1) / 10
    labels = re.findall(r"<tspan x='([\d.]+)' dy='0'>([^<]*)<", chart)
    for (x, text), (after, _) in itertools.pairwise(labels):
        assert float(x) + 6.4 * len(text) <= float(after) + 6.4


def test_stamps_that_do_not_rise_are_not_shown_as_times() -> None:
    chart = timeline_chart(_record(20, rate_hz=2.0, stamps=[5] * 20))
    assert ">9 s</text>" in chart


def test_latency_has_a_key_and_every_set_of_sensors() -> None:
    chart = latency_chart(_record(10))
    assert ">inference</text>" in chart and ">everything else</text>" in chart
    assert ">RGB + Depth + Thermal + LiDAR</text>" in chart and "33.0 ms (30.0 inference)" in chart
    bars = [float(x) for x in re.findall(r"class='rest' x='([\d.]+)' y='\d+' width", chart)]
    name = max(re.findall(r"class='axis' x='0' y='\d+'>([^<]*)<", chart), key=len)
    assert min(bars) > 7 * len(name)  # names end before the bars begin
    nothing = _record(10)
    nothing.timed = {}
    assert "No frame was answered" in latency_chart(nothing)

"""Stamps against their arrival: whose clock is off, and the stamps of what is given."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perception.frame import KINDS
from perception.runtime.clocks import OutputStamps, SensorClocks, seconds

MS = 1_000_000
NOW = 1_700_000_000_000 * MS
HOUR = 3_600_000 * MS


def _run(
    clocks: SensorClocks,
    leads: dict[str, int],
    count: int = 10,
    start: int = NOW,
    period: int = 100 * MS,
) -> dict[str, list[bool]]:
    """Whether each of the sensors' stamps was believed; leads are stamp less arrival."""
    found: dict[str, list[bool]] = {m: [] for m in leads}
    for index in range(count):
        for place, (sensor, lead) in enumerate(leads.items()):
            clock = start + index * period + place * MS
            found[sensor].append(clocks.fits(sensor, clock + lead, clock, leads))
    return found


@pytest.mark.parametrize("ahead", [80 * MS, 400 * MS, 900 * MS, HOUR, 24 * HOUR])
@pytest.mark.parametrize("order", [("rgb", "depth"), ("depth", "rgb")])
def test_a_clock_that_is_ahead_is_left_out_and_named(ahead: int, order: tuple[str, str]) -> None:
    clocks = SensorClocks()
    leads: dict[str, int] = {order[0]: -12 * MS, order[1]: -12 * MS}
    leads["depth"] = ahead - 12 * MS
    found = _run(clocks, leads)
    assert all(found["rgb"])
    assert not any(found["depth"])
    assert clocks.out == {"depth"}
    line = clocks.line("depth")
    assert line.startswith("depth: stamps are ") and "ahead of this computer's clock" in line
    assert clocks.line("rgb") == ""
    assert clocks.offset_ns("depth") == ahead - 12 * MS


def test_the_offset_is_said_in_round_numbers() -> None:
    clocks = SensorClocks()
    _run(clocks, {"rgb": -5 * MS, "depth": 388 * MS})
    assert "400 ms ahead" in clocks.line("depth")


def test_of_a_sensor_that_never_spoke_nothing_is_known() -> None:
    clocks = SensorClocks()
    assert clocks.line("rgb") == "" and clocks.offset_ns("rgb") is None
    clocks.skip("rgb")  # it speaks, without stamps
    assert clocks.line("rgb") == "" and clocks.offset_ns("rgb") is None


@pytest.mark.parametrize("lead", [50 * MS, -1000 * MS])
def test_the_limits_are_those_of_the_docs(lead: int) -> None:
    """50 ms ahead, as `sync.max_lead_ms` says, and a second behind are taken; more is not."""
    beyond = lead + 1 if lead > 0 else lead - 1
    for taken, offset in ((True, lead), (False, beyond)):
        clocks = SensorClocks()
        found = _run(clocks, {"rgb": 0, "depth": offset})
        assert all(found["rgb"]) and set(found["depth"]) == {taken}
        assert clocks.out == (set() if taken else {"depth"})
        assert bool(clocks.line("depth")) is not taken


@given(lead=st.integers(-1000 * MS, 50 * MS))
@settings(deadline=None)
def test_of_a_clock_within_the_limits_there_is_nothing_to_say(lead: int) -> None:
    clocks = SensorClocks()
    found = _run(clocks, {"rgb": lead, "lidar": lead})
    assert all(found["rgb"]) and all(found["lidar"]) and not clocks.out
    assert clocks.line("rgb") == clocks.line("lidar") == ""


def test_a_clock_since_boot_is_recognized() -> None:
    clocks = SensorClocks()
    for index in range(5):
        clock = NOW + index * 100 * MS
        assert clocks.fits("rgb", clock - 10 * MS, clock, ("rgb", "lidar"))
        assert not clocks.fits("lidar", 1000_000 * MS + index * 100 * MS, clock, ("rgb", "lidar"))
    assert clocks.line("lidar") == (
        "lidar: stamps count from a start 1000 s ago, not from 1970; left out"
    )
    alone = SensorClocks()
    assert alone.fits("lidar", 1000_000 * MS, NOW, ("lidar",))
    assert "count from a start" in alone.line("lidar") and "left out" not in alone.line("lidar")


def test_stamps_of_a_simulation_need_a_simulated_clock_and_the_reverse() -> None:
    clocks = SensorClocks()
    for index in range(5):
        clock = 12_000 * MS + index * 100 * MS
        assert clocks.fits("rgb", clock, clock, ("rgb", "depth"))
        assert not clocks.fits("depth", NOW, clock, ("rgb", "depth"))
    assert "this node's clock is simulated" in clocks.line("depth")


def test_late_is_not_skewed() -> None:
    """What takes half a second to deliver has no wrong clock."""
    clocks = SensorClocks()
    found = _run(clocks, {"rgb": -5 * MS, "depth": -600 * MS})
    assert all(found["rgb"]) and all(found["depth"])
    assert clocks.line("depth") == ""


@pytest.mark.parametrize("shift", [HOUR, -HOUR, -1_600_000_000_000 * MS])
def test_where_no_clock_is_the_receivers_those_that_agree_go_on(shift: int) -> None:
    clocks = SensorClocks()
    found = _run(clocks, {"rgb": shift, "depth": shift - 20 * MS, "lidar": shift + 9000 * MS})
    assert all(found["rgb"][1:]) and all(found["depth"][1:])
    assert not any(found["lidar"][3:])
    assert "9.0 s ahead of those of rgb and depth" in clocks.line("lidar")
    assert abs(clocks.base_ns - shift) <= 20 * MS


def test_the_only_sensor_that_is_left_is_believed_and_named() -> None:
    clocks = SensorClocks()
    leads: dict[str, int] = {"rgb": -5 * MS, "depth": HOUR}
    assert not any(_run(clocks, leads)["depth"])
    assert all(_run(clocks, {"depth": HOUR}, start=NOW + 10**10)["depth"])
    assert clocks.line("depth") == "depth: stamps are 3600 s ahead of this computer's clock"
    assert not any(_run(clocks, leads, start=NOW + 10**11)["depth"][1:])


def test_a_single_stray_stamp_is_rejected_and_no_fault() -> None:
    clocks = SensorClocks()
    _run(clocks, {"rgb": -5 * MS})
    assert not clocks.fits("rgb", NOW + HOUR, NOW + 10**9, ("rgb",))
    assert clocks.fits("rgb", NOW + 10**9, NOW + 10**9 + 5 * MS, ("rgb",))
    assert not clocks.out


def test_a_clock_that_is_set_right_comes_back() -> None:
    clocks = SensorClocks()
    _run(clocks, {"rgb": -5 * MS, "depth": 400 * MS})
    found = _run(clocks, {"rgb": -5 * MS, "depth": -5 * MS}, start=NOW + 10**10)
    assert all(found["depth"])
    assert not clocks.out and clocks.line("depth") == ""


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_when_the_receivers_clock_is_set_all_go_on(step: int) -> None:
    clocks = SensorClocks()
    _run(clocks, {"rgb": -5 * MS, "depth": -5 * MS})
    found = _run(clocks, {"rgb": step, "depth": step}, start=NOW + 10**10)
    assert all(found["rgb"][3:]) and all(found["depth"][3:])


@pytest.mark.parametrize("rate", [0.1, 1, 10, 100])
def test_a_recording_played_at_any_rate(rate: float) -> None:
    """On the receiver's clock its stamps drift by as much as you like."""
    clocks = SensorClocks()
    rejected = []
    for index in range(300):
        sensor: str = "lidar" if index % 4 == 3 else "rgb"
        clock = NOW + index * 25 * MS
        stamp = 5 * 10**17 + round(index * 25 * MS * rate)
        if not clocks.fits(sensor, stamp, clock, ("rgb", "lidar")):
            rejected.append(index)
    assert not [i for i in rejected if i > 8]


def test_a_recording_that_loops() -> None:
    clocks = SensorClocks()
    rejected = []
    for index in range(300):
        sensor: str = "lidar" if index % 7 == 3 else "rgb"
        clock = NOW + index * 25 * MS
        stamp = 5 * 10**17 + (index % 100) * 25 * MS
        if not clocks.fits(sensor, stamp, clock, ("rgb", "lidar")):
            rejected.append(index)
    assert len([i for i in rejected if i > 10]) <= 6  # a few at each of two turns


def test_a_slow_sensor_is_remembered_where_all_clocks_are_ahead() -> None:
    clocks = SensorClocks()
    believed = []
    for index in range(60):
        sensor: str = "rgb" if index % 10 else "lidar"
        clock = NOW + index * 25 * MS
        believed.append(clocks.fits(sensor, clock + HOUR, clock, ("rgb", "lidar")))
    assert believed == [False] + [True] * 59, "until both have spoken"
    assert clocks.base_ns == HOUR and not clocks.out


def test_what_is_within_the_limit_needs_no_second_sensor() -> None:
    """Of a sensor whose stamps lie about the limit, before another has spoken."""
    clocks = SensorClocks()
    for index, lead in enumerate((60, 50)):
        clock = NOW + index * 100 * MS
        fits = clocks.fits("rgb", clock + lead * MS, clock, ("rgb", "depth"))
        assert fits is (lead == 50)


@given(
    names=st.permutations(KINDS),
    count=st.integers(2, 4),
    jump=st.integers(HOUR // 60, 10 * HOUR),
    back=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_recording_that_is_wound_costs_each_sensor_one_sample(
    names: list[str], count: int, jump: int, back: bool
) -> None:
    clocks = SensorClocks()
    leads: dict[str, int] = dict.fromkeys(names[:count], -100 * HOUR)
    before = _run(clocks, leads)
    assert all(all(found) for found in before.values())
    moved = {m: lead - jump if back else lead + jump for m, lead in leads.items()}
    after = _run(clocks, moved, count=6, start=NOW + 1000 * MS)
    assert all(all(found[1:]) for found in after.values())
    assert not clocks.out


def test_max_skew_holds_for_all() -> None:
    clocks = SensorClocks(max_skew_ns=500 * MS)
    assert not any(_run(clocks, {"rgb": -600 * MS, "depth": -700 * MS})["rgb"])
    clocks = SensorClocks(max_skew_ns=500 * MS)
    assert all(_run(clocks, {"rgb": -400 * MS})["rgb"])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_right_clocks_are_never_left_out_and_wrong_ones_never_in(data: st.DataObject) -> None:
    """Whatever else is going on, with one sound sensor that keeps speaking."""
    number = st.integers(0, 10**6)
    latency = {m: data.draw(st.integers(0, 300), f"latency of {m}") for m in KINDS}
    wrong = st.one_of(st.integers(700, 10**7), st.integers(-(10**9), -3000))
    clock_off = {m: data.draw(st.one_of(st.just(0), wrong), f"error of {m}") for m in KINDS}
    clock_off[data.draw(st.sampled_from(KINDS), "sound")] = 0
    period = {m: data.draw(st.sampled_from([33, 100, 200]), f"period of {m}") for m in KINDS}
    clocks = SensorClocks()
    events = sorted(
        (round(k * period[m] + data.draw(number, "jitter") % 20), m)
        for m in KINDS
        for k in range(2000 // period[m])
    )
    for at, sensor in events:
        clock = NOW + at * MS
        stamp = clock + (clock_off[sensor] - latency[sensor]) * MS
        believed = clocks.fits(sensor, stamp, clock, KINDS)
        if clock_off[sensor] == 0:
            assert believed, (at, sensor)
        elif at > 300:
            assert not believed, (at, sensor)
            assert clocks.line(sensor)


def test_stamps_of_what_is_given() -> None:
    stamps = OutputStamps()
    stamps.ahead_ns = NOW
    first = stamps.present_ns(5 * MS, 0)
    assert abs(first - NOW - 5 * MS) <= 1
    assert stamps.present_ns(5 * MS, 0) > first
    stamps.note(NOW + 90 * MS, 100 * MS)
    assert stamps.last_ns == NOW + 90 * MS
    held = [stamps.present_ns(now * MS, 0) for now in range(300, 2000, 200)]
    assert held[0] == pytest.approx(NOW + 290 * MS, abs=2)
    assert set(held).isdisjoint({NOW + 90 * MS}) and held == sorted(set(held))
    assert stamps.anew().last_ns is None
    assert abs(stamps.anew().present_ns(7 * MS, 0) - NOW - 7 * MS) <= 1


@given(ns=st.integers(0, 99 * 1000 * MS))
@example(10_400 * MS)
@settings(deadline=None)
def test_a_time_is_said_in_two_digits(ns: int) -> None:
    number, unit = seconds(ns).split()
    said = float(number) * {"s": 1000 * MS, "ms": MS}[unit]
    assert abs(said - ns) <= max(50 * MS, ns / 20)
    assert len(number.replace(".", "").strip("0")) <= 2

"""Grouping by stamp: worked examples, faults of clocks and sensors, and random streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import ConfigError, InputError
from perception.frame import KINDS, Sample
from perception.runtime.collector import Arrival, Collector, Group, SensorTiming

MS = 1_000_000
_DATA = np.zeros((1, 1), np.float32)


def _sample(sensor: str, stamp_ms: float) -> Sample:
    return Sample(sensor, _DATA, round(stamp_ms * MS))


def _push(collector: Collector, sample: Sample, now_ns: int, clock_ns: int | None = None) -> str:
    return collector.push(Arrival.of(sample, now_ns), clock_ns)


def _collector(*sensors: str, deadline_ms: float = 80, **timing: int) -> Collector:
    sensors = {m: SensorTiming(**{"window_ns": 20 * MS, **timing}) for m in sensors}
    return Collector(sensors, round(deadline_ms * MS))


def _stamps(group: Group) -> dict[str, float]:
    return {m: s.stamp_ns / MS for m, s in group.samples.items()}


def _accounted(collector: Collector) -> bool:
    count = collector.counters
    rejected = sum(v for k, v in count.items() if k.startswith("rejected_"))
    return count["received"] == (count["used"] + count["superseded"] + rejected + collector.pending)


def test_the_worked_example_of_the_module() -> None:
    collector = _collector("rgb", "lidar")
    _push(collector, _sample("rgb", 0), 5 * MS)
    _push(collector, _sample("rgb", 33), 38 * MS)
    assert collector.poll(61 * MS) == []
    _push(collector, _sample("lidar", 2), 62 * MS)
    (first,) = collector.poll(62 * MS)
    assert (_stamps(first), first.reason) == ({"rgb": 0, "lidar": 2}, "complete")
    assert (first.spread_ns, first.waited_ns, first.missing) == (2 * MS, 57 * MS, ())
    _push(collector, _sample("rgb", 66), 71 * MS)
    assert collector.next_deadline_ns() == 118 * MS
    assert collector.poll(117 * MS) == []
    (second,) = collector.poll(118 * MS)
    assert (_stamps(second), second.reason, second.missing) == ({"rgb": 33}, "deadline", ("lidar",))
    assert collector.pending == 1


def test_any_sensor_may_anchor() -> None:
    for first, second in (("rgb", "thermal"), ("thermal", "rgb")):
        collector = _collector("rgb", "thermal")
        _push(collector, _sample(first, 100), 100 * MS)
        _push(collector, _sample(second, 110), 111 * MS)
        (group,) = collector.poll(111 * MS)
        assert group.reason == "complete"
        assert group.stamp_ns == 100 * MS
        assert list(group.frame()) == ["rgb", "thermal"]


def test_a_group_does_not_wait_for_a_sensor_that_has_passed_it() -> None:
    collector = _collector("rgb", "depth")
    _push(collector, _sample("rgb", 0), 0)
    _push(collector, _sample("depth", 50), 51 * MS)
    (group,) = collector.poll(51 * MS)
    assert (_stamps(group), group.reason) == ({"rgb": 0}, "complete")


def test_no_group_waits_for_a_slow_sensor_between_its_samples() -> None:
    collector = _collector("rgb", "lidar", window_ns=15 * MS)
    left: dict[int, int] = {}
    for now in range(700):
        if now % 33 == 5:
            _push(collector, _sample("rgb", now - 5), now * MS)
        if now % 99 == 60:
            _push(collector, _sample("lidar", now - 60), now * MS)
        left |= {g.stamp_ns // MS: g.waited_ns // MS for g in collector.poll(now * MS)}
    # Camera 297 and those 99 ms apart have a cloud to wait for, which takes 60 ms to deliver; the
    # next one arrives meanwhile and follows it; the one after that leaves at once.
    assert {s: w for s, w in left.items() if 297 <= s < 594} == {
        s: (55, 22, 0)[s // 33 % 3] for s in range(297, 594, 33)
    }


def test_missing_samples_do_not_make_a_sensor_slow() -> None:
    collector = _collector("rgb", "depth")
    for stamp in (0, 33, 66, 330, 363, 660):
        for sensor in ("rgb", "depth"):
            _push(collector, _sample(sensor, stamp), stamp * MS)
        collector.poll(stamp * MS)
    _push(collector, _sample("rgb", 693), 693 * MS)
    assert collector.poll(700 * MS) == []


def test_a_lost_sensor_is_not_waited_for() -> None:
    collector = _collector("rgb", "depth", timeout_ns=200 * MS)
    for stamp in range(0, 300, 30):
        _push(collector, _sample("rgb", stamp), stamp * MS)
        groups = collector.poll(stamp * MS)
        # Not heard at all, it counts as alive for its timeout from the first sample on.
        assert bool(groups and groups[-1].reason == "complete") == (stamp > 200)
    assert collector.lost(270 * MS) == ("depth",)
    _push(collector, _sample("depth", 300), 301 * MS)
    assert collector.lost(301 * MS) == ()


def test_the_larger_window_of_two_sensors_holds() -> None:
    sensors = {"rgb": SensorTiming(window_ns=10 * MS), "lidar": SensorTiming(window_ns=50 * MS)}
    for first, second in (("rgb", "lidar"), ("lidar", "rgb")):
        collector = Collector(sensors, 80 * MS)
        _push(collector, _sample(first, 0), 0)
        _push(collector, _sample(second, 45), 45 * MS)
        assert len(collector.poll(45 * MS)[0].samples) == 2


def test_offsets_bring_stamps_to_one_clock() -> None:
    sensors = {"rgb": SensorTiming(), "thermal": SensorTiming(offset_ns=-40 * MS)}
    collector = Collector(sensors, 80 * MS)
    _push(collector, _sample("rgb", 100), 0)
    _push(collector, _sample("thermal", 141), 1)
    (group,) = collector.poll(1)
    assert _stamps(group) == {"rgb": 100, "thermal": 101}


def test_the_nearer_sample_takes_the_place() -> None:
    collector = _collector("rgb", "depth", "thermal")
    _push(collector, _sample("rgb", 100), 100 * MS)
    _push(collector, _sample("depth", 85), 101 * MS)
    _push(collector, _sample("depth", 102), 103 * MS)
    (group,) = collector.flush(104 * MS)
    assert _stamps(group) == {"rgb": 100, "depth": 102}
    assert (collector.counters["superseded"], collector.counters["used"]) == (1, 2)


def test_a_sample_joins_the_nearer_of_two_groups() -> None:
    collector = _collector("rgb", "lidar")
    _push(collector, _sample("rgb", 0), 0)
    _push(collector, _sample("rgb", 30), 30 * MS)
    _push(collector, _sample("lidar", 18), 40 * MS)
    groups = collector.poll(40 * MS)
    assert [_stamps(g) for g in groups] == [{"rgb": 0}, {"rgb": 30, "lidar": 18}]


def test_duplicates_are_rejected_before_and_after_their_group_left() -> None:
    collector = _collector("rgb", "depth")
    assert _push(collector, _sample("rgb", 0), 0) == "accepted"
    assert _push(collector, _sample("rgb", 0), 1) == "duplicate"
    assert _push(collector, _sample("depth", 5), 6 * MS) == "accepted"
    assert len(collector.poll(6 * MS)) == 1
    assert _push(collector, _sample("depth", 5), 7 * MS) == "duplicate"
    assert collector.counters["rejected_duplicate"] == 2


def test_late_samples_are_rejected() -> None:
    collector = _collector("rgb", "depth")
    _push(collector, _sample("rgb", 0), 0)
    assert collector.poll(80 * MS)[0].reason == "deadline"
    assert _push(collector, _sample("depth", 0), 81 * MS) == "late"
    assert _push(collector, _sample("depth", 10), 82 * MS) == "accepted"


def test_out_of_order_samples_that_still_fit_are_used() -> None:
    collector = _collector("rgb", "depth")
    _push(collector, _sample("rgb", 0), 0)
    _push(collector, _sample("rgb", 33), 33 * MS)
    _push(collector, _sample("depth", 33), 34 * MS)
    _push(collector, _sample("depth", 0), 35 * MS)
    assert [len(g.samples) for g in collector.poll(35 * MS)] == [2, 2]
    assert collector.counters["out_of_order"] == 1


def test_a_clock_set_back_begins_a_new_epoch() -> None:
    collector = _collector("rgb", "depth")
    _push(collector, _sample("rgb", 50_000), 0)
    assert _push(collector, _sample("rgb", 10), 33 * MS) == "accepted"
    _push(collector, _sample("depth", 10), 34 * MS)
    old, new = collector.poll(34 * MS)
    assert (old.epoch, old.reason, _stamps(old)) == (0, "flush", {"rgb": 50_000})
    assert (new.epoch, new.reason, len(new.samples)) == (1, "complete", 2)
    assert collector.counters["resets"] == 1


def test_one_stamp_in_the_future_does_not_silence_the_others() -> None:
    collector = _collector("rgb", "depth", timeout_ns=50 * MS)
    _push(collector, _sample("depth", 3_600_000), 0)
    assert collector.poll(80 * MS)
    taken = 0
    for stamp in range(90, 400, 30):
        taken += _push(collector, _sample("rgb", stamp), stamp * MS) == "accepted"
        collector.poll(stamp * MS)
    assert taken >= 8
    assert collector.counters["resets"] == 1


def test_a_sensor_that_is_always_very_late_does_not_reset_the_others() -> None:
    collector = _collector("rgb", "depth")
    for now in range(2000, 4000, 30):
        _push(collector, _sample("rgb", now), now * MS)
        _push(collector, _sample("depth", now - 1500), now * MS)
        collector.poll(now * MS)
    assert collector.counters["resets"] == 0
    assert collector.counters["rejected_late"] > 50


def test_stamps_far_from_the_clock_are_rejected_when_the_clock_is_theirs() -> None:
    collector = Collector({"rgb": SensorTiming()}, 80 * MS, max_skew_ns=500 * MS)
    assert _push(collector, _sample("rgb", 2000), 1000 * MS) == "skewed"
    assert _push(collector, _sample("rgb", 400), 1000 * MS) == "skewed"
    assert _push(collector, _sample("rgb", 990), 1000 * MS) == "accepted"


def test_the_skew_is_measured_on_the_clock_that_is_told() -> None:
    """Arrivals on a monotonic clock, stamps on the calendar's."""
    collector = Collector({"rgb": SensorTiming()}, 80 * MS, max_skew_ns=500 * MS)
    epoch = 1_700_000_000_000
    for now in range(1000, 2000, 100):
        sample = _sample("rgb", epoch + now - 20)
        assert _push(collector, sample, now * MS, (epoch + now) * MS) == "accepted"
    assert (
        _push(collector, _sample("rgb", epoch + 2600), 2000 * MS, (epoch + 2000) * MS) == "skewed"
    )
    assert _push(collector, _sample("rgb", 2000), 2010 * MS, (epoch + 2010) * MS) == "skewed"
    assert _accounted(collector)


def test_no_group_waits_for_a_sensor_whose_clock_is_off() -> None:
    collector = _collector("rgb", "depth", timeout_ns=5000 * MS)
    for now in range(0, 1000, 100):
        clock = (10**9 + now) * MS
        stamps = {"rgb": clock - 5 * MS, "depth": clock + 400 * MS}
        for sensor, stamp in stamps.items():
            _push(collector, Sample(sensor, _DATA, stamp), now * MS, clock)  # type: ignore[arg-type]
        groups = collector.poll(now * MS)
        if now >= 200:
            assert [(list(g.samples), g.reason) for g in groups] == [(["rgb"], "complete")]
    assert collector.counters["rejected_skewed"] == 10
    assert collector.lost(1000 * MS) == ()
    assert _accounted(collector)


def test_the_sensor_that_a_group_waited_for_in_vain_is_overdue() -> None:
    collector = _collector("rgb", "depth")
    groups: list[Group] = []
    for now in range(0, 700, 10):
        if now % 100 == 0 and now != 500:
            _push(collector, _sample("rgb", now), now * MS)
        if now % 100 == 0:
            _push(collector, _sample("depth", now), now * MS)
        groups += collector.poll(now * MS)
    assert [g.overdue for g in groups] == [()] * 5 + [("rgb",), ()]


def test_foreign_sensors_and_wrong_stamps() -> None:
    collector = _collector("rgb")
    assert _push(collector, _sample("lidar", 0), 0) == "foreign"
    for stamp in (0.5, float("nan"), "12", None):
        with pytest.raises(InputError, match="rgb: stamp"):
            collector.push(Arrival("rgb", stamp, 0, 0))  # type: ignore[arg-type]
        if stamp is not None:
            with pytest.raises(InputError, match="rgb: stamp"):
                Sample("rgb", _DATA, stamp)  # type: ignore[arg-type]
    assert _push(collector, Sample("rgb", _DATA), 7) == "accepted"
    assert _stamps(collector.flush(8)[0]) == {"rgb": 7 / MS}
    assert _accounted(collector)


def test_flush_and_reset() -> None:
    collector = _collector("rgb", "depth")
    _push(collector, _sample("rgb", 0), 0)
    assert [g.reason for g in collector.flush(1)] == ["flush"]
    _push(collector, _sample("rgb", 33), 33 * MS)
    collector.reset()
    assert (collector.pending, collector.next_deadline_ns()) == (0, None)
    assert _push(collector, _sample("rgb", 0), 34 * MS) == "accepted"
    assert _accounted(collector)


def test_memory_is_bounded_when_nobody_polls() -> None:
    collector = _collector("rgb")
    for stamp in range(0, 100_000, 100):
        _push(collector, _sample("rgb", stamp), 0)
    assert collector.pending <= 128
    assert _accounted(collector)
    stamps = [g.stamp_ns for g in collector.poll(0)]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 99_900 * MS


def test_coverage_is_the_share_of_weight() -> None:
    sensors = {"rgb": SensorTiming(weight=3), "depth": SensorTiming(weight=1)}
    collector = Collector(sensors, 10 * MS)
    _push(collector, _sample("rgb", 0), 0)
    assert collector.poll(10 * MS)[0].coverage == 0.75


@pytest.mark.parametrize("wrong", [{"window_ns": -1}, {"timeout_ns": 0}, {"weight": 0}])
def test_wrong_timings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="collector"):
        SensorTiming(**wrong)


def test_wrong_collectors_are_refused() -> None:
    with pytest.raises(ConfigError):
        Collector({}, 10)
    with pytest.raises(ConfigError):
        Collector({"rgb": SensorTiming()}, 0)
    for name in ("Sonar", "policy", "so nar", ""):
        with pytest.raises(InputError, match=f"'{name}'"):
            Collector({"rgb": SensorTiming(), name: SensorTiming()}, 10)
    assert tuple(Collector({"sonar": SensorTiming(), "rgb": SensorTiming()}, 10).sensors) == (
        "rgb",
        "sonar",
    )


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(-60, 60),  # stamp against the nominal time
        st.integers(0, 40),  # time until the next arrival
        st.sampled_from([0] * 30 + [-5000, 5000]),  # a clock that jumps
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    events=_EVENTS,
    windows=st.tuples(*[st.integers(0, 40)] * 4),
    deadline=st.integers(1, 120),
    timeout=st.integers(1, 300),
)
def test_random_streams(
    events: list[tuple[str, int, int, int]],
    windows: tuple[int, ...],
    deadline: int,
    timeout: int,
) -> None:
    """Polled when it asks to be, it accounts for every sample, in order and in time."""
    sensors = {
        m: SensorTiming(window_ns=w * MS, timeout_ns=timeout * MS)
        for m, w in zip(KINDS, windows, strict=True)
    }
    collector = Collector(sensors, deadline * MS)
    groups: list[Group] = []
    waiting: dict[int, int] = {}  # by the accepted sample's own id: its arrival
    now, shift = 0, 0

    def poll(at: int) -> None:
        for group in collector.poll(at * MS):
            groups.append(group)
            assert group.waited_ns <= deadline * MS
            for arrival in group.samples.values():
                assert at - waiting.pop(id(arrival.payload)) <= deadline
        assert _accounted(collector)

    kept: list[Sample] = []  # keeps ids unique
    for sensor, jitter, pause, jump in events:
        due = collector.next_deadline_ns()
        while due is not None and due <= now * MS:
            poll(due // MS)
            due = collector.next_deadline_ns()
        shift += jump
        sample = _sample(sensor, 10_000 + now + jitter + shift)
        kept.append(sample)
        before = collector.counters["superseded"]
        if _push(collector, sample, now * MS) == "accepted":
            waiting[id(sample)] = now
        assert collector.counters["superseded"] - before in (0, 1)
        poll(now)
        now += pause
    while (due := collector.next_deadline_ns()) is not None:
        poll(due // MS)
    assert collector.pending == 0
    assert len(waiting) == collector.counters["superseded"]
    _check_order(groups, sensors)


def _check_order(groups: list[Group], sensors: dict[str, SensorTiming]) -> None:
    epochs = [g.epoch for g in groups]
    assert epochs == sorted(epochs)
    for epoch in set(epochs):
        own = [g for g in groups if g.epoch == epoch]
        stamps = [g.stamp_ns for g in own]
        assert stamps == sorted(set(stamps))
        for sensor in KINDS:
            seen = [g.samples[sensor].stamp_ns for g in own if sensor in g.samples]
            assert seen == sorted(set(seen))
    widest = max(t.window_ns for t in sensors.values())
    assert all(abs(s.stamp_ns - g.stamp_ns) <= widest for g in groups for s in g.samples.values())


@settings(max_examples=100, deadline=None)
@given(
    gone=st.lists(st.sets(st.sampled_from(KINDS), max_size=3), min_size=1, max_size=40),
    delays=st.tuples(*[st.integers(0, 60)] * 4),
    deadline=st.integers(10, 90),
)
def test_output_has_no_gap_while_any_sensor_delivers(
    gone: list[set[str]], delays: tuple[int, ...], deadline: int
) -> None:
    """Whichever sensors drop out, groups follow each other within period + deadline + delay."""
    period = 33
    arrivals = sorted(
        (index * period + delay, KINDS.index(sensor), index * period)
        for index, missing in enumerate(gone)
        for sensor, delay in zip(KINDS, delays, strict=True)
        if sensor not in missing
    )
    collector = _collector(*KINDS, deadline_ms=deadline, timeout_ns=100 * MS)
    output = [0]
    for now in range(len(gone) * period + 60 + deadline + 1):
        while arrivals and arrivals[0][0] == now:
            _, which, stamp = arrivals.pop(0)
            _push(collector, _sample(KINDS[which], stamp), now * MS)
        output += [now] * len(collector.poll(now * MS))
    assert max(np.diff(output)) <= period + deadline + max(delays)
    assert output[-1] >= (len(gone) - 1) * period
    assert collector.pending == 0

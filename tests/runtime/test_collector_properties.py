"""Boundaries, defaults and counters of the collector: each example is worked out by hand, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import ConfigError
from perception.frame import KINDS, Sample
from perception.runtime.collector import Arrival, Collector, Group, SensorTiming

MS = 1_000_000
_DATA = np.zeros((1, 1), np.float32)


class Bench:
    """A collector in milliseconds."""

    def __init__(self, *sensors: str, deadline: float = 80, **options: object) -> None:
        timing = {k: options.pop(k) for k in ("window", "timeout", "weight") if k in options}
        fields = {f"{k}_ns" if k != "weight" else k: v for k, v in timing.items()}
        scaled = {k: round(v * MS) if k.endswith("_ns") else v for k, v in fields.items()}  # type: ignore[operator]
        sensors = {m: SensorTiming(**{"window_ns": 20 * MS, **scaled}) for m in sensors}  # type: ignore[arg-type]
        jump = options.pop("jump", None)
        if jump is not None:
            options["jump_ns"] = round(jump * MS)  # type: ignore[operator]
        self.dropped: list[tuple[str, float]] = []
        self.collector = Collector(
            sensors,
            round(deadline * MS),
            superseded=self._note,
            **options,  # type: ignore[arg-type]
        )

    def _note(self, arrival: Arrival) -> None:
        self.dropped.append((arrival.sensor, arrival.stamp_ns / MS))

    def push(self, sensor: str, stamp: float, now: float) -> str:
        sample = Sample(sensor, _DATA, round(stamp * MS))
        return self.collector.push(Arrival.of(sample, round(now * MS)))

    def poll(self, now: float) -> list[tuple[str, dict[str, float]]]:
        return [shown(g) for g in self.collector.poll(round(now * MS))]

    def counted(self) -> dict[str, int]:
        return {k: v for k, v in self.collector.counters.items() if v}


def shown(group: Group) -> tuple[str, dict[str, float]]:
    return group.reason, {m: s.stamp_ns / MS for m, s in group.samples.items()}


EPS = 1e-6  # a nanosecond


# Windows


@pytest.mark.parametrize(("away", "joins"), [(20, True), (20 + EPS, False), (-20, True)])
def test_a_sample_joins_up_to_its_window_and_no_further(away: float, joins: bool) -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 100, 100)
    assert bench.push("depth", 100 + away, 101) == "accepted"
    assert bench.collector.pending == 2
    groups = bench.collector.flush(102 * MS)
    assert len(groups) == (1 if joins else 2)


def test_a_window_is_a_fortieth_of_a_second_unless_said() -> None:
    for away, groups in ((25, 1), (25 + EPS, 2)):
        collector = Collector({"rgb": SensorTiming(), "depth": SensorTiming()}, 80 * MS)
        collector.push(Arrival.of(Sample("rgb", _DATA, 0), 0))
        collector.push(Arrival.of(Sample("depth", _DATA, round(away * MS)), 0))
        assert len(collector.flush(0)) == groups


def test_a_window_of_nothing_takes_equal_stamps() -> None:
    bench = Bench("rgb", "depth", window=0)
    bench.push("rgb", 100, 100)
    bench.push("depth", 100, 101)
    assert bench.poll(101) == [("complete", {"rgb": 100, "depth": 100})]


def test_of_two_equally_near_groups_the_older_gets_the_sample() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 0, 0)
    bench.push("rgb", 30, 30)
    bench.push("depth", 15, 31)
    assert bench.poll(31) == [("complete", {"rgb": 0, "depth": 15})]


def test_of_two_equally_near_samples_the_first_keeps_the_place() -> None:
    bench = Bench("rgb", "depth", "thermal")
    bench.push("rgb", 100, 100)
    bench.push("depth", 95, 101)
    bench.push("depth", 105, 102)
    groups = bench.collector.flush(103 * MS)
    assert [shown(g)[1] for g in groups] == [{"rgb": 100, "depth": 95}, {"depth": 105}]
    assert bench.dropped == []


def test_a_nearer_sample_takes_the_place_and_the_other_is_told() -> None:
    bench = Bench("rgb", "depth", "thermal")
    bench.push("rgb", 100, 100)
    bench.push("depth", 94, 101)
    bench.push("depth", 105, 102)
    assert bench.dropped == [("depth", 94)]
    assert bench.counted() == {"received": 3, "superseded": 1}
    assert bench.collector.pending == 2


# Order


def test_no_sensor_crosses_itself_between_two_groups() -> None:
    """Depth 10 lies in group 10; depth 12, which fits group 0 alone, would come out before it."""
    bench = Bench("rgb", "depth")
    bench.push("rgb", 0, 0)
    bench.push("rgb", 10, 10)
    bench.push("depth", 10, 11)
    assert bench.push("depth", 12, 12) == "accepted"
    stamps = [shown(g)[1] for g in bench.collector.flush(13 * MS)]
    assert stamps == [{"rgb": 0}, {"rgb": 10, "depth": 10}, {"depth": 12}]


def test_nor_backwards() -> None:
    """Depth 11 lies in group 0; depth 10, which is nearest to group 10, may only take its place."""
    bench = Bench("rgb", "depth")
    bench.push("rgb", 0, 0)
    bench.push("depth", 11, 11)
    bench.push("rgb", 10, 12)
    assert bench.push("depth", 10, 13) == "accepted"
    assert [shown(g)[1] for g in bench.collector.flush(14 * MS)] == [
        {"rgb": 0, "depth": 10},
        {"rgb": 10},
    ]
    assert bench.dropped == [("depth", 11)]


def test_what_left_is_not_followed_by_older_or_equal() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 100, 100)
    bench.push("depth", 104, 101)
    assert len(bench.poll(101)) == 1
    # A sensor's own last stamp, and the group's.
    assert bench.push("depth", 104, 102) == "duplicate"
    assert bench.push("depth", 103, 103) == "late"
    assert bench.push("rgb", 99, 104) == "late"
    assert bench.push("rgb", 100, 105) == "duplicate"
    assert bench.push("rgb", 100 + EPS, 106) == "accepted"


def test_another_sensor_is_late_up_to_the_stamp_that_left() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 100, 100)
    assert bench.poll(180) == [("deadline", {"rgb": 100})]
    assert bench.push("depth", 100, 181) == "late"
    assert bench.push("depth", 100 + EPS, 182) == "accepted"
    assert bench.counted() == {
        "received": 3,
        "used": 1,
        "groups_deadline": 1,
        "rejected_late": 1,
    }


# Waiting


def test_the_deadline_is_reached_to_the_nanosecond() -> None:
    bench = Bench("rgb", "depth", deadline=80)
    bench.push("rgb", 0, 10)
    assert bench.collector.next_deadline_ns() == 90 * MS
    assert not bench.collector.due(90 * MS - 1) and bench.poll(90 - EPS) == []
    assert bench.collector.due(90 * MS)
    assert bench.poll(90) == [("deadline", {"rgb": 0})]
    assert bench.collector.next_deadline_ns() is None


def test_the_earliest_deadline_of_several_counts() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 100, 50)
    bench.push("rgb", 0, 60)  # older, but came later
    assert bench.collector.next_deadline_ns() == 130 * MS
    assert [s for _, s in bench.poll(130)] == [{"rgb": 0}, {"rgb": 100}]
    assert bench.counted() == {
        "received": 2,
        "out_of_order": 1,
        "used": 2,
        "groups_flush": 1,  # taken along by the newer one
        "groups_deadline": 1,
    }


@pytest.mark.parametrize(("newest", "reason"), [(20, "flush"), (20 + EPS, "complete")])
def test_a_sensor_may_join_until_its_newest_lies_beyond_the_window(
    newest: float, reason: str
) -> None:
    """Group 0 comes after group 20, which has both: depth may still send another 20, but no less."""
    bench = Bench("rgb", "depth", window=20)
    bench.push("depth", newest, 1)
    bench.push("rgb", newest, 2)
    bench.push("rgb", 0, 3)
    assert bench.poll(4) == [
        (reason, {"rgb": 0}),
        ("complete", {"rgb": newest, "depth": newest}),
    ]


@pytest.mark.parametrize("after", [500, 300])
def test_a_sensor_is_lost_only_after_its_timeout(after: float) -> None:
    options = {} if after == 500 else {"timeout": after}  # half a second unless said
    bench = Bench("rgb", "depth", **options)  # type: ignore[arg-type]
    assert bench.collector.lost(0) == ("rgb", "depth")  # nobody has spoken
    bench.push("rgb", 0, 0)
    assert bench.collector.lost(0) == ()  # depth is given its time from then on
    for now, lost in ((after, ()), (after + EPS, ("rgb", "depth"))):
        assert bench.collector.lost(round(now * MS)) == lost
        assert bench.collector.idle(round(now * MS)) == lost
    bench.collector.hear("depth", 2 * MS)
    bench.collector.hear("depth", 1 * MS)  # what was heard later stays
    assert bench.collector.lost(round((after + 2) * MS)) == ("rgb",)
    assert bench.collector.lost(round((after + 2) * MS) + 1) == ("rgb", "depth")
    assert bench.collector.idle(round((after + 2) * MS)) == ("rgb", "depth")
    assert (
        bench.collector.heard_ns("depth") == 2 * MS and bench.collector.heard_ns("thermal") is None
    )


def test_a_sensor_that_repeats_a_stamp_is_heard_but_idle() -> None:
    bench = Bench("rgb", "depth", timeout=100)
    for now in range(0, 161, 20):
        bench.push("depth", 50, now)
        bench.push("rgb", now, now)
        bench.poll(now)
    assert bench.collector.lost(160 * MS) == ()
    assert bench.collector.idle(160 * MS) == ("depth",)
    assert bench.push("rgb", 180, 180) == "accepted"
    assert bench.poll(180) == [("complete", {"rgb": 180})]


def test_a_slow_sensor_is_not_waited_for_before_its_next_is_due() -> None:
    """Depth comes every 100: at rgb 79 nothing can follow, from 80 on the one at 100 may be meant."""
    for stamp, waits in ((80 - EPS, False), (80, True)):
        bench = Bench("rgb", "depth", window=10)
        for past in (-200, -100, 0):
            bench.push("depth", past, past + 300)
            bench.push("rgb", past, past + 300)
            assert len(bench.poll(past + 300)) == 1
        bench.push("rgb", stamp, 381)
        assert bool(bench.poll(382)) != waits


def test_the_shortest_of_the_last_eight_steps_counts() -> None:
    for steps, waits in (([30] + [100] * 7, True), ([30] + [100] * 8, False)):
        bench = Bench("rgb", "depth", window=10)
        stamp = 0.0
        for step in [0, *steps]:
            stamp += step
            bench.push("depth", stamp, stamp)
            bench.push("rgb", stamp, stamp)
            assert len(bench.poll(stamp)) == 1
        bench.push("rgb", stamp + 25, stamp + 25)  # after 30 it would be time, after 100 not yet
        assert bool(bench.poll(stamp + 26)) != waits


def test_overdue_is_who_should_have_come_even_by_the_longest_step() -> None:
    def missed(stamp: float, *, steps: tuple[float, ...] = (50, 50, 60)) -> tuple[str, ...]:
        bench = Bench("rgb", "depth", "thermal", window=10, timeout=10_000, deadline=5)
        past = 0.0
        for step in (0, *steps):
            past += step
            for sensor in ("depth", "rgb"):
                bench.push(sensor, past, past)  # type: ignore[arg-type]
            bench.collector.flush(round(past * MS))
        bench.push("rgb", past + stamp, past + stamp)
        (group,) = bench.collector.poll(round((past + stamp + 5) * MS))
        assert group.missing == (
            "depth",
            "thermal",
        )  # thermal has never come: nobody knows its rate
        return group.overdue

    assert missed(50) == ("depth",)
    assert missed(50 - EPS) == ()  # 60 after the last may still be on time within the window of 10
    assert missed(200) == ("depth",)


def test_only_those_waited_for_in_vain_are_overdue() -> None:
    bench = Bench("rgb", "depth", window=10)
    for past in (0, 50, 100):
        for sensor in ("depth", "rgb"):
            bench.push(sensor, past, past)  # type: ignore[arg-type]
        assert [g.overdue for g in bench.collector.poll(past * MS)] == [()]
    bench.push("rgb", 150, 150)
    assert [g.overdue for g in bench.collector.flush(160 * MS)] == [()]


# Clocks


@pytest.mark.parametrize("jump", [None, 200])
def test_a_stamp_further_back_than_the_jump_begins_an_epoch(jump: float | None) -> None:
    least = 1000 if jump is None else jump  # a second unless said
    for back, resets in ((least, 0), (least + EPS, 1)):
        bench = Bench("rgb", "depth", jump=jump)
        bench.push("rgb", 5000, 0)
        assert bench.push("rgb", 5000 - back, 1) == "accepted"
        counted = bench.counted()
        assert counted.get("resets", 0) == resets
        assert counted.get("out_of_order", 0) == 1 - resets
        assert bench.collector.epoch == resets
    bench.push("rgb", 5000 - back, 2)
    assert "out_of_order" not in bench.counted()  # an equal stamp is in order


def test_an_epoch_forgets_stamps_rates_and_what_left() -> None:
    bench = Bench("rgb", "depth", jump=100, window=10)
    for stamp in (1000, 1100, 1200):
        for sensor in ("rgb", "depth"):
            bench.push(sensor, stamp, stamp)  # type: ignore[arg-type]
        assert len(bench.poll(stamp)) == 1
    assert bench.push("rgb", 20, 1201) == "accepted"
    (group,) = bench.collector.poll(
        1281 * MS
    )  # depth's rate is not known any more: it is waited for
    assert (group.epoch, group.reason, group.overdue) == (1, "deadline", ())
    assert bench.counted()["resets"] == 1


def test_after_a_wrong_stamp_has_left_the_others_go_on_when_nothing_left_for_a_deadline() -> None:
    for now, taken in ((160, "late"), (160 + EPS, "accepted")):
        bench = Bench("rgb", "depth", deadline=80, jump=1000)
        bench.push("depth", 9000, 0)
        assert len(bench.poll(80)) == 1
        assert bench.push("rgb", 100, now) == taken
        assert bench.counted().get("resets", 0) == (taken == "accepted")


def test_not_while_something_waits() -> None:
    bench = Bench("rgb", "depth", "thermal", deadline=80, jump=1000)
    bench.push("depth", 9000, 0)
    bench.poll(80)
    bench.push("depth", 9100, 120)
    assert bench.push("rgb", 100, 170) == "late"
    assert "resets" not in bench.counted()


@pytest.mark.parametrize("ahead", [1, -1])
def test_skew_is_allowed_up_to_its_limit(ahead: int) -> None:
    bench = Bench("rgb", "depth", max_skew_ns=300 * MS)
    assert bench.push("rgb", 1000 + ahead * 300, 1000) == "accepted"
    assert bench.push("depth", 1000 + ahead * (300 + EPS), 1000) == "skewed"
    assert Bench("rgb").push("rgb", 1e9, 0) == "accepted"  # no limit unless said
    assert bench.counted() == {"received": 2, "rejected_skewed": 1}
    bench.collector.clocks.max_skew_ns = 400 * MS
    assert bench.push("depth", 1000 + ahead * 399, 1000) == "accepted"


def test_time_does_not_go_back() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 0, 100)
    assert bench.poll(50) == []
    assert bench.push("rgb", 40, 20) == "accepted"  # opened at 100, not at 20
    assert bench.collector.next_deadline_ns() == 180 * MS
    groups = bench.collector.poll(180 * MS)
    assert [g.waited_ns for g in groups] == [80 * MS, 80 * MS]


# Bounds


def test_sixty_four_groups_wait_and_as_many_are_kept_for_the_next_poll() -> None:
    bench = Bench("rgb", "depth", deadline=1e6, timeout=1e7)
    for index in range(64):
        bench.push("rgb", 100 * index, index)
    assert bench.collector.pending == 64 and not bench.collector.due(64 * MS)
    bench.push("rgb", 6400, 64)
    assert bench.collector.due(64 * MS) and bench.collector.next_deadline_ns() == 64 * MS
    assert bench.poll(64) == [("flush", {"rgb": 0})]
    for index in range(65, 65 + 64):
        bench.push("rgb", 100 * index, index)
    assert bench.collector.pending == 128 and bench.dropped == []
    bench.push("rgb", 100 * 129, 129)
    assert bench.dropped == [("rgb", 100)]
    assert bench.counted() == {"received": 130, "used": 1, "groups_flush": 1, "superseded": 1}
    groups = bench.poll(130)
    assert [s["rgb"] for _, s in groups] == [100 * i for i in range(2, 66)]


def test_a_reset_drops_what_waits_and_knows_nobody() -> None:
    bench = Bench("rgb", "depth")
    bench.push("rgb", 100, 100)
    bench.push("depth", 160, 101)
    bench.collector.reset()
    assert sorted(bench.dropped) == [("depth", 160), ("rgb", 100)]
    assert bench.counted() == {"received": 2, "superseded": 2}
    assert bench.collector.lost(102 * MS) == ("rgb", "depth")
    assert bench.collector.epoch == 1 and bench.collector.waiting() == []
    assert bench.push("rgb", 100, 103) == "accepted"
    (group,) = bench.collector.flush(104 * MS)
    assert group.epoch == 1


# Groups


def test_what_a_group_says_of_itself() -> None:
    sensors: dict[str, SensorTiming] = {
        "lidar": SensorTiming(weight=5, offset_ns=-3 * MS),
        "rgb": SensorTiming(weight=2),
        "thermal": SensorTiming(weight=1),
    }
    collector = Collector(sensors, 50 * MS)
    collector.push(Arrival.of(Sample("lidar", _DATA, 113 * MS), 120 * MS))
    collector.push(Arrival.of(Sample("rgb", _DATA, 105 * MS), 130 * MS))
    assert {s.sensor: s.stamp_ns // MS for s in collector.waiting()} == {"lidar": 110, "rgb": 105}
    (group,) = collector.poll(170 * MS)
    assert list(group.samples) == ["rgb", "lidar"]  # in canonical order
    assert group.stamp_ns == 110 * MS  # of the sample that opened it
    assert group.spread_ns == 5 * MS
    assert group.missing == ("thermal",)
    assert group.waited_ns == 50 * MS
    assert group.coverage == 7 / 8
    assert group.frame().stamp_ns == 110 * MS
    assert collector.push(Arrival.of(Sample("lidar", _DATA, 113 * MS), 171 * MS)) == "duplicate"


def test_timings_can_change_while_samples_wait() -> None:
    bench = Bench("rgb", "depth", window=20)
    bench.push("rgb", 100, 100)
    wide = {m: SensorTiming(window_ns=60 * MS, weight=w) for m, w in (("rgb", 3.0), ("depth", 1.0))}
    bench.collector.retime(wide, 30 * MS)  # type: ignore[arg-type]
    assert bench.collector.next_deadline_ns() == 130 * MS
    bench.push("depth", 50, 101)
    (group,) = bench.collector.poll(101 * MS)
    assert (group.coverage, len(group.samples)) == (1.0, 2)
    for sensors, deadline in (({"rgb": wide["rgb"]}, 30), (wide, 0), (wide, -1)):
        with pytest.raises(ConfigError, match="collector"):
            bench.collector.retime(sensors, deadline)  # type: ignore[arg-type]
    bench.collector.retime(wide, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"jump_ns": 0}, {"jump_ns": -1}])
def test_jumps_must_be_positive(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="jump_ns"):
        Collector({"rgb": SensorTiming()}, 1, **wrong)
    Collector({"rgb": SensorTiming(window_ns=0, timeout_ns=1, weight=1e-9)}, 1, jump_ns=1)


def _streams() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    return st.lists(
        st.tuples(st.sampled_from(KINDS[:3]), st.integers(-40, 40), st.integers(0, 25)),
        max_size=50,
    )


def _groups(collector: Collector, events: Iterable[tuple[str, int, int]]) -> list[Group]:
    now, found = 1000, []
    for sensor, jitter, pause in events:
        collector.push(Arrival.of(Sample(sensor, _DATA, (now + jitter) * MS), now * MS))
        found += collector.poll(now * MS)
        now += pause
    return found + collector.flush(now * MS)


@settings(max_examples=200)
@given(events=_streams(), window=st.integers(0, 40))
def test_a_sensors_stamps_rise_from_group_to_group(
    events: list[tuple[str, int, int]], window: int
) -> None:
    sensors = {m: SensorTiming(window_ns=window * MS) for m in KINDS[:3]}
    groups = _groups(Collector(sensors, 60 * MS), events)
    for sensor in KINDS[:3]:
        seen = [g.samples[sensor].stamp_ns for g in groups if sensor in g.samples]
        assert seen == sorted(set(seen))
    stamps = [g.stamp_ns for g in groups]
    assert stamps == sorted(set(stamps))


@settings(max_examples=200)
@given(events=_streams(), shift=st.integers(-(10**6), 10**6))
def test_shifting_all_stamps_by_an_offset_changes_nothing_else(
    events: list[tuple[str, int, int]], shift: int
) -> None:
    plain = Collector({m: SensorTiming() for m in KINDS[:3]}, 60 * MS)
    offset = Collector({m: SensorTiming(offset_ns=shift) for m in KINDS[:3]}, 60 * MS)
    one, other = _groups(plain, events), _groups(offset, events)
    assert [g.stamp_ns + shift for g in one] == [g.stamp_ns for g in other]
    assert [(g.reason, g.missing, list(g.samples)) for g in one] == [
        (g.reason, g.missing, list(g.samples)) for g in other
    ]
    assert plain.counters == offset.counters


def test_a_stamp_that_comes_again_says_nothing_of_the_rate() -> None:
    """Depth 205 gave way to 202 and comes again: it still comes every 100, so that nobody waits at 279."""
    bench = Bench("rgb", "depth", window=10)
    for past in (0, 100):
        for sensor in ("depth", "rgb"):
            bench.push(sensor, past, past)  # type: ignore[arg-type]
        bench.poll(past)
    for stamp, now in ((205, 206), (202, 207), (205, 208)):
        if stamp == 205 and now == 206:
            bench.push("rgb", 200, 200)
        assert bench.push("depth", stamp, now) == "accepted"
    bench.poll(209)
    bench.push("rgb", 279, 279)
    assert bench.poll(280) == [("complete", {"rgb": 279})]

"""What a sample without a stamp is dated with, and what a sample is on its way through a collector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.frame import Sample
from perception.runtime.arrival import Arrival, Group, SensorTiming
from perception.runtime.arrival_health import ArrivalHealth
from perception.runtime.collector import Collector

MS, S = 10**6, 10**9
BARE = Sample("rgb", np.zeros((2, 3, 3), np.uint8), sensor="cam")


def _health(**options: int) -> ArrivalHealth:
    return ArrivalHealth(
        Collector({"cam": SensorTiming(), "tof": SensorTiming()}, 80 * MS, **options)
    )


@pytest.mark.parametrize("back_ms", [0, 1, 149, 150, 151, 10_000])
def test_without_stamps_the_clock_may_be_set_back(back_ms: int) -> None:
    """By little, the next sample is the newer all the same; by more, all begins anew."""
    arrivals, now = _health(jump_ns=150 * MS), 10 * S
    assert arrivals.dated(BARE, now).stamp_ns == now
    then = now - back_ms * MS
    stamp = arrivals.dated(BARE, then).time_ns
    assert stamp == (now + 1 if back_ms < 150 else then)


@given(steps=st.lists(st.integers(-999, 2000), min_size=1, max_size=30))
def test_dates_rise_while_the_clock_is_not_set_back_by_a_jump(steps: list[int]) -> None:
    arrivals, now = _health(jump_ns=S), 10 * S
    last = arrivals.dated(BARE, now).time_ns
    for step in steps:
        now += step
        stamp = arrivals.dated(BARE, now).time_ns
        if stamp <= last:  # only where the dates had run ahead of the clock by a whole jump
            assert last + 1 - now > S and stamp == now
        assert stamp >= now
        last = stamp


def test_each_sensor_is_dated_alone_and_stamps_of_its_own_are_left() -> None:
    arrivals = _health()
    other = BARE.named("tof")
    assert arrivals.dated(BARE, 5).stamp_ns == 5 and arrivals.dated(other, 5).stamp_ns == 5
    assert arrivals.unstamped == {"cam": 5, "tof": 5}
    stamped = BARE.stamped(3)
    assert arrivals.dated(stamped, 9) is stamped and arrivals.unstamped == {"tof": 5}
    assert arrivals.dated(BARE, 5).stamp_ns == 5


@given(stamp=st.none() | st.integers(), now=st.integers(0, 10**18))
def test_an_arrival_of_a_sample_keeps_it(stamp: int | None, now: int) -> None:
    sample = BARE if stamp is None else BARE.stamped(stamp)
    arrival = Arrival.of(sample, now)
    assert (arrival.sensor, arrival.arrived_ns) == ("cam", now) and arrival.payload is sample
    assert arrival.source_ns == arrival.stamp_ns == (now if stamp is None else stamp)


def test_a_groups_frame_is_on_the_reference_clock() -> None:
    one = Arrival("cam", 100, 130, 140, BARE.stamped(100))
    other = Arrival("tof", 120, 120, 150, BARE.named("tof"))
    group = Group({"cam": one, "tof": other}, 130, "complete", (), 0, 1.0, 0)
    frame = group.frame()
    assert {n: s.stamp_ns for n, s in frame.items()} == {"cam": 130, "tof": 120}
    assert (frame.stamp_ns, group.spread_ns, frame["tof"].sensor) == (130, 10, "tof")

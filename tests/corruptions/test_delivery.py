"""Messages on their way: what each delivery fault does to when they come, to their stamps and contents."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.corruptions.delivery import DELIVERY, Active, Channel, Delivered
from perception.errors import ConfigError

MS = 1_000_000
PERIOD = 100 * MS


def _sent(
    faults: list[Active], count: int = 200, seed: int = 0, period: int = PERIOD
) -> list[Delivered[int]]:
    """`count` messages at 10 Hz, stamped when they are sent, polled finely to the end."""
    channel: Channel[int] = Channel(seed)
    out = []
    for n in range(count):
        channel.push(n, n * period, n * period, faults)
        out += channel.poll(n * period)
        assert all(d.arrived_ns <= n * period for d in out)
    while (due := channel.next_ns()) is not None:
        found = channel.poll(due)
        assert found
        out += found
    return out


def test_without_faults_everything_comes_at_once_and_in_order() -> None:
    out = _sent([])
    assert [d.payload for d in out] == list(range(200))
    assert all(d.arrived_ns == d.stamp_ns == d.payload * PERIOD for d in out)


def test_lost_and_drop() -> None:
    assert _sent([Active("lost", 1.0)]) == []
    shares = [1 - len(_sent([Active("drop", a)])) / 200 for a in DELIVERY["drop"].amounts]
    assert shares == pytest.approx(DELIVERY["drop"].amounts, abs=0.1)
    kept = [{d.payload for d in _sent([Active("drop", a)])} for a in (0.2, 0.6)]
    assert kept[1] < kept[0]  # who is lost at a lower share is lost at a higher one


def test_delay_and_jitter_change_arrival_alone() -> None:
    for d in _sent([Active("delay", 0.25)]):
        assert d.arrived_ns == d.payload * PERIOD + 250 * MS
        assert d.stamp_ns == d.payload * PERIOD
    out = _sent([Active("jitter", 0.3)])
    late = [d.arrived_ns - d.payload * PERIOD for d in out]
    assert sorted(d.payload for d in out) == list(range(200))
    assert all(0 <= ns <= 300 * MS for ns in late) and max(late) > 200 * MS
    assert [d.payload for d in out] != list(range(200))  # one may overtake another


def test_bursts_come_all_at_once() -> None:
    out = _sent([Active("burst", 1.0)])
    assert [d.payload for d in out] == list(range(200))
    assert {d.arrived_ns % (1000 * MS) for d in out} == {0}
    assert all(0 <= d.arrived_ns - d.payload * PERIOD < 1000 * MS for d in out)


def test_reordered_ones_come_right_after_the_next() -> None:
    out = _sent([Active("reorder", 0.3)])
    order = [d.payload for d in out]
    assert sorted(order) == list(range(200)) and order != sorted(order)
    for d in out:
        assert d.arrived_ns - d.payload * PERIOD in (0, PERIOD) or d.payload == 199
    late = _sent([Active("reorder", 0.3), Active("delay", 0.25)])
    assert [d.payload for d in late] != list(range(200))
    alone = _sent([Active("reorder", 1.0)], 1)
    assert [d.arrived_ns for d in alone] == [1000 * MS]  # nothing follows: it comes all the same


def test_duplicates_are_twice_the_same() -> None:
    out = _sent([Active("duplicate", 0.3)])
    again = [a for a, b in pairwise(out) if a.payload == b.payload]
    assert 30 < len(again) < 90 and len(out) == 200 + len(again)


def test_a_frozen_sensor_repeats_what_was_before_with_new_stamps() -> None:
    channel: Channel[str] = Channel()
    channel.push("a", 0, 0)
    channel.push("b", 10, 10, [Active("frozen", 1.0)])
    channel.push("c", 20, 20, [Active("frozen", 1.0)])
    channel.push("d", 30, 30)
    assert [(d.payload, d.stamp_ns) for d in channel.poll(99)] == [
        ("a", 0),
        ("a", 10),
        ("a", 20),
        ("d", 30),
    ]


def test_stamps_and_clocks() -> None:
    def off(*faults: Active) -> list[int]:
        out = _sent(list(faults))
        assert [d.arrived_ns for d in out] == [n * PERIOD for n in range(200)]
        return [(d.stamp_ns or 0) - d.payload * PERIOD for d in out]

    assert set(off(Active("stamp_offset", 0.1))) == {100 * MS}
    assert set(off(Active("clock_jump", -3600.0))) == {-3600 * 1000 * MS}
    drift = off(Active("clock_drift", 1e-3, since_ns=0))
    assert drift == [n * PERIOD // 1000 for n in range(200)]
    noise = off(Active("stamp_noise", 0.01))
    assert abs(sum(noise) / 200) < 3 * 10 * MS / math.sqrt(200)
    assert 8 * MS < math.sqrt(sum(n * n for n in noise) / 200) < 12 * MS


def test_what_has_no_stamp_gets_none() -> None:
    channel: Channel[int] = Channel()
    channel.push(1, None, 5, [Active("clock_jump", 2.0), Active("stamp_noise", 0.01)])
    assert channel.poll(5)[0].stamp_ns is None


@given(
    st.lists(st.tuples(st.sampled_from(sorted(DELIVERY)), st.integers(1, 5)), max_size=5),
    st.integers(0, 2**32),
)
def test_any_faults_at_all_are_the_same_for_a_seed_and_invent_nothing(
    chosen: list[tuple[str, int]], seed: int
) -> None:
    faults = [Active(name, DELIVERY[name].at(severity)) for name, severity in chosen]
    first, again = (_sent(faults, 25, seed) for _ in range(2))
    assert first == again
    assert [d.arrived_ns for d in first] == sorted(d.arrived_ns for d in first)
    counts = [d.payload for d in first]
    frozen = any(name == "frozen" for name, _ in chosen)
    assert all(counts.count(n) <= (50 if frozen else 2) for n in counts)
    if not frozen:  # nothing comes before it was sent
        assert all(d.arrived_ns >= d.payload * PERIOD for d in first)


@pytest.mark.parametrize(
    ("fault", "amount"),
    [
        ("melt", 1.0),
        ("drop", 1.5),
        ("drop", -0.1),
        ("delay", -1.0),
        ("jitter", math.nan),
        ("burst", math.inf),
        ("stamp_noise", -0.1),
        ("clock_jump", 1e12),
    ],
)
def test_amounts_that_make_no_sense(fault: str, amount: float) -> None:
    with pytest.raises(ConfigError) as caught:
        Active(fault, amount)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", sorted(DELIVERY))
def test_amounts_grow_with_the_severity_and_have_a_unit_and_a_source(fault: str) -> None:
    table = DELIVERY[fault]
    assert list(table.amounts) == sorted(table.amounts)
    assert table.text and table.source and (table.unit or len(set(table.amounts)) == 1)
    for severity in (0, 6, True, 2.5, "3"):
        with pytest.raises(ConfigError, match="1 to 5"):
            table.at(severity)  # type: ignore[arg-type]

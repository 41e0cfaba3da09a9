"""Samples of one moment, of sensors that speak at other times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calibration.live.grouping import Grouper

MS = 1_000_000


def test_the_newest_complete_moment_is_given_once() -> None:
    groups = Grouper(["front", "top"], ["front", "top"], 20 * MS)
    for index in range(4):
        groups.add("front", index * 33 * MS, f"f{index}")
    assert groups.next() is None
    groups.add("top", 70 * MS, "t0")
    assert groups.next() == (66 * MS, {"front": "f2", "top": "t0"})
    assert groups.next() is None
    groups.add("top", 170 * MS, "t1")
    assert groups.next() is None and groups.off_ns("top") == 29 * MS
    groups.add("front", 165 * MS, "f5")
    assert groups.next() == (165 * MS, {"front": "f5", "top": "t1"})


def test_what_is_not_wanted_comes_along_where_it_fits() -> None:
    groups = Grouper(["front", "rear"], ["front"], 10 * MS)
    groups.add("front", 100 * MS, "f")
    assert groups.next() == (100 * MS, {"front": "f"})
    groups.add("rear", 205 * MS, "r")
    groups.add("front", 200 * MS, "g")
    assert groups.next() == (200 * MS, {"front": "g", "rear": "r"})


def test_a_clock_that_is_set_back_begins_anew() -> None:
    groups = Grouper(["front"], ["front"], 0)
    groups.add("front", 500 * MS, "a")
    assert groups.next() == (500 * MS, {"front": "a"})
    groups.add("front", 100 * MS, "b")
    assert groups.next() == (100 * MS, {"front": "b"})
    groups.clear()
    assert groups.next() is None and groups.off_ns("front") is None


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3000)), max_size=80),
    st.integers(0, 200),
)
def test_groups_are_within_tolerance_and_rise(
    samples: list[tuple[str, int]], tolerance: int
) -> None:
    groups, last = Grouper(["a", "b", "c"], ["a", "b"], tolerance), -1
    newest = dict.fromkeys("abc", -1)
    for name, stamp in samples:
        if stamp < newest[name]:
            continue
        newest[name] = stamp
        groups.add(name, stamp, stamp)
        found = groups.next()
        if found is not None:
            when, group = found
            assert when > last and {"a", "b"} <= set(group) and group["a"] == when
            assert all(abs(value - when) <= tolerance for value in group.values())
            last = when

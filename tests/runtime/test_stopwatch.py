"""The stopwatch on a clock that a test sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.runtime import stopwatch
from perception.runtime.stopwatch import Stopwatch

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**10)), max_size=8)


@given(start=st.integers(0, 2**62), steps=STEPS, rest_ns=st.integers(0, 10**10))
def test_steps_add_up_in_milliseconds(
    start: int, steps: list[tuple[str, int]], rest_ns: int
) -> None:
    now = start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch.time, "perf_counter_ns", lambda: now)
        watch = Stopwatch()
        for step, took_ns in steps:
            now += took_ns
            watch.lap(step)
        now += rest_ns
        found = watch.stop()
    wanted = {name: sum(ns for s, ns in steps if s == name) / 1e6 for name, _ in steps}
    assert found == pytest.approx({**wanted, "total": (now - start) / 1e6}, rel=1e-12)


def test_it_is_the_machines_clock() -> None:
    watch = Stopwatch()
    watch.lap("a")
    found = watch.stop()
    assert 0 <= found["a"] <= found["total"] < 60_000

"""What was sent and never came: counted by the numbers of what did, and told."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from anysense_ros.missed import Missed
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_until
from starting import Starter, quick

S = 10**9


def _info(number: int | None, whose: bytes | None = b"a") -> dict[str, Any]:
    gid = None if whose is None else {"implementation_identifier": "x", "data": whose}
    return {"publication_sequence_number": number, "publisher_gid": gid}


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=60))
def test_each_publisher_is_counted_by_itself(sent: list[tuple[bytes, bool]]) -> None:
    """Of what came of each, all between the first and the last is accounted for."""
    missed = Missed()
    numbers = dict.fromkeys((b"a", b"b", b"c"), 6)
    came: dict[bytes, list[int]] = {}
    for time_ns, (whose, comes) in enumerate(sent):
        numbers[whose] += 1
        if comes:
            came.setdefault(whose, []).append(numbers[whose])
            missed.note(_info(numbers[whose], whose), time_ns)
    wanted = sum(c[-1] - c[0] + 1 - len(c) for c in came.values())
    assert missed.count == (wanted if came else None)


def test_a_publisher_that_starts_again_loses_nothing() -> None:
    missed = Missed()
    for number in (8, 9, 1, 2, 4):
        missed.note(_info(number, None), 0)
    assert missed.count == 1


def test_publishers_that_cannot_be_told_apart_count_for_nothing() -> None:
    missed = Missed(lambda: 2)
    for number in (100, 5, 101, 6):
        missed.note(_info(number, None), 0)
    assert missed.count == 0


def test_without_numbers_nothing_is_said() -> None:
    missed = Missed()
    missed.note({"source_timestamp": 1, "received_timestamp": 2}, 0)
    missed.note(_info(None), 0)
    assert missed.count is None and not missed.line(0)


def test_many_publishers_are_not_kept_for_ever() -> None:
    missed = Missed()
    for number in range(1000):
        missed.note(_info(number, number.to_bytes(2, "big")), 0)
    assert missed.count == 0 and len(missed._last) <= 16


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([1, 11], ""), ([1, 12], "10 of the 12"), ([*range(1, 30), 40], ""), ([1, 2], "")],
)
def test_a_third_within_ten_seconds_is_worth_a_line(numbers: list[int], told: str) -> None:
    missed = Missed()
    for number in numbers:
        missed.note(_info(number), 0)
    assert missed.line(10 * S).startswith(told) and bool(missed.line(10 * S)) == bool(told)
    assert not missed.line(10 * S + 1)
    missed.note(_info(numbers[-1] + 1), 30 * S)
    assert not missed.line(30 * S)


@pytest.mark.slow
def test_a_node_that_was_held_up_tells_what_it_missed(starter: Starter, bundle: Path) -> None:
    """Stopped while a camera goes on: its queue has one place, the numbers tell of the others."""
    parameters = quick(["rgb"], bundle=str(bundle), inputs=["rgb"])
    node, bench = starter(parameters, rate_hz=20.0, sensors=["rgb"])

    def values() -> dict[str, str]:
        return {v.key: v.value for v in bench.diagnostics["rgb"].values}

    def known() -> int:
        return int(values()["received"]) + int(values().get("missed", 0))

    bench.drive()
    bench.wait_full(1)
    bench.wait_diagnostic("rgb", lambda d: "missed" in {v.key for v in d.values}, "the count")
    bench.drive(False)
    before = []

    def settled() -> bool:
        before.append(known())
        del bench.reports[:]
        wait_until(lambda: len(bench.reports) > 4, "reports")
        return known() == before[-1]

    wait_until(settled, "a count that stays")
    early, missed = bench.sent["rgb"] - known(), int(values()["missed"])
    node.process.send_signal(signal.SIGSTOP)
    try:
        start = bench.sent["rgb"]
        bench.drive()
        wait_until(lambda: bench.sent["rgb"] >= start + 60, "pictures that nobody takes")
    finally:
        node.process.send_signal(signal.SIGCONT)
    told = bench.wait_diagnostic("rgb", lambda d: "never came to the node" in d.message, "it")
    assert told.level == DiagnosticStatus.WARN
    bench.wait_status(
        lambda s: any(x.startswith("rgb: ") and "never came" in x for x in s.warnings),
        "the same in ~/status",
    )
    bench.wait_diagnostic("rgb", lambda d: d.level == DiagnosticStatus.OK, "all is well again")
    bench.drive(False)
    wait_until(lambda: bench.sent["rgb"] - known() == early, "every picture accounted for")
    assert int(values()["missed"]) >= missed + 40

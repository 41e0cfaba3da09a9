"""Things made ahead come in order and as they are, no more wait than may, and the thread ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.bags.ahead import ahead


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "ahead"]


def _settled(level: list[int]) -> int:
    """What a count is when it no longer changes."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        before = level[0]
        time.sleep(0.2)
        if level[0] == before and before:
            return before
    raise AssertionError("still counting")


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 9), st.integers(1, 60))
def test_all_come_in_order(sizes: list[int], most: int, most_bytes: int) -> None:
    things = list(enumerate(sizes))
    found = list(ahead(iter(things), lambda thing: thing[1], most=most, most_bytes=most_bytes))
    assert found == things and not _threads()


def test_no_more_are_made_than_may_wait() -> None:
    made = [0]

    def numbers() -> Iterator[int]:
        for number in range(1000):
            made[0] += 1
            yield number

    few = ahead(numbers(), most=5)
    assert next(few) == 0
    assert _settled(made) <= 5 + 2  # one used, one in the thread's hand
    made[0] = 0
    large = ahead(numbers(), lambda number: 10, most_bytes=25)
    assert next(large) == 0
    assert _settled(made) <= 2 + 2
    few.close()
    large.close()
    assert not _threads()


def test_an_error_comes_when_it_is_its_turn() -> None:
    def three() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("broken")

    found = []
    with pytest.raises(ValueError, match="broken"):
        for number in ahead(three()):
            found.append(number)
            time.sleep(0.01)
    assert found == [1, 2, 3] and not _threads()


def test_who_leaves_early_ends_the_thread_and_what_it_reads() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    reading = ahead(endless(), most=3)
    assert next(reading) == 0
    reading.close()
    assert closed.is_set() and not _threads()

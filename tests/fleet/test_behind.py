"""Calls made behind the caller: in order, no more waiting than may, and what goes wrong is said."""

from __future__ import annotations

import threading

import pytest

from perception.errors import DataError
from perception.fleet import behind
from perception.fleet.behind import Behind


def test_calls_are_made_in_order_and_waited_for() -> None:
    found: list[int] = []
    threads: set[str] = set()

    def note(number: int) -> None:
        threads.add(threading.current_thread().name)
        found.append(number)

    with Behind() as own:
        for number in range(100):
            own.do(note, number)
    assert found == list(range(100)) and len(threads) == 1
    assert threads != {threading.current_thread().name}


def test_what_goes_wrong_is_raised_and_ends_it() -> None:
    found: list[int] = []

    def note(number: int) -> None:
        if number == 3:
            raise DataError("full", where=str(number))
        found.append(number)

    with pytest.raises(DataError, match="3: full"), Behind() as own:
        for number in range(1000):
            own.do(note, number)
    assert found[:3] == [0, 1, 2] and len(found) < 1000 and 3 not in found


def test_an_error_of_the_last_call_is_not_lost() -> None:
    def fail() -> None:
        raise DataError("full")

    with pytest.raises(DataError, match="full"), Behind() as own:
        own.do(fail)


def test_the_caller_is_held_up_by_what_is_slow() -> None:
    go = threading.Event()
    given = []

    def caller() -> None:
        with Behind() as own:
            for number in range(30):
                own.do(go.wait)
                given.append(number)

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join(1.0)
    assert len(given) <= behind._AHEAD + 1
    go.set()
    thread.join(30)
    assert len(given) == 30


def test_an_error_of_the_caller_lets_go_of_what_waits() -> None:
    made: list[int] = []
    with pytest.raises(KeyError), Behind() as own:
        for number in range(5):
            own.do(made.append, number)
        raise KeyError
    assert made == list(range(len(made)))


def test_it_is_used_again_whatever_went_wrong_before() -> None:
    found: list[int] = []
    threads: set[int] = set()

    def note(number: int) -> None:
        if number == 1:
            raise DataError("full")
        threads.add(threading.get_ident())
        found.append(number)

    own = Behind()
    with pytest.raises(DataError, match="full"), own:
        for number in range(50):
            own.do(note, number)
    with pytest.raises(KeyError), own:
        own.do(note, 100)
        raise KeyError
    before = len(found)
    with own:
        for number in range(200, 220):
            own.do(note, number)
    assert found[before:] == list(range(200, 220)) and len(threads) == 1
    own.close()

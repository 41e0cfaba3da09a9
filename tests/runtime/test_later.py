"""What is computed later: once, for whoever asks first, and again where it went wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from perception.errors import DataError
from perception.runtime.later import Later, LaterMapping


def test_it_is_made_once_for_all_who_ask_at_once() -> None:
    made: list[int] = []
    all_there = threading.Barrier(8)

    def make() -> object:
        made.append(1)
        return object()

    later = Later(make)

    def ask() -> object:
        all_there.wait(30)
        return later()

    assert made == []
    with ThreadPoolExecutor(8) as pool:
        found = [one.result() for one in [pool.submit(ask) for _ in range(8)]]
    assert made == [1] and all(one is found[0] for one in found)


def test_what_goes_wrong_is_told_to_each_who_asks() -> None:
    tries: list[int] = []

    def make() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise DataError("no")
        return 7

    later = Later(make)
    for _ in range(2):
        with pytest.raises(DataError, match="no"):
            later()
    assert later() == later() == 7 and len(tries) == 3


def test_a_mapping_is_made_when_it_is_looked_into() -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"a": 1, "b": 2}

    later = LaterMapping(make)
    assert made == []
    assert later.get("a") == 1 and later.get("c") is None and "b" in later
    assert dict(later) == {"a": 1, "b": 2} == {**later} and len(later) == 2
    assert made == [1]

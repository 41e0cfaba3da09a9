"""What a peak of memory leaves goes back to the system, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys

from anysense_ros.heap import Heap

LARGE_MESSAGES = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "2",
}
PEAK = """
from anysense_ros.heap import Heap, private_bytes
now = [0.0]
heap = Heap(clock=lambda: now[0])
def look(seconds):
    now[0] += seconds
    heap.look()
    return private_bytes() / 2**20
usual = look(10)
held = [bytes(range(256)) * 1500 for _ in range(300)]
kept = held[150]  # among the others: what is free is not at the end
peak = look(10)
del held
left = look(10)
print(usual, peak, left, look(60), heap.trims)
"""


def test_a_process_gets_smaller_again_with_the_settings_for_large_messages() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PEAK],
        env={**os.environ, **LARGE_MESSAGES},
        capture_output=True,
        text=True,
        check=True,
    )
    usual, peak, left, after, trims = map(float, found.stdout.split())
    assert peak > usual + 80 and left > usual + 80  # the settings keep what was freed
    assert after < usual + 10 and trims == 1


class _Process:
    """What is in use, and what is free and was not given back; and a clock."""

    def __init__(self) -> None:
        self.now, self.used, self.free, self.trimmed = 0.0, 1000, 0, 0
        self.heap = Heap(lambda: self.used + self.free, self._trim, lambda: self.now)

    def _trim(self) -> None:
        self.trimmed += 1
        self.free = 0

    def look(self, seconds: int, free: int, left: int = 0) -> int:
        """How often was given back, after so many seconds with so much free, or more in the end."""
        for _ in range(seconds):
            self.now += 1
            self.free = max(self.free, free)
            self.heap.look()
        self.free = max(self.free, left)
        return self.trimmed


def test_what_is_used_all_the_time_stays() -> None:
    process = _Process()
    assert process.look(600, 50) == 0
    assert process.look(600, 60) == 0


def test_what_a_peak_leaves_goes_once() -> None:
    process = _Process()
    process.look(100, 50, left=300)
    assert process.look(1, 50) == 1
    assert process.look(600, 50) == 1
    assert process.free == 50


def test_what_is_left_by_a_peak_that_goes_on_goes_a_minute_later() -> None:
    process = _Process()
    process.look(100, 50, left=300)
    process.look(300, 50, left=300)
    assert process.look(5, 50) == 2
    assert process.look(30, 150) == 2  # it is at its height while usual is learnt
    assert process.look(600, 50) == 3
    assert process.free == 50


def test_given_back_at_a_moment_of_much_in_use() -> None:
    process = _Process()
    process.look(100, 50, left=300)
    process.look(300, 50)
    process.used = 1500
    assert process.look(1, 50) == 2
    process.used = 1000
    process.look(100, 50, left=300)
    assert process.look(1, 50) == 3
    assert process.look(600, 50) == 3


def test_what_is_in_use_is_learnt_at_once() -> None:
    process = _Process()
    process.look(100, 50)
    process.used = 2000
    assert process.look(3600, 50) == 1


def test_what_is_always_needed_is_usual_in_the_end() -> None:
    """Meanwhile at most once a minute."""
    process = _Process()
    process.look(100, 50, left=300)
    assert process.look(600, 50) == 1
    assert process.look(3600, 150) <= 61
    before = process.trimmed
    assert process.look(3600, 150) == before


def test_what_is_given_back_by_hand_is_not_looked_at_for_a_minute() -> None:
    process = _Process()
    process.look(100, 50)
    process.heap.give_back()
    assert process.look(59, 50, left=300) == 1
    assert process.look(1, 50) == 2


def test_a_system_that_does_not_say_how_large_it_is() -> None:
    process = _Process()
    process.heap = Heap(lambda: 0, process._trim, lambda: process.now)
    assert process.look(600, 0) == 0

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
    """A size that a test sets, and a clock."""

    def __init__(self) -> None:
        self.now, self.size, self.trimmed = 0.0, 1000, 0
        self.heap = Heap(lambda: self.size, self._trim, lambda: self.now)

    def _trim(self) -> None:
        self.trimmed += 1

    def look(self, seconds: float, size: int) -> int:
        """How often was given back, after so many seconds at a size."""
        self.size = size
        for _ in range(int(seconds)):
            self.now += 1
            self.heap.look()
        return self.trimmed


def test_what_is_used_all_the_time_stays() -> None:
    process = _Process()
    assert process.look(600, 1000) == 0
    assert process.look(600, 1010) == 0
    assert process.look(600, 400) == 0


def test_a_peak_goes_once_and_at_most_once_a_minute() -> None:
    process = _Process()
    process.look(100, 1000)
    assert process.look(1, 1200) == 1
    assert process.look(9, 1000) == 1
    assert process.look(600, 1000) == 1
    assert process.look(600, 1100) == 2  # it stays: that is what is usual now
    for size in range(1200, 61_200, 100):
        process.look(1, size)
    assert process.trimmed == 2 + 600 // 60


def test_what_is_given_back_by_hand_is_not_looked_at_for_a_minute() -> None:
    process = _Process()
    process.look(100, 1000)
    process.heap.give_back()
    assert process.trimmed == 1
    assert process.look(59, 1000) == 1
    assert process.look(1, 1200) == 2


def test_a_system_that_does_not_say_how_large_it_is() -> None:
    process = _Process()
    process.heap = Heap(lambda: 0, process._trim, lambda: process.now)
    assert process.look(600, 0) == 0

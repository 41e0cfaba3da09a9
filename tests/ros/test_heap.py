"""What a peak of memory leaves goes back to the system, every ten seconds."""

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
import resource
from pathlib import Path
from anysense_ros.heap import Heap

def private_bytes():
    _, pages, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(pages) - int(shared)) * resource.getpagesize()

now = [0.0]
heap = Heap(clock=lambda: now[0])
def look(seconds):
    now[0] += seconds
    heap.look()
    return private_bytes() / 2**20
usual = look(5)
held = [bytes(range(256)) * 1500 for _ in range(300)]
kept = held[150]  # among the others: what is free is not at the end
peak = look(2)
del held
left = look(2)
print(usual, peak, left, look(10), heap.trims)
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


def test_every_ten_seconds_however_often_it_is_asked() -> None:
    now, trimmed = [0.0], [0]

    def trim() -> None:
        trimmed[0] += 1

    heap = Heap(trim, lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        heap.look()
    assert trimmed[0] == heap.trims == 9

    heap.give_back()  # by hand: the pause starts anew
    assert trimmed[0] == 10
    now[0] += 9.0
    heap.look()
    assert trimmed[0] == 10
    now[0] += 1.0
    heap.look()
    assert trimmed[0] == 11

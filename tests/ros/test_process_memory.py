"""Memory of another process, parted into its own and what others have, too."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmark_modules import load_benchmark

load_benchmark("soak")  # which it imports
memory = load_benchmark("process_memory")
MIB = 2**20
CHILD = """
import mmap, sys
kept = []
for line in sys.stdin:
    how, size = line.split()
    if how == "own":
        kept.append(bytearray(b"x" * int(size)))
    else:
        file = open(sys.argv[1], "r+b")
        shared = mmap.mmap(file.fileno(), int(size))
        sum(shared[::4096])
        kept.append(shared)
    print("done", flush=True)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    file = tmp_path / "shared"
    command = [sys.executable, "-c", CHILD, str(file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    yield process, file
    process.communicate(timeout=60)


def _ask(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None and process.stdout is not None
    print(line, file=process.stdin, flush=True)
    assert process.stdout.readline() == "done\n"


def test_what_is_allocated_is_private_and_what_two_have_mapped_is_shared(
    other: tuple[subprocess.Popen[str], Path],
) -> None:
    process, file = other
    handle = psutil.Process(process.pid)
    _ask(process, "own 1")
    before = memory.memory_of(handle, 0.0)
    assert before.private > 0 and before.shared > 0
    _ask(process, f"own {64 * MIB}")
    grown = memory.memory_of(handle, 1.0)
    # Making it takes twice as much for a moment, of which the process may keep some.
    assert 63 * MIB < grown.private - before.private < 140 * MIB
    assert abs(grown.shared - before.shared) < 4 * MIB
    file.write_bytes(bytes(32 * MIB))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 32 * MIB) as own:
        assert sum(own[::4096]) == 0
        _ask(process, f"shared {32 * MIB}")
        mapped = memory.memory_of(handle, 2.0)
        assert 31 * MIB < mapped.shared - grown.shared < 36 * MIB
        assert mapped.private - grown.private < 4 * MIB
    assert mapped.resident == mapped.private + mapped.shared


def test_growth_of_each_part_is_that_of_a_straight_line_after_the_warm_up() -> None:
    seconds = np.arange(0.0, 101.0)
    readings = [
        memory.Reading(
            t, round((300 + (50 if t < 20 else 0) + 0.1 * t) * MIB), round((200 + 0.02 * t) * MIB)
        )
        for t in seconds
    ]
    assert memory.memory_parts(readings, 20.0) == {
        "private_mb": 202.0,
        "private_grew_mb": 1.6,
        "shared_mb": 108.0,
        "shared_grew_mb": 6.4,
    }
    early = memory.memory_parts(readings[:3], 20.0)
    assert early["private_grew_mb"] == early["shared_grew_mb"] == 0

"""A core for each worker: all its threads stay there, those that it begins later, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'anysense[fleet]'")
pytest.importorskip("fsspec", reason="needs fsspec: pip install 'anysense[fleet]'")
pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from benchmark_modules import load_benchmark

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or not Path("/proc/self/task").exists(),
    reason="needs Linux to keep a process on a core",
)

WORKER = """
import sys, threading
def begin():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
begin()
print("there", flush=True)
sys.stdin.readline()
begin()
print("more", flush=True)
sys.stdin.readline()
"""


def cores_of(process: int) -> list[set[int]]:
    return [os.sched_getaffinity(int(t)) for t in os.listdir(f"/proc/{process}/task")]


def test_a_worker_stays_on_its_core_with_all_its_threads() -> None:
    fleet, before = load_benchmark("fleet"), os.sched_getaffinity(0)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        assert worker.stdout.readline() == "there\n"
        with fleet.confined([worker.pid]):
            assert cores_of(worker.pid) == [{min(before)}] * 2
            worker.stdin.write("go on\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "more\n"
            assert cores_of(worker.pid) == [{min(before)}] * 3
            assert os.sched_getaffinity(0) == before
        worker.stdin.close()


def test_this_process_is_let_go_at_the_end() -> None:
    fleet, before = load_benchmark("fleet"), os.sched_getaffinity(0)
    with fleet.confined([os.getpid()]):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_more_workers_than_cores_are_refused() -> None:
    fleet, many = load_benchmark("fleet"), len(os.sched_getaffinity(0)) + 1
    said = pytest.raises(SystemExit, match="on a core each, but there are")
    with said, fleet.confined([os.getpid()] * many):
        pass

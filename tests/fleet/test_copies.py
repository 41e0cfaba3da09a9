"""Copies that the workers of a machine share: fetched once, within a limit, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from perception.errors import DataError
from perception.fleet import copies
from perception.fleet.copies import Copies
from perception.fleet.places import Place

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A store with five files of 1000 bytes; what was fetched from it, in order."""
    files = fsspec.filesystem("memory")
    for number in range(5):
        files.pipe_file(f"memory://fleet/{number}.bin", bytes([number]) * 1000)
    fetched: list[str] = []
    given = MemoryFileSystem.get_file

    def get_file(self: Any, source: str, *more: Any, **options: Any) -> Any:
        fetched.append(source.rpartition("/")[2])
        time.sleep(0.05)
        return given(self, source, *more, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    yield fetched
    files.rm("memory://fleet", recursive=True)


def of(number: int) -> Place:
    return Place(f"memory://fleet/{number}.bin")


def test_workers_at_once_fetch_a_recording_once(store: list[str], tmp_path: Path) -> None:
    root = tmp_path / "copies"
    workers = [Copies(root=root) for _ in range(6)]
    together = threading.Barrier(6)

    def work(own: Copies) -> bytes:
        together.wait()
        with own.of(of(1), "x") as here:
            return here.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(work, workers)) == {bytes([1]) * 1000}
    assert store == ["1.bin"]
    with workers[0].of(of(1), "changed") as here:  # of another content, as its ETag says
        assert here.name == "1.bin"
    assert store == ["1.bin", "1.bin"]
    for number, worker in enumerate(workers):
        assert root.exists(), number
        worker.close()
    assert not root.exists()


def test_copies_stay_within_the_limit_and_the_oldest_go(store: list[str], tmp_path: Path) -> None:
    own = Copies(2500, tmp_path / "copies")
    for number in (0, 1, 0, 2, 0, 1):  # 1 was used longest ago when 2 comes
        with own.of(of(number), "") as here:
            assert here.read_bytes() == bytes([number]) * 1000
            held = list((tmp_path / "copies").rglob("*.bin"))
            assert len(held) <= 2
        time.sleep(0.02)
    assert store == ["0.bin", "1.bin", "2.bin", "1.bin"]
    own.close()


def test_a_copy_that_is_used_stays_and_others_wait_for_room(
    store: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_LOOK_S", 0.01)
    one, other = (Copies(1500, tmp_path / "copies") for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        with one.of(of(0), "") as here:

            def second() -> bytes:
                with other.of(of(1), "") as there:
                    return there.read_bytes()

            waiting = pool.submit(second)
            time.sleep(0.3)
            assert not waiting.done() and here.read_bytes() == bytes(1000)
        assert waiting.result(30) == bytes([1]) * 1000
    assert not here.exists()
    one.close()
    other.close()
    assert not (tmp_path / "copies").exists()


def test_what_is_too_large_is_one_line_and_leaves_nothing(store: list[str], tmp_path: Path) -> None:
    own = Copies(999, tmp_path / "copies")
    with (
        pytest.raises(DataError, match=r"has 1e-06 GB, copies .* may have 9.99e-07 .*copies_gb"),
        own.of(of(0), ""),
    ):
        pass
    assert store == [] and not list((tmp_path / "copies").glob("*.size"))
    own.close()


def test_what_cannot_be_fetched_leaves_nothing_and_is_tried_again(
    store: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, given = Copies(root=tmp_path / "copies"), MemoryFileSystem.get_file

    def torn(self: Any, source: str, target: str, **options: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MemoryFileSystem, "get_file", torn)
    with pytest.raises(DataError, match="cannot be copied here: No space left"), own.of(of(3), ""):
        pass
    assert not list((tmp_path / "copies").rglob("*.bin"))
    monkeypatch.setattr(MemoryFileSystem, "get_file", given)
    with own.of(of(3), "") as here:
        assert here.read_bytes() == bytes([3]) * 1000
    own.close()


def test_what_one_who_was_killed_left_is_removed(store: list[str], tmp_path: Path) -> None:
    root = tmp_path / "copies"
    program = f"""
import fsspec, sys, time
from pathlib import Path
from perception.fleet.copies import Copies
from perception.fleet.places import Place
fsspec.filesystem("memory").pipe_file("memory://fleet/0.bin", bytes(1000))
with Copies(root=Path({str(root)!r})).of(Place("memory://fleet/0.bin"), "") as here:
    print("there", flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"there\n"
        os.kill(process.pid, signal.SIGKILL)
    assert list(root.rglob("0.bin"))
    own = Copies(root=root)
    assert not list(root.rglob("0.bin")) and not list(root.glob("*.size"))
    own.close()
    assert not root.exists()


def test_a_folder_that_others_can_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies").chmod(0o777)
    with pytest.raises(DataError, match="is no place for copies: .* can be written by others"):
        Copies(root=tmp_path / "copies")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        Copies(root=tmp_path / "file" / "copies")


def test_a_job_of_recordings_elsewhere_copies_each_once_and_leaves_none(
    batch: Run, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    fetched: list[str] = []
    given = Place.fetch

    def fetch(self: Place, target: Path) -> None:
        fetched.append(self.name)
        given(self, target)

    monkeypatch.setattr(Place, "fetch", fetch)
    files = fsspec.filesystem("memory")
    for name in ("a", "c"):
        files.pipe_file(f"memory://bags/{name}.mcap", (fleet / f"bags/{name}.mcap").read_bytes())
    try:
        found = batch(recordings=["memory://bags/*.mcap"], workers={"copies_gb": 1})
        assert found["status"] == 0 and found["chunks"] > 4, found["error"]
        assert sorted(fetched) == ["a.mcap", "c.mcap"]
        assert list((tmp_path / "temporary").iterdir()) == []
        none = batch(recordings=["memory://bags/*.mcap"], workers={"copies_gb": 1e-6}, out="none")
        assert none["status"] == 3 and set(none["failed"]) == {"a", "c"}
        assert "workers.copies_gb" in none["failed"]["a"]
        assert list((tmp_path / "temporary").iterdir()) == []
    finally:
        files.rm("memory://bags", recursive=True)

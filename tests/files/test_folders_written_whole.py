"""A folder is as it was or all new, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perception.errors import BundleError, DataError
from perception.files import folders
from perception.files.folders import writing_folder

WRITER = """
import os, sys
from pathlib import Path
from perception.files import folders
from perception.files.folders import writing_folder
if sys.argv[3] == "no-exchange":
    def refuse(first, second):
        raise OSError(38, "no")
    folders._exchange = refuse
number = 0
while True:
    number += 1
    with writing_folder(sys.argv[1]) as folder:
        for name in ("a", "b", "c/d"):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{sys.argv[2]} {number}\\n" * 2000)
    if number == 1:
        print("ready", flush=True)
"""


def content(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


def assert_whole(folder: Path) -> None:
    found = content(folder)
    assert set(found) == {"a", "b", "c/d"}
    assert len(set(found.values())) == 1 and len(found["a"].splitlines()) == 2000


def test_a_new_folder_and_one_in_the_place_of_another(tmp_path: Path) -> None:
    out = tmp_path / "far" / "away" / "out"
    with writing_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert content(out) == {"a": "1"}
    out.chmod(0o750)
    with writing_folder(out) as folder:
        (folder / "b").write_text("2")
        assert content(out) == {"a": "1"}
    assert content(out) == {"b": "2"}
    assert out.stat().st_mode & 0o777 == 0o750
    assert os.listdir(out.parent) == ["out"]


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing_folder(tmp_path / "x" / "y") as folder:
        (folder / "a").write_text("1")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    old = tmp_path / "old"
    old.mkdir()
    (old / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), writing_folder(old) as folder:
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["old"] and content(old) == {"a": "1"}


def test_a_full_disk_is_one_line_and_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with writing_folder(out) as folder:
        (folder / "a").write_text("1")
    with (
        pytest.raises(BundleError, match=r"out: cannot be written: No space left"),
        writing_folder(out, error=BundleError) as folder,
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)
    assert content(out) == {"a": "1"} and os.listdir(tmp_path) == ["out"]


def test_what_cannot_be_read_for_it_is_not_said_of_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), writing_folder(tmp_path / "out"):
        (tmp_path / "elsewhere").read_text()


def test_places_that_are_no_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("1")
    for path in (file, file / "below"):
        with pytest.raises(DataError, match="file"), writing_folder(path):
            pass
    assert file.read_text() == "1" and os.listdir(tmp_path) == ["file"]
    with (
        pytest.raises(DataError, match="^/proc/out: cannot be written"),
        writing_folder("/proc/out"),
    ):
        pass
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="loop"), writing_folder(tmp_path / "loop"):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with writing_folder(tmp_path / "link") as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "real") == {"a": "1"}


@pytest.mark.parametrize("mode", ["exchange", "no-exchange"])
def test_killed_at_any_moment_it_is_whole(mode: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for round_ in range(12):
        command = [sys.executable, "-c", WRITER, str(out), f"round {round_}", mode]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(0.003 * round_)
            process.send_signal(signal.SIGKILL)
        if mode == "no-exchange":
            folders.recover(out)  # as the next call does
        assert_whole(out)
    with writing_folder(out) as folder:
        (folder / "last").write_text("x")
    assert os.listdir(tmp_path) == ["out"], "what the killed ones left is gone"


def test_two_that_write_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(out), name, ""], stdout=subprocess.PIPE)
        for name in ("first", "second")
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        assert all(p.poll() is None for p in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert_whole(out)


def test_where_names_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(folders, "_exchange", refuse)
    out = tmp_path / "out"
    for text in ("1", "2"):
        with writing_folder(out) as folder:
            (folder / text).write_text(text)
    assert content(out) == {"2": "2"} and os.listdir(tmp_path) == ["out"]


def test_others_folders_that_look_alike_are_left_alone(tmp_path: Path) -> None:
    for name in (".out.part", ".out.x.00000000.part", ".out.0000000.part", ".output.00000000.part"):
        (tmp_path / name).mkdir()
    with writing_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    assert len(os.listdir(tmp_path)) == 5

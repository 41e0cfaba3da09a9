"""Signals unwind what runs, wait for what cleans up, and are heard wherever they arrive."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from perception.files.folders import scratch_folder, writing_folder
from perception.files.stopping import Stopped, stoppable, unstopped
from perception.files.writing import writing

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # a place at which Python looks for signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_unwinds_and_says_which(number: int) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    cleaned = []
    with pytest.raises(BaseException) as caught, stoppable():
        try:
            _send(number)
        finally:
            cleaned.append(True)
    assert cleaned == [True]
    if number == signal.SIGINT:
        assert caught.type is KeyboardInterrupt
    else:
        assert isinstance(caught.value, Stopped) and caught.value.status == 128 + number
    assert [signal.getsignal(n) for n in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_cleaning_up_is_not_cut_short(number: int) -> None:
    steps = []
    with pytest.raises((Stopped, KeyboardInterrupt)), stoppable():
        with unstopped():
            with unstopped():
                _send(number)
                steps.append("inner")
            steps.append("outer")
        steps.append("never")
    assert steps == ["inner", "outer"]


def test_a_second_signal_does_not_cut_the_unwinding_short() -> None:
    steps = []
    with pytest.raises(Stopped), stoppable():
        try:
            _send(signal.SIGTERM)
        finally:
            _send(signal.SIGTERM)
            _send(signal.SIGINT)
            steps.append("whole")
    assert steps == ["whole"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_a_finalizer_is_heard_after_it(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stubborn:
        def __del__(self) -> None:
            _send(number)

    with pytest.raises((Stopped, KeyboardInterrupt)), stoppable():
        Stubborn()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass
    assert capsys.readouterr() == ("", "")


def test_other_faults_of_finalizers_are_told_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise KeyError("broken")

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda found: seen.append(found.exc_type))
        with stoppable():
            Broken()
    assert seen == [KeyError]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_ignored_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stoppable():
            _send(number)
    finally:
        signal.signal(number, before)


def test_a_forked_worker_dies_as_it_would_have() -> None:
    with stoppable():
        child = os.fork()
        if not child:
            try:
                _send(signal.SIGTERM)
                time.sleep(60)
            finally:
                os._exit(7)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


def test_in_another_thread_nothing_changes() -> None:
    seen = []

    def work() -> None:
        with stoppable(), unstopped():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize("number", SIGNALS)
def test_nothing_is_left_of_what_was_being_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = tmp_path / "old.txt"
    old.write_text("old")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("old")

    def stopped(context) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises((Stopped, KeyboardInterrupt)), stoppable(), context as place:
            made = place / "b" if place.is_dir() else place
            made.write_text("new")
            assert made.is_file()
            _send(number)
            raise AssertionError("went on")

    stopped(writing(old))
    stopped(writing(tmp_path / "new.txt"))
    stopped(writing_folder(folder))
    stopped(writing_folder(tmp_path / "above" / "new"))
    stopped(scratch_folder("test"))
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "folder", "folder/a", "old.txt",
    ]  # fmt: skip
    assert old.read_text() == (folder / "a").read_text() == "old"

"""What commands print and how they end, whatever names, terminals and faults they meet."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.cli import console
from perception.cli import main as main_module
from perception.cli.main import EXIT_ERROR, EXIT_INTERNAL, EXIT_INTERRUPTED, main
from perception.errors import ConfigError
from perception.files.text import html_text, printable

NASTY = (
    "[/red]",
    "[bold]loud[/bold]",
    ":smile:",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "bell\x07 back\x08\x08space",
    "\x9b31m",
    "left\u202eright",
    "zero\u200bwidth",
    "two\nlines\r\nhere",
    "anysense: error: forged\x00",
    "lone \udcff surrogate",
    "größe 大きさ ✓",
    "<script>alert(1)</script>",
    "' onload='x",
    "$\\frac$",
    "|a|b|",
)
PRINTABLE = tuple(n for n in NASTY if n.isprintable())
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


@given(st.text())
def test_nothing_printed_acts_on_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@given(st.text())
def test_nothing_in_a_page_is_markup(text: str) -> None:
    assert not set(html_text(text)) & set("<>\"'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[/red] :smile:", "[/red] :smile:"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb\tc\u2028d", "a b c d"),
        ("\u202e", "\\u202e"),
        ("\udcff", "\\udcff"),
        ("\x9b", "\\x9b"),
        ("größe ✓", "größe ✓"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    with _printed() as out:
        console.say(text)
    assert out.getvalue() == f"{shown}\n"


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        yield out


@pytest.mark.parametrize("name", NASTY)
def test_tables_bars_and_notes_show_names_as_they_are(name: str) -> None:
    with _printed() as out:
        table = console.Table("x", name, title=name)
        table.add_column(name)
        table.add_row(name, console.plain(name, "red"), 3)
        table.show()
        console.note(name)
        console.warn(ConfigError("wrong", where=name))
        with console.counted(name, 2) as advance:
            advance()
        with console.step_progress() as show:
            show(name, 1, 2)
        with console.status(name):
            pass
        assert list(console.tracked(range(3), name)) == [0, 1, 2]
    shown = out.getvalue()
    assert not ACTING.search(shown)
    assert shown.count(printable(name)) >= 6


def _nasty_recording(folder: Path) -> Path:
    """One picture, classes with every nasty name that YAML can hold, wrong labels and boxes."""
    for part in ("rgb", "labels", "boxes"):
        (folder / part).mkdir(parents=True)
    classes = [{"id": i, "name": n, "color": [i, 2, 3]} for i, n in enumerate(PRINTABLE)]
    info = {"schema": 1, "name": "[/bold]\x1b[31m", "modalities": ["rgb"], "height": 8, "width": 8}
    info |= {"seg_classes": classes, "det_classes": classes, "licence": "[/x]"}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(info), "utf-8")
    (folder / "frames.csv").write_text("id,stamp_ns,tags\n[red],1,[/blue]\n", "utf-8")
    (folder / "boxes/[red].txt").write_text("[/red] 1 2 3 4\n")
    (folder / "rgb/[red].png").write_bytes(b"[/red]")
    (folder / "rgb/\x1b[31m[x].png").write_bytes(b"")
    with contextlib.suppress(OSError):
        Path(os.fsdecode(bytes(folder / "rgb") + b"/\xff\xfe.png")).write_bytes(b"")
    return folder


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINAL = {"FORCE_COLOR": "1", "PYTHONIOENCODING": "ascii", "TERM": "xterm-256color"}


def _run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, arguments)]
    environ = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, env=environ, timeout=300)


def _run_here(encoding: str, *arguments: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command on streams of this encoding that take nothing else."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main([*map(str, arguments)])
        for stream in streams:
            stream.flush()
    out, err = (s.buffer.getvalue().decode(encoding) for s in streams)  # type: ignore[attr-defined]
    return status, out, err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_any_encoding_shows_any_name(encoding: str, tmp_path: Path) -> None:
    root = _nasty_recording(tmp_path / "[red]")
    status, out, err = _run_here(encoding, "data", "check", root)
    assert (status, err) == (2, "")
    assert "[red]" in out and not ACTING.search(out)
    status, out, err = _run_here(encoding, "data", "info", f"folder:{root}")
    assert (status, err) == (0, "")
    assert "[/bold]" in out and ":smile:" in out and not ACTING.search(out)


@pytest.mark.parametrize("environment", [ASCII, TERMINAL], ids=["locale", "terminal"])
def test_a_whole_process_without_unicode(environment: dict[str, str], tmp_path: Path) -> None:
    done = _run("data", "check", _nasty_recording(tmp_path / "[red]"), **environment)
    assert (done.returncode, done.stderr) == (2, b"")
    assert b"[red]" in done.stdout


@pytest.mark.parametrize("command", ["doctor", "models", "bundle", "eval", "bench"])
def test_commands_print_without_unicode(command: str, tiny_bundle: Path, simulated: Path) -> None:
    arguments = {
        "doctor": ["doctor"],
        "models": ["models", "--size", "32", "32", "--classes", "2"],
        "bundle": ["bundle", "info", str(tiny_bundle)],
        "eval": ["eval", str(tiny_bundle), "--data", f"folder:{simulated}", "--limit", "1"],
        "bench": ["bench", str(tiny_bundle), "--frames", "1", "--warmup", "0", "--threads", "1"],
    }[command]
    arguments += ["--device", "onnxruntime-cpu"] if command in ("eval", "bench") else []
    status, out, err = _run_here("ascii", *arguments)
    assert (status, err) == (0, "")
    assert len(out) > 200


def test_a_bundle_with_nasty_names_is_shown(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    manifest["description"] = "[/red][31m two\nlines"
    manifest["training"] = {"[/bold]": {"a": {"[/x]": "\x9b"}}, "licence": ":smile:\u202e"}
    for row, name in zip(manifest["tasks"]["segmentation"]["classes"], PRINTABLE, strict=False):
        row["name"] = name
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (bundle / "records.yaml").unlink()  # they are of the bundle as it was
    done = _run("bundle", "info", bundle)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert not ACTING.search(shown)
    assert "[/red][31m two lines" in shown and "[/bold]" in shown and ":smile:" in shown


def test_errors_show_names_as_they_are(tmp_path: Path) -> None:
    done = _run("data", "check", tmp_path / "\x1b[31m[/red]")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"anysense: error: {tmp_path}/\\x1b[31m[/red]: no such folder"
    ]
    done = _run(
        "data", "info", os.fsencode("folder:/\udcff/none").decode("utf-8", "surrogateescape")
    )
    assert done.returncode == 2 and b"\\udcff" in done.stderr


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["--help"]])
def test_a_reader_that_goes_away_is_no_fault(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "perception.cli.main", *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=300)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_behind_stdout_is_one_line(simulated: Path) -> None:
    command = [sys.executable, "-m", "perception.cli.main", "data", "info", f"folder:{simulated}"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == ["anysense: error: No space left on device"]


def test_no_stdout_at_all(simulated: Path) -> None:
    line = f"exec {sys.executable} -m perception.cli.main data info folder:{simulated} >&-"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")


class OutOfMemoryError(RuntimeError):
    """Named as that of PyTorch, which is no MemoryError."""


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    command = f"exec {sys.executable} -m perception.cli.main {line}"
    # Buffered, as where nobody asked for anything else.
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    run = ["sh", "-c", command]
    return subprocess.run(run, capture_output=True, text=True, timeout=300, env=plain)


def test_help_without_stdout_goes_nowhere_else() -> None:
    for line in ("--help", "--version", "data check --help"):
        done = _shell(f"{line} >&-")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("place", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>&1"])
@pytest.mark.parametrize("line", ["data check nowhere", "bench --threads 0 b", "nothing"])
def test_an_error_that_nobody_can_be_told_keeps_its_status(line: str, place: str) -> None:
    done = _shell(f"{line} {place}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == (place == ">&-")


class _Panic(BaseException):
    """What an extension in another language raises past `Exception`."""


@pytest.mark.parametrize(
    ("problem", "status", "line"),
    [
        (KeyError("[/red]\x1b"), EXIT_INTERNAL, r"internal error: KeyError: .*\[/red\]\\x1b.*"),
        (RecursionError("deep"), EXIT_INTERNAL, r"internal error: RecursionError: deep at .*"),
        (
            UnicodeDecodeError("ascii", b"\xff", 0, 1, "x"),
            EXIT_INTERNAL,
            "internal error: Unicode.*",
        ),
        (ValueError("two\nlines"), EXIT_INTERNAL, "internal error: ValueError: two lines at .*"),
        (AssertionError(), EXIT_INTERNAL, "internal error: AssertionError: .*"),
        (_Panic("rust"), EXIT_INTERNAL, "internal error: _Panic: rust at .*"),
        (MemoryError(), EXIT_INTERNAL, "error: not enough memory"),
        (OutOfMemoryError("CUDA"), EXIT_INTERNAL, "error: not enough memory"),
        (np.exceptions.AxisError(3, 2), EXIT_INTERNAL, "internal error: AxisError.*"),
        (ConfigError("wrong", where="[/x]", hint="do"), EXIT_ERROR, r"error: \[/x\]: wrong \(do\)"),
        (OSError(28, "No space left", "a/b"), EXIT_ERROR, "error: a/b: No space left"),
        (BrokenPipeError(32, "Broken pipe"), EXIT_ERROR, "error: Broken pipe"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
    ],
)
def test_every_end_is_one_line_and_a_status(
    problem: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: list[str]) -> int:
        raise problem

    monkeypatch.setattr(main_module, "_run", fail)
    monkeypatch.setattr(main_module, "give_up_output", lambda: None)
    assert main(["data"]) == status
    shown = capsys.readouterr().err
    assert re.fullmatch(f"anysense: {line}\n", shown), shown
    if status == EXIT_INTERNAL and not isinstance(problem, MemoryError | OutOfMemoryError):
        assert "ANYSENSE_TRACEBACK=1" in shown and "report" in shown


def test_the_traceback_is_shown_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise KeyError("x")

    monkeypatch.setattr(main_module, "_run", fail)
    for value, wanted in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("ANYSENSE_TRACEBACK", value)
        assert main(["data"]) == EXIT_INTERNAL
        assert ("Traceback" in capsys.readouterr().err) == wanted


def test_warnings_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(arguments: list[str]) -> int:
        warnings.warn("[/red]\x1b: read otherwise", stacklevel=1)
        return 0

    monkeypatch.setattr(main_module, "_run", warn)
    before = warnings.showwarning
    assert main(["data"]) == 0
    assert capsys.readouterr().err == "anysense: warning: [/red]\\x1b: read otherwise\n"
    assert warnings.showwarning is before


def test_a_table_of_a_pipe_cuts_no_word_off(capsys: pytest.CaptureFixture[str]) -> None:
    headers = [f"a_long_header_{i}" for i in range(12)]
    table = console.Table(*headers)
    table.add_row(*map(str, range(12)))
    table.show()
    shown = capsys.readouterr().out
    assert all(header in shown for header in headers)

"""What commands print: one place, so that nothing from a file is ever taken for markup or a control code.

Names of classes, bundles, files and recordings are shown as they are; characters that a terminal would
act on (colors, cursor moves, text direction) are shown as escapes.  A terminal that lacks a character
gets its escape instead of an error.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from rich import get_console
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from perception.cli.together import may_end_with_a_line
from perception.files.text import printable
from perception.progress import Pace

_PIPE_WIDTH = 120
"""Columns for tables that go to a file or pipe, where Rich would assume 80 and cut names off."""

_MOST_WIDTH = 240


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # called from an except clause; `main` knows what to do


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


CONSOLE = _Console(
    highlight=False,
    markup=False,
    emoji=False,
    width=None if _is_terminal(sys.stdout) else _PIPE_WIDTH,
)


@dataclass
class _Mode:
    """How much is printed: `-q`, `-v`, and whether stdout is for JSON alone."""

    quiet: bool = False
    verbose: int = 0
    json: bool = False


_MODE = _Mode()
_LOG = logging.getLogger("anysense")


@contextmanager
def output_as(*, quiet: bool = False, verbose: int = 0, json: bool = False) -> Iterator[None]:
    """Print as a command was asked to.

    Args:
        quiet: nothing but errors, and JSON where it is asked for.
        verbose: 1: also what the library logs of its decisions; 2: everything that it logs.
        json: stdout is for JSON alone; notes, warnings and progress go to stderr, text to nowhere.
    """
    old, consoles = (_MODE.quiet, _MODE.verbose, _MODE.json), (CONSOLE, get_console())
    before = [(console.quiet, console.stderr) for console in consoles]
    level = _LOG.level
    _MODE.quiet, _MODE.verbose, _MODE.json = quiet, verbose, json
    _LOG.setLevel(logging.ERROR if quiet else (level, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    for console in consoles:  # training prints on the second
        console.quiet, console.stderr = console.quiet or quiet, console.stderr or json
    try:
        yield
    finally:
        _MODE.quiet, _MODE.verbose, _MODE.json = old
        _LOG.setLevel(level)
        for console, (was_quiet, was_stderr) in zip(consoles, before, strict=True):
            console.quiet, console.stderr = was_quiet, was_stderr


def wants_tracebacks() -> bool:
    """Whether `-vv` asks for them."""
    return _MODE.verbose > 1


def plain(text: object, style: str = "") -> Text:
    """Text that is shown as it is, see `printable`."""
    return text if isinstance(text, Text) else Text(printable(str(text)), style=style)


def say(line: object, style: str = "") -> None:
    """Print a line of what is reported: not wrapped, not interpreted."""
    if not _MODE.json:
        _print(line, style)


def _print(line: object, style: str) -> None:
    CONSOLE.print(plain(line, style), soft_wrap=True)


def note(line: object) -> None:
    """Print what the user should know about a result."""
    _print(f"note: {line}", "yellow")


def warn(line: object) -> None:
    """Print what went wrong without ending the command."""
    _print(f"warning: {line}", "yellow")


def print_json(text: str) -> None:
    """Print JSON on stdout, whatever else is printed."""
    if sys.stdout is not None:
        print(text)  # noqa: T201


def complain(line: str) -> None:
    """Print a line of `anysense:` on stderr."""
    _to_stderr(f"anysense: {line}")


def end_with(line: str) -> None:
    """Print why the command ends; of several processes that do one thing together, one does."""
    if may_end_with_a_line():
        complain(line)


def _to_stderr(line: str) -> None:
    """Print a line there, if that is possible: where it is not, nobody can be told so."""
    if sys.stderr is None:  # for which `print` would take stdout
        return
    try:
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):
        _give_up(sys.stderr)


class Table(RichTable):
    """A table whose headers and cells are shown as they are; `show` prints it."""

    def __init__(self, *headers: object, title: object = "", **options: Any) -> None:
        super().__init__(title=plain(title, "table.title") if title else None, **options)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: object = "", *args: Any, **options: Any) -> None:
        super().add_column(plain(header), *args, **options)

    def add_row(self, *cells: object, **options: Any) -> None:
        super().add_row(*(plain(cell) for cell in cells), **options)

    def show(self) -> None:
        """Print the table."""
        if not _MODE.json:
            usual = CONSOLE.width
            if not CONSOLE.is_terminal:
                CONSOLE.width = self._wide_enough()
            try:
                CONSOLE.print(self)
            finally:
                if not CONSOLE.is_terminal:
                    CONSOLE.width = usual

    def _wide_enough(self) -> int:
        """Columns for a file or pipe, whose lines may be as long as it takes to cut no word off."""
        options = CONSOLE.options.update(width=_MOST_WIDTH)
        return max(CONSOLE.width, Measurement.get(CONSOLE, options, self).minimum)


def status(what: str) -> Status:
    """A sign of life around work whose length is not known; use with `with`."""
    return CONSOLE.status(plain(what))


def _progress(*columns: Any) -> Progress:
    text = TextColumn("{task.description}", markup=False)
    hidden = not CONSOLE.is_terminal
    bar = BarColumn()
    return Progress(text, bar, *columns, console=CONSOLE, transient=True, disable=hidden)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over `total` equal steps; gives what to call after each."""
    with _progress(TimeRemainingColumn()) as progress:
        task, pace = progress.add_task(printable(what), total=total), Pace(what, total)
        done = itertools.count(1)

        def advance() -> None:
            progress.advance(task)
            _pace(pace, next(done))

        yield advance


def _pace(pace: Pace, done: int) -> None:
    """Where no bar can be drawn, a line from time to time."""
    line = pace.line(done)
    if line is not None and not CONSOLE.is_terminal and not _MODE.quiet:
        complain(line)


def tracked(items: Iterable[int], what: str) -> Iterator[int]:
    """The items, with a bar that shows how many of them are done."""
    every = list(items)
    with counted(what, len(every)) as advance:
        for item in every:
            yield item
            advance()


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time passed and an estimate of what is left, for one step after the other.

    Gives a function of what is being done, how far it is, and how far it will be.
    """
    with _progress(TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        now: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in now:
                for old, _ in now.values():
                    progress.remove_task(old)
                now.clear()
                now[what] = progress.add_task(printable(what), total=total), Pace(what, total)
            task, pace = now[what]
            progress.update(task, completed=done, total=total)
            _pace(pace, done)

        yield show


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        name = f"{record.name}: " if _MODE.verbose else ""
        _to_stderr(f"{name}{record.getMessage()}")


def prepare_streams() -> None:
    """Let no character fail to be printed, and show the library's warnings as lines on stderr."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if not _LOG.handlers:
        _LOG.addHandler(_Log())


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Show Python's warnings as lines on stderr, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if not _MODE.quiet:
            complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def flush_output() -> None:
    """Write out what stdout still holds.

    Raises:
        OSError: it cannot be written: the disk is full, or the reader is gone.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def output_flushes() -> bool:
    """Whether stdout can still be written to."""
    try:
        flush_output()
    except OSError:
        return False
    return True


def reader_is_gone() -> bool:
    """Whether stdout is a pipe or socket that nobody reads from any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no stdout, or one without a file
        return False


def give_up_output() -> None:
    """Throw away what stdout still holds, so that the interpreter does not fail on it at its end."""
    _give_up(sys.stdout)


def _give_up(stream: TextIO | None) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        return

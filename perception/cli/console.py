"""What commands print: one place, so that nothing from a file is ever taken for markup or a control code.

Names of classes, bundles, files and recordings are shown as they are; characters that a terminal would
act on (colors, cursor moves, text direction) are shown as escapes.  A terminal that lacks a character
gets its escape instead of an error.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from perception.files.text import printable

_PIPE_WIDTH = 120
"""Columns for tables that go to a file or pipe, where Rich would assume 80 and cut names off."""


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


def plain(text: object, style: str = "") -> Text:
    """Text that is shown as it is, see `printable`."""
    return text if isinstance(text, Text) else Text(printable(str(text)), style=style)


def say(line: object, style: str = "") -> None:
    """Print a line: not wrapped, not interpreted."""
    CONSOLE.print(plain(line, style), soft_wrap=True)


def note(line: object) -> None:
    """Print what the user should know about a result."""
    say(f"note: {line}", "yellow")


def warn(line: object) -> None:
    """Print what went wrong without ending the command."""
    say(f"warning: {line}", "yellow")


def complain(line: str) -> None:
    """Print a line of `anysense:` on stderr."""
    _to_stderr(f"anysense: {line}")


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
        CONSOLE.print(self)


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
        task = progress.add_task(printable(what), total=total)
        yield lambda: progress.advance(task)


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
                for old in now.values():
                    progress.remove_task(old)
                now.clear()
                now[what] = progress.add_task(printable(what), total=total)
            progress.update(now[what], completed=done, total=total)

        yield show


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _to_stderr(record.getMessage())


def prepare_streams() -> None:
    """Let no character fail to be printed, and show the library's warnings as lines on stderr."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    log = logging.getLogger("anysense")
    if not log.handlers:
        log.addHandler(_Log())


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Show Python's warnings as lines on stderr, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
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

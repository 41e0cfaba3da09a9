"""What native libraries write to the process's stderr, where a call is known to be what makes them."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

LOCK = threading.Lock()
"""Held by whoever turns file descriptor 2 elsewhere, which is the whole process's."""

_catching = False
_away: tuple[int, BinaryIO] | None = None  # of which process; a fork shares the file's place


@contextmanager
def native_lines_caught() -> Iterator[None]:
    """Let `native_lines` take effect in the body.

    For a program, not for a library: what other threads write to stderr waits for the calls that are
    caught, and these run one at a time.
    """
    global _catching
    before, _catching = _catching, True
    try:
        yield
    finally:
        _catching = before


@contextmanager
def native_lines(pattern: re.Pattern[str]) -> Iterator[list[str]]:
    """Lines that match and that native code writes to stderr in the body; they do not appear there.

    All other lines do, after the body.  The list is filled at the end, and stays empty outside of
    `native_lines_caught`, or where there is no stderr.
    """
    found: list[str] = []
    if not _catching:
        yield found
        return
    with LOCK:
        try:
            kept = os.dup(2)
        except OSError:
            yield found
            return
        away = _file()
        try:
            os.dup2(away.fileno(), 2)
            yield found
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            _sort(_written(away), pattern, found)


def _sort(lines: list[bytes], pattern: re.Pattern[str], found: list[str]) -> None:
    for line in lines:
        text = line.decode("utf-8", "replace").strip()
        if pattern.match(text):
            found.append(text)
        else:
            with suppress(OSError):
                os.write(2, line)


def _file() -> BinaryIO:
    global _away
    if _away is None or _away[0] != os.getpid():
        _away = os.getpid(), tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    return _away[1]


def _written(away: BinaryIO) -> list[bytes]:
    """What was written since the last time."""
    if not away.tell():
        return []
    away.seek(0)
    content = away.read()
    away.seek(0)
    away.truncate()
    return content.splitlines(keepends=True)


def _after_fork() -> None:
    """A child begins with a lock that nobody holds."""
    global LOCK
    LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

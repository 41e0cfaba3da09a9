"""Keeping what native libraries write to the process's stderr away from the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO

from perception.files import stderr


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what is written to file descriptor 2, and by Python to stdout, in the body.

    The descriptor is the whole process's: what other threads write there meanwhile is dropped too, so
    the body should be short.
    """
    with stderr.LOCK, tempfile.TemporaryFile() as away, redirect_stdout(StringIO()):
        with suppress(OSError, ValueError, AttributeError):  # closed, or no stream at all
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # a daemon without stderr: there is nothing to keep quiet
            yield
            return
        try:
            os.dup2(away.fileno(), 2)
            yield
        finally:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)

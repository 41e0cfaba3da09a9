"""Keeping a library's own log off stderr while it looks at foreign bytes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from perception.files.stderr import native_lines

# OpenCV 5 moved it
_LOG: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
_SILENT = 0
_LOCK = threading.Lock()
_users = 0
_level: Any = None


_NATIVE = re.compile(
    "Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters|"
    "Unsupported marker type|Unknown Adobe color|Warning: unknown JFIF|libpng (warning|error)"
)


@contextmanager
def quiet_decoders() -> Iterator[list[str]]:
    """`quiet_opencv`, and what libjpeg and libpng write to stderr about a picture, while they go on with it.

    Of these the list is filled at the end; in a program that uses this library it stays empty, and they
    write, see `native_lines`.
    """
    with quiet_opencv(), native_lines(_NATIVE) as lines:
        yield lines


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """No log of OpenCV inside, in any thread; afterwards its level is as it was.

    What is wrong with a file is said by the error that is raised instead.
    """
    global _users, _level
    with _LOCK:
        if _users == 0:
            _level = _LOG.setLogLevel(_SILENT)  # gives the former one
        _users += 1
    try:
        yield
    finally:
        with _LOCK:
            _users -= 1
            if _users == 0:
                _LOG.setLogLevel(_level)

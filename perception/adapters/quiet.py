"""Keeping a library's own log off stderr while it looks at foreign bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

# OpenCV 5 moved it
_LOG: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
_SILENT = 0
_LOCK = threading.Lock()
_users = 0
_level: Any = None


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

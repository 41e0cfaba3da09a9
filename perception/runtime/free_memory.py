"""Memory that is free and stays with the process: the C library's way to give it back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def trimmer() -> Callable[[], object] | None:
    """What gives back the free pages of all arenas (glibc's malloc_trim); None with another C library."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return lambda: trim(0)

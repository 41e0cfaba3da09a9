"""Folders that a command makes for its results: those that it leaves empty when it fails go again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from perception.files.stopping import unstopped

_made: list[Path] = []


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as `Path.mkdir`; see `empty_folders_removed`.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    _made.extend(Path(os.path.abspath(p)) for p in reversed(missing))


@contextlib.contextmanager
def empty_folders_removed() -> Iterator[None]:
    """When the body raises, what `make_folder` made in it and nobody filled is removed."""
    start = len(_made)
    try:
        yield
    except BaseException:
        with unstopped():
            for folder in reversed(_made[start:]):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        raise
    finally:
        del _made[start:]

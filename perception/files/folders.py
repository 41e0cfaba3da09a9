"""Writing folders whole or not at all: filled beside the target, synced, then swapped with it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perception.errors import AnySenseError, DataError
from perception.files.stopping import unstopped
from perception.files.writing import _sync as sync

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def writing_folder(path: str | Path, *, error: type[AnySenseError] = DataError) -> Iterator[Path]:
    """A folder beside `path` to fill; afterwards synced and put in the place of `path`.

    Whenever it is interrupted, by a kill or a full disk as well, `path` is as it was before or holds
    all of the new content.  The swap is one step where the file system can exchange two names (Linux,
    macOS); elsewhere the old folder is moved away first, and the next call brings it back if that was
    all that happened.  What an earlier call left beside when it was killed is removed.  A link stays a
    link, and its target is replaced.

    Raises:
        AnySenseError: of the class `error`: the disk is full, the place cannot be written, or `path` is
            no folder.
    """
    target = Path(path)
    try:
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_dir():
            raise error("exists and is no folder", where=str(path))
        if target.exists() and not os.access(target, os.W_OK):
            raise error("is read-only", where=str(path))
        made: list[Path] = []
        partial: Path | None = None
        handle = -1
        try:
            with unstopped():
                made = _make_parents(target)
                recover(target)
                partial, handle = _locked_folder(target)
            yield partial
            if target.exists():
                os.chmod(partial, stat.S_IMODE(target.stat().st_mode))
            sync_tree(partial)
            with unstopped():
                _swap(partial, target)
                made = []
        finally:
            with unstopped():
                if partial is not None:
                    # After a swap this is what was there before.
                    shutil.rmtree(partial, ignore_errors=True)
                    os.close(handle)
                for folder in reversed(made):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
        sync(target.parent)
    except OSError as problem:
        if problem.filename is not None and not _concerns(problem.filename, target):
            raise
        reason = problem.strerror or problem
        raise error(f"cannot be written: {reason}", where=str(path)) from problem


@contextlib.contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """A new empty folder where the system has such, named after `what`, that is gone afterwards."""
    folder = None
    try:
        with unstopped():
            folder = tempfile.mkdtemp(prefix=f"anysense-{what}-")
        yield Path(folder)
    finally:
        if folder is not None:
            with unstopped():
                shutil.rmtree(folder, ignore_errors=True)


def _concerns(filename: str | bytes, target: Path) -> bool:
    """Whether an error is about what is written, rather than about what is read for it."""
    named = os.fsdecode(filename)
    beside = str(target.with_name(f".{target.name[:80]}."))
    return named.startswith(beside) or target.is_relative_to(named)


def _make_parents(target: Path) -> list[Path]:
    """Make the folders above `target`; returns those that were not there."""
    missing = []
    for folder in target.parents:
        if folder.exists():
            break
        missing.append(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.{kind}")


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the handle whose lock says that it is being filled."""
    while True:
        partial = _beside(target, "part")
        partial.mkdir()
        try:
            handle = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue  # taken for an abandoned one before it could be locked
        fcntl.flock(handle, fcntl.LOCK_EX)
        if partial.exists():  # nor was it taken for one between these two steps
            return partial, handle
        os.close(handle)


def recover(target: Path) -> None:
    """Bring back what a killed swap moved away, and remove what a killed call left half made.

    Folders that another process is filling are held by a lock, and stay.
    """
    pattern = re.compile(rf"\.{re.escape(target.name[:80])}\.[0-9a-f]{{8}}\.(part|old)")
    for path in list(target.parent.iterdir()):
        found = pattern.fullmatch(path.name)
        if not found or not path.is_dir() or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found[1] == "old" and not target.exists():
                    os.rename(path, target)
                else:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have everything in a folder written to the disk."""
    for root, _, files in os.walk(folder):
        for name in files:
            path = Path(root, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(root))


def _swap(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target`, and what was there in the place of `partial`."""
    try:
        os.rename(partial, target)  # where nothing is, or an empty folder
        return
    except OSError as problem:
        if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    try:
        _exchange(partial, target)
    except OSError as problem:
        if problem.errno not in _UNSUPPORTED:
            raise
        old = _beside(target, "old")
        os.rename(target, old)
        try:
            os.rename(partial, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> None:
    """Exchange two names in one step.

    Raises:
        OSError: with one of `_UNSUPPORTED` where the system or the file system cannot.
    """
    library = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(first), os.fsencode(second)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, ctypes.c_uint(_EXCHANGE))
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(a, b, ctypes.c_uint(_EXCHANGE))
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(second))
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(second))

"""Files that decide what is trusted: made for nobody else, and read where nobody else can change them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from perception.errors import AnySenseError, DataError
from perception.files.stopping import unstopped

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def changeable_by_others(path: str | Path) -> str:
    """Who besides this user and root could change what lies at a path, in words; empty for nobody.

    The file and every folder above it are looked at, as `sshd` does with its keys.  In a folder that anybody
    may write to with the sticky bit (`/tmp`), only what is this user's own counts as safe.

    Raises:
        OSError: it cannot be looked at.
    """
    if not hasattr(os, "geteuid"):  # no such rights to look at
        return ""
    real = Path(os.path.realpath(path, strict=True))
    for place in (real, *real.parents):
        state = os.stat(place)
        if state.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to another user"
        sticky = place != real and stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX
        if state.st_mode & _OTHERS and not sticky:
            return f"{place} can be written by others"
    return ""


def private_folder(path: str | Path) -> bool:
    """Make a folder of this user's own, if it is not there; whether nobody else can change what is in it."""
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
        return not changeable_by_others(path)
    except OSError:
        return False


def write_new(
    path: str | Path,
    content: bytes,
    *,
    mode: int = 0o600,
    error: type[AnySenseError] = DataError,
) -> None:
    """Write a file that is not there yet, whole or not at all.

    Args:
        path: the file.
        content: what is to be in it.
        mode: its permissions, from the first byte on.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: there is something already, which stays as it is, or the place
            cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        if os.path.lexists(target):
            raise FileExistsError
        with _created(partial, mode) as handle:
            _fill(handle, content)
        try:
            os.link(partial, target)  # fails where something is, in one step
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with _created(target, mode) as handle:
                _fill(handle, content)
    except FileExistsError as problem:
        raise error("is there already, and is not overwritten", where=str(path)) from problem
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"cannot be written: {reason}", where=str(path)) from problem
    finally:
        with unstopped(), contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _created(path: Path, mode: int) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(handle, mode)  # whatever the umask
        yield handle
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(handle)


def _fill(handle: int, content: bytes) -> None:
    with os.fdopen(os.dup(handle), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)

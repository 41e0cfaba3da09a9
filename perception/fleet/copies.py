"""Copies of recordings from elsewhere, of which all workers of a machine share one.

A folder in the temporary one belongs to all processes of a user; flock(2) tells who uses what, and forgets
those who were killed.  Of each copy there are `KEY.lock`, `KEY.size` (its bytes, before it is there), `KEY/`
and, when it is whole, `KEY.done`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from perception.errors import DataError
from perception.files.private import changeable_by_others
from perception.fleet.places import Place

_FOLDER = "anysense-fleet-copies"
_USERS, _SPACE = "users.lock", "space.lock"
_LOOK_S = 0.5
_SPARE = 0.1
"""Of what the disk could hold, the share that copies leave."""


class Copies:
    """Copies on this machine, as long as any process has use for them.

    Args:
        most_bytes: that all copies together may have; None for nine tenths of what the disk can take.
        root: the folder; by default one in the temporary folder, of this user.

    Raises:
        DataError: the folder cannot be made, or others can change it.
    """

    def __init__(self, most_bytes: int | None = None, root: Path | None = None) -> None:
        self._most = most_bytes
        self._root = root or Path(tempfile.gettempdir()) / f"{_FOLDER}-{os.getuid()}"
        self._users: int | None = self._joined()

    def _joined(self) -> int:
        """The lock of those who use the folder; what dead ones left is removed."""
        while True:
            try:
                self._root.mkdir(mode=0o700, exist_ok=True)
                if others := changeable_by_others(self._root):
                    raise DataError(f"is no place for copies: {others}", where=str(self._root))
                handle = _opened(self._root / _USERS)
            except FileNotFoundError:  # the last one has just removed it
                continue
            except OSError as error:
                what = f"cannot be made: {error.strerror}"
                raise DataError(what, where=str(self._root), hint="another TMPDIR") from error
            if _taken(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):  # nobody else is there
                self._emptied()
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_at(handle, self._root / _USERS):
                return handle
            os.close(handle)

    def _emptied(self) -> None:
        for inner in self._root.iterdir():
            if inner.name != _USERS:
                _removed(inner)

    def close(self) -> None:
        """Let go of the folder; the last one removes it."""
        handle, self._users = self._users, None
        if handle is None:
            return
        if _taken(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_at(handle, self._root / _USERS):
            with contextlib.suppress(OSError):
                self._emptied()
                (self._root / _USERS).unlink()
                self._root.rmdir()
        os.close(handle)

    @contextlib.contextmanager
    def of(self, place: Place, identity: str) -> Iterator[Path]:
        """Where a copy lies while it is used; it is fetched where nobody has done so.

        Args:
            place: elsewhere.
            identity: of its content, see `Place.identity`.

        Raises:
            DataError: it cannot be read, or is more than there is room for.
        """
        key = hashlib.sha256(f"{place.url}\0{identity}".encode()).hexdigest()[:32]
        target, done = self._root / key / place.name, self._root / f"{key}.done"
        handle = _opened(self._root / f"{key}.lock")
        try:
            while True:
                fcntl.flock(handle, fcntl.LOCK_SH)
                if done.exists():
                    break
                fcntl.flock(handle, fcntl.LOCK_EX)  # whoever is first fetches, the others wait here
                if not done.exists():
                    self._fetched(place, key, target)
                    done.touch()
            os.utime(done)
            yield target
        finally:
            os.close(handle)

    def _fetched(self, place: Place, key: str, target: Path) -> None:
        self._forget(key)  # what one who was killed has left
        size = sum(int(info.get("size") or 0) for info in place.files().values())
        try:
            self._make_room(size, key, place)
            target.parent.mkdir(exist_ok=True)
            place.fetch(target)
        except BaseException:
            self._forget(key)
            raise

    def _make_room(self, size: int, key: str, place: Place) -> None:
        """Wait until there is room; copies that nobody uses make it, those used longest ago first."""
        while True:
            with self._alone():
                sizes = self._sizes()
                held, free = sum(sizes.values()), shutil.disk_usage(self._root).free
                most = self._most
                if most is None:
                    most = round((held + free) * (1 - _SPARE))
                if size > most:
                    what = (
                        f"has {size / 1e9:.3g} GB, copies on this machine may have {most / 1e9:.3g}"
                    )
                    raise DataError(
                        what, where=place.url, hint="workers.copies_gb, or another TMPDIR"
                    )
                for old in sorted(sizes, key=self._last_used):
                    if held + size <= most:
                        break
                    if self._evicted(old):
                        held -= sizes[old]
                if held + size <= most:
                    (self._root / f"{key}.size").write_text(str(size))
                    return
            time.sleep(_LOOK_S)  # those who work will let go

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        handle = _opened(self._root / _SPACE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _sizes(self) -> dict[str, int]:
        """Bytes by key, also of what is on its way."""
        found = {}
        for path in self._root.glob("*.size"):
            with contextlib.suppress(OSError, ValueError):
                found[path.stem] = int(path.read_text())
        return found

    def _last_used(self, key: str) -> float:
        with contextlib.suppress(OSError):
            return (self._root / f"{key}.done").stat().st_mtime
        return 0.0  # left by one who was killed, or still on its way

    def _evicted(self, key: str) -> bool:
        """Remove a copy, unless somebody uses it."""
        handle = _opened(self._root / f"{key}.lock")
        try:
            if not _taken(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
            self._forget(key)
            return True
        finally:
            os.close(handle)

    def _forget(self, key: str) -> None:
        for name in (f"{key}.done", key, f"{key}.size"):
            _removed(self._root / name)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _taken(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    with contextlib.suppress(OSError):
        own, there = os.fstat(handle), os.stat(path)
        return bool((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    return False


def _removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

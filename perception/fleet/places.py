"""Folders and files here or anywhere fsspec reaches: whole files in and out, errors of one line."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perception.errors import AnySenseError, ConfigError, DataError
from perception.extras import require
from perception.files.writing import write_bytes

BLOCK = 1 << 20
"""Bytes of a file that are held at a time."""

PASSING = "-shm"
"""How files of sqlite end that reading makes and changes: no part of a recording."""

_MOST_SMALL = 64 << 20
_AT_ONCE = 8
_NO_CREDENTIALS = ("NoCredentials", "PartialCredentials", "DefaultCredentials", "NoAuthToken")
_AMAZON = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"
_STORES = {"s3": _AMAZON, "s3a": _AMAZON, "gs": _GOOGLE, "gcs": _GOOGLE}
"""What has buckets, and where credentials for it come from."""


class UnwritableError(DataError):
    """The place for results takes nothing more: there is no use in working on."""


@dataclass(frozen=True)
class Place:
    """A file or folder.

    Attributes:
        url: a path of this machine, or `PROTOCOL://...`.
        options: of fsspec, by protocol.
    """

    url: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """`file`, `s3`, `gs`, ..."""
        return self.url.partition("://")[0] if "://" in self.url else "file"

    @property
    def local(self) -> Path | None:
        """The path, where it is one of this machine."""
        if self.protocol != "file":
            return None
        return Path(self.url.partition("://")[2] if "://" in self.url else self.url)

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rstrip("/").rpartition("/")[2]

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.url.rstrip('/')}/{name}", self.options)

    def __str__(self) -> str:
        return self.url

    @property
    def system(self) -> Any:
        """Its file system of fsspec.

        Raises:
            ConfigError: there is none for its protocol, or the package for that is not installed.
        """
        require("a fleet", "fsspec")
        import fsspec

        try:
            return fsspec.filesystem(self.protocol, **self.options.get(self.protocol, {}))
        except ImportError as error:
            raise ConfigError(
                f"{self.protocol}:// needs a package that is not installed: {error}", where=self.url
            ) from error
        except ValueError as error:
            raise ConfigError(f"cannot be reached: {error}", where=self.url) from error

    @property
    def path(self) -> str:
        """What its file system calls it."""
        local = self.local
        return self.url if local is None else str(local)

    def write(self, content: bytes) -> None:
        """Write a file whole or not at all, its folder too.

        Raises:
            UnwritableError: it cannot be written.
        """
        local = self.local
        if local is not None:
            with _naming(self, UnwritableError, "written"):
                local.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(local, content, error=UnwritableError, sync=False)
            return
        with _naming(self, UnwritableError, "written"):
            self.system.pipe_file(self.path, content)

    def put(self, source: Path, move: bool = False) -> None:
        """Write a file, or all files of a folder, from this machine.

        Args:
            source: the file or folder.
            move: it is no longer needed: on one file system it is renamed, and not written once more.

        Raises:
            UnwritableError: it cannot be written.
        """
        if self.local is not None and move and source.is_dir():
            self._take(source)
            return
        inner = [source]
        if source.is_dir():
            inner = sorted(p for p in source.rglob("*") if p.is_file())
        names = [p.relative_to(source).as_posix() if p != source else "" for p in inner]
        targets = [self / name if name else self for name in names]
        if self.local is not None:
            for one, target in zip(inner, targets, strict=True):
                target._copy(one)
        elif inner:
            with _naming(self, UnwritableError, "written"):
                self.system.put([*map(str, inner)], [target.path for target in targets])

    def _take(self, source: Path) -> None:
        """Rename the files of a folder into this one; they are copied from another file system."""
        for folder, _, names in os.walk(source):
            into = os.path.normpath(os.path.join(self.path, os.path.relpath(folder, source)))
            if names:
                with _naming(self, UnwritableError, "written"):
                    os.makedirs(into, exist_ok=True)
            for name in sorted(names):
                try:
                    os.replace(f"{folder}/{name}", f"{into}/{name}")
                except OSError:
                    Place(f"{into}/{name}")._copy(Path(folder, name))

    def _copy(self, source: Path) -> None:
        target = self.local
        assert target is not None
        partial = target.with_name(f".{target.name[:80]}.{os.getpid()}.part")
        with _naming(self, UnwritableError, "written"):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, partial)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove a file, or a folder with all that is in it, if there is one.

        Raises:
            UnwritableError: it cannot be removed.
        """
        with _naming(self, UnwritableError, "removed"):
            system = self.system
            system.invalidate_cache()
            if system.exists(self.path):
                system.rm(self.path, recursive=True)

    def read(self, most: int | None = None) -> bytes:
        """A small file.

        Args:
            most: bytes that it may have, 64 MiB unless it is said.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        limit = _MOST_SMALL if most is None else most
        with _naming(self, DataError, "read"):
            size = self.system.info(self.path)["size"]
            if size is not None and size > limit:
                raise DataError(f"has {size} bytes, more than {limit}", where=self.url)
            content: bytes = self.system.cat_file(self.path)
            return content

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Small files of a folder by name, in order; some are on the way while others are looked at.

        Raises:
            DataError: one is not there, or cannot be read.
        """
        ahead: deque[tuple[str, Future[bytes]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for name in names:
                    ahead.append((name, pool.submit((self / name).read)))
                    if len(ahead) > 2 * _AT_ONCE:
                        first, found = ahead.popleft()
                        yield first, found.result()
                while ahead:
                    first, found = ahead.popleft()
                    yield first, found.result()
            finally:
                for _, found in ahead:
                    found.cancel()

    def exists(self) -> bool:
        """Whether there is something.

        Raises:
            DataError: that cannot be told.
        """
        with _naming(self, DataError, "read"):
            system = self.system
            system.invalidate_cache()
            return bool(system.exists(self.path))

    def files(self) -> dict[str, Mapping[str, Any]]:
        """All files below it by their name from here on, sorted, with what the file system knows of them.

        A file alone has the name of nothing.

        Raises:
            DataError: there is nothing, or it cannot be read.
        """
        with _naming(self, DataError, "read"):
            system = self.system
            system.invalidate_cache()
            if not system.exists(self.path):
                raise DataError("no such file or folder", where=self.url)
            if system.isfile(self.path):
                return {"": system.info(self.path)}
            base = system._strip_protocol(self.path).rstrip("/")
            found = system.find(base, detail=True)
            return {
                name[len(base) :].lstrip("/"): info
                for name, info in sorted(found.items())
                if not name.endswith("/")
            }

    def names(self) -> set[str]:
        """Names of the files directly in a folder; none where there is none.

        Raises:
            DataError: it cannot be read.
        """
        with _naming(self, DataError, "read"):
            system = self.system
            system.invalidate_cache()
            if not system.exists(self.path):
                return set()
            return {
                str(n).rstrip("/").rpartition("/")[2] for n in system.ls(self.path, detail=False)
            }

    def glob(self) -> list[Place]:
        """What fits where its path has `*`, `?` or `[...]`, sorted; itself where it has none.

        Raises:
            DataError: it cannot be read.
        """
        if not any(mark in self.url for mark in "*?["):
            return [self]
        if self.local is not None and os.path.lexists(self.local):  # called so
            return [self]
        with _naming(self, DataError, "read"):
            found = sorted(self.system.glob(self.path))
        prefix = "" if self.local is not None else f"{self.protocol}://"
        return [Place(f"{prefix}{name}", self.options) for name in found]

    @property
    def bucket(self) -> str:
        """Of a store the first part of the path, `s3://BUCKET`; nothing elsewhere."""
        if self.protocol not in _STORES:
            return ""
        return f"{self.protocol}://{self.url.partition('://')[2].partition('/')[0]}"

    def look(self) -> None:
        """See whether a store lets us in; that a file is not there is no matter.

        Raises:
            DataError: it cannot be reached, refuses us, or has no such bucket.
        """
        if self.local is None and not self.exists():
            self.check_bucket()

    def check_bucket(self) -> None:
        """Where something is not there, see whether that is for want of the bucket.

        Raises:
            DataError: it is.
        """
        if not self.bucket:
            return
        try:
            self.system.ls(self.bucket, detail=False)
        except FileNotFoundError as error:
            raise DataError(f"no such bucket: {self.bucket}", where=self.url) from error
        except Exception:  # whoever may read files need not be allowed to list them
            return

    def blocks(self) -> Iterator[bytes]:
        """A file's content, `BLOCK` bytes at a time.

        Raises:
            DataError: it cannot be read.
        """
        with _naming(self, DataError, "read"), self.system.open(self.path, "rb") as file:
            while block := file.read(BLOCK):
                yield block

    def fetch(self, target: Path) -> None:
        """Copy a file, or all of a folder, to this machine, a block at a time.

        Raises:
            DataError: it cannot be read, or this machine cannot hold it.
        """
        names = list(self.files())
        for name in names:
            if ".." in name.split("/"):
                raise DataError(f"holds a file called '{name[:80]}'", where=self.url)
        with _naming(self, DataError, "copied here"):
            into = [target / name if name else target for name in names]
            for path in into:
                path.parent.mkdir(parents=True, exist_ok=True)
            own = [(self / name if name else self).path for name in names]
            self.system.get(own, [*map(str, into)])

    def identity(self, by: str) -> str:
        """What changes when the content does, such as `sha256:...`.

        Args:
            by: `content`: SHA-256 of all files and their names; elsewhere, of what the store says of
                them (ETag or checksum, size).  `stat`: sizes and times of change.

        Raises:
            DataError: it cannot be read.
        """
        total = hashlib.sha256()
        listed = by == "stat" or self.local is None
        for name, info in self.files().items():
            if name.endswith(PASSING):
                continue
            total.update(f"{name}\0{info.get('size')}\0".encode())
            if listed:
                total.update(str(_mark(info)).encode())
                continue
            inner = hashlib.sha256()
            for block in (self / name if name else self).blocks():
                inner.update(block)
            total.update(inner.digest())
        return f"{'listed' if listed else 'sha256'}:{total.hexdigest()}"


def _mark(info: Mapping[str, Any]) -> object:
    """What a store says of a file that changes with its content."""
    for name in ("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "updated"):
        if info.get(name):
            return info[name]
    return ""


@contextmanager
def _naming(place: Place, error: type[AnySenseError], done: str) -> Iterator[None]:
    """Turn whatever a file system of fsspec raises into one line."""
    try:
        yield
    except (AnySenseError, MemoryError, GeneratorExit):
        raise
    except Exception as problem:
        reason, hint = _why(place, problem)
        raise error(f"cannot be {done}: {reason}", where=place.url, hint=hint) from problem


def _why(place: Place, problem: Exception) -> tuple[str, str]:
    """What a file system's error means, in one line, and what to do."""
    name = type(problem).__name__
    text = str(getattr(problem, "strerror", None) or problem or name)
    text = " ".join(text.split())[:300]
    if place.local is not None:
        return text, ""
    from_ = _STORES.get(place.protocol, "")
    hint = f"they come from the environment{from_ and f', as {from_}'}"
    if any(word in name for word in _NO_CREDENTIALS):
        return "no credentials were found", hint
    if isinstance(problem, PermissionError):
        return f"the credentials were refused: {text}", hint
    if name == "ProfileNotFound":
        return text, hint.replace("they", "credentials")
    if isinstance(problem, FileNotFoundError) and "bucket" in text.lower():
        return f"no such bucket: {place.bucket or text}", ""
    return text, ""

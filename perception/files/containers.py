"""Folders and zips whose files are read by name: no link is followed, nothing outside is reached.

Files of a zip are read into memory, so that nothing is unpacked that would have to be cleared away.
"""

from __future__ import annotations

import os
import stat
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

from perception.errors import AnySenseError, DataError
from perception.files.archives import open_zip
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_ARCHIVE_FILES
from perception.files.listing import is_file, is_folder, is_link, is_there

_LONGEST_NAME = 255
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
# What the platform has of: no link at the end, no waiting for the other end of a pipe.
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_OPEN |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def stays_inside(name: str) -> bool:
    """Whether `name` is a plain relative path with `/` between its parts: no `..`, drive or stream."""
    parts = name.split("/")
    return (
        len(name) <= _LONGEST_NAME
        and name.isprintable()
        and not any(c in name for c in "\\:")
        and all(part not in ("", ".", "..") and part == part.strip() for part in parts)
    )


class Container(ABC):
    """Files by name.

    Attributes:
        path: of the folder or zip.
        error: the class of what is raised.
    """

    def __init__(self, path: Path, error: type[AnySenseError] = DataError) -> None:
        self.path, self.error = path, error

    def where(self, name: str) -> str:
        """How a file is called in messages."""
        return f"{self.path}/{name}"

    @abstractmethod
    def read(self, name: str, limit: int = MAX_ARCHIVE_BYTES) -> bytes:
        """The content of a file.

        Raises:
            AnySenseError: of the class `error`: it is missing, a link, no regular file, larger than
                `limit`, or its name leads outside.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            AnySenseError: of the class `error`: as `read`.
        """

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the regular files directly in a folder of it, newest first; none without it.

        Raises:
            AnySenseError: of the class `error`: the folder is a link, or holds too many files.
        """

    @abstractmethod
    def everything(self) -> list[str]:
        """Names of all files and links in it, in folders of it too, sorted.

        What lies in a zip beside the folder that is taken for the whole begins with `../`.

        Raises:
            AnySenseError: of the class `error`: there are too many, or a folder cannot be listed.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file, be it one that `read` refuses, as a link, and no folder."""

    def _check(self, name: str) -> None:
        if not stays_inside(name):
            raise self.error(f"'{name}' leads outside", where=str(self.path))


class Folder(Container):
    """A folder.  It may be a link itself, since that is the user's own; what is in it may not."""

    def read(self, name: str, limit: int = MAX_ARCHIVE_BYTES) -> bytes:
        where = self.where(name)
        handle = self._open(name)
        try:
            size = os.fstat(handle).st_size
            if size > limit:
                raise self.error(f"{size} bytes, more than the limit of {limit}", where=where)
            with os.fdopen(os.dup(handle), "rb") as file:
                content = file.read(limit + 1)  # a file may grow meanwhile
        except OSError as problem:
            raise self.error(f"cannot be read: {problem.strerror}", where=where) from problem
        finally:
            os.close(handle)
        if len(content) > limit:
            raise self.error(f"more bytes than the limit of {limit}", where=where)
        return content

    def size(self, name: str) -> int:
        handle = self._open(name)
        try:
            return os.fstat(handle).st_size
        finally:
            os.close(handle)

    def has(self, name: str) -> bool:
        if not stays_inside(name):
            return False
        place = self.path / name
        return is_link(place) or (is_there(place) and not is_folder(place))

    def names(self, folder: str) -> list[str]:
        self._check(folder)
        self._refuse_links(folder)
        root = self.path / folder
        if not is_folder(root):
            return []
        found: list[tuple[int, str]] = []
        try:
            with os.scandir(root) as entries:
                for count, entry in enumerate(entries, 1):
                    if count > MAX_ARCHIVE_FILES:
                        raise self.error(f"more than {MAX_ARCHIVE_FILES} files", where=str(root))
                    if entry.is_symlink():
                        raise self.error("is a link", where=str(root / entry.name))
                    if entry.is_file(follow_symlinks=False):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        except OSError as problem:
            raise self.error(f"cannot be listed: {problem.strerror}", where=str(root)) from problem
        return [f"{folder}/{name}" for _, name in sorted(found, reverse=True)]

    def everything(self) -> list[str]:
        found, folders = list[str](), [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.path / folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{folder}{entry.name}/")
                        else:
                            found.append(f"{folder}{entry.name}")
                        if len(found) + len(folders) > MAX_ARCHIVE_FILES:
                            raise self.error(
                                f"more than {MAX_ARCHIVE_FILES} files", where=str(self.path)
                            )
            except OSError as problem:
                where = self.where(folder)
                raise self.error(f"cannot be listed: {problem.strerror}", where=where) from problem
        return sorted(found)

    def _open(self, name: str) -> int:
        self._check(name)
        self._refuse_links(name)
        where = self.where(name)
        try:
            handle = os.open(self.path / name, _OPEN)
        except FileNotFoundError as problem:
            raise self.error("file is missing", where=where) from problem
        except OSError as problem:
            raise self.error(f"cannot be read: {problem.strerror}", where=where) from problem
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise self.error("is no regular file", where=where)
        return handle

    def _refuse_links(self, name: str) -> None:
        place = self.path
        for part in name.split("/"):
            place = place / part
            if is_link(place):
                raise self.error("is a link", where=str(place))


class Zip(Container):
    """A zip; where all its files lie in one folder, that folder is taken for the whole.

    Args:
        path: the file.
        marker: the name of a file that tells which folder it is.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: it is no zip, damaged, or lacks the marker.
    """

    def __init__(self, path: Path, marker: str, error: type[AnySenseError] = DataError) -> None:
        super().__init__(path, error)
        if not is_zip(path):
            raise error("is a file, but no zip", where=str(path))
        with open_zip(path, error=error) as archive:
            places = [n.rpartition("/") for n in archive.namelist()]
        roots = {folder + slash for folder, slash, n in places if n == marker and "/" not in folder}
        if "" not in roots and len(roots) != 1:
            raise error(f"no {marker}", where=str(path))
        self._root = "" if "" in roots else roots.pop()

    def read(self, name: str, limit: int = MAX_ARCHIVE_BYTES) -> bytes:
        with open_zip(self.path, error=self.error) as archive:
            member = self._member(archive, name)
            if member.file_size > limit:
                raise self.error(
                    f"{member.file_size} bytes, more than the limit of {limit}",
                    where=self.where(name),
                )
            return archive.read(member)

    def size(self, name: str) -> int:
        with open_zip(self.path, error=self.error) as archive:
            return self._member(archive, name).file_size

    def has(self, name: str) -> bool:
        with open_zip(self.path, error=self.error) as archive:
            return stays_inside(name) and self._root + name in archive.namelist()

    def names(self, folder: str) -> list[str]:
        self._check(folder)
        start = f"{self._root}{folder}/"
        with open_zip(self.path, error=self.error) as archive:
            found = [
                (member.date_time, member.filename.removeprefix(self._root))
                for member in archive.infolist()
                if member.filename.startswith(start)
                and "/" not in member.filename.removeprefix(start)
                and not member.is_dir()
            ]
        return [name for _, name in sorted(found, reverse=True)]

    def everything(self) -> list[str]:
        with open_zip(self.path, error=self.error) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
        inside = [n.removeprefix(self._root) for n in names if n.startswith(self._root)]
        return sorted([*inside, *(f"../{n}" for n in names if not n.startswith(self._root))])

    def _member(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        self._check(name)
        try:
            member = archive.getinfo(self._root + name)
        except KeyError as problem:
            raise self.error("file is missing", where=self.where(name)) from problem
        if member.is_dir():
            raise self.error("is no regular file", where=self.where(name))
        return member


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does: others may hold one somewhere, as databases can."""
    try:
        if not is_file(path):
            return False
        with path.open("rb") as file:
            return file.read(4) in _ZIP_BEGINS
    except (OSError, ValueError):
        return False

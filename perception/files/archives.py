"""Zip archives of any origin: checked as a whole before a byte is unpacked."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_ARCHIVE_FILES


@contextmanager
def open_zip(
    path: str | Path | IO[bytes],
    *,
    limit: int = MAX_ARCHIVE_BYTES,
    where: str = "",
    error: type[AnySenseError] = DataError,
) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose members are few, bounded, not encrypted, and lie inside.

    What fails while its members are read inside the `with` block is turned into `error` too.

    Args:
        path: the file, or its content as a file object.
        limit: bytes of all members, unpacked.
        where: names it in errors; its path when empty.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`.
    """
    where = where or (str(path) if isinstance(path, str | Path) else "")
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, limit, where, error)
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        UnicodeDecodeError,
    ) as problem:
        raise error(f"damaged zip: {problem}", where=where) from problem
    except (NotImplementedError, RuntimeError) as problem:
        # Compression methods that Python lacks, passwords
        raise error(f"zip cannot be unpacked: {problem}", where=where) from problem
    except OSError as problem:
        reason = problem.strerror or problem
        raise error(f"cannot be unpacked: {reason}", where=where) from problem


def _check(archive: zipfile.ZipFile, limit: int, where: str, error: type[AnySenseError]) -> None:
    members = archive.infolist()
    if len(members) > MAX_ARCHIVE_FILES:
        raise error(f"zip of {len(members)} files, more than {MAX_ARCHIVE_FILES}", where=where)
    if sum(m.file_size for m in members) > limit:
        raise error(f"unzips to more than {limit} bytes", where=where)
    names: set[str] = set()
    for member in members:
        parts = PurePosixPath(member.filename)
        if parts.is_absolute() or ".." in parts.parts or "\\" in member.filename:
            raise error(f"'{member.filename}' leads outside the archive", where=where)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise error(f"'{member.filename}' is a link", where=where)
        if member.header_offset < 0:
            raise error("damaged zip: a member begins before the file", where=where)
        if member.flag_bits & 1:
            raise error(f"'{member.filename}' is encrypted", where=where)
        if member.filename in names:
            raise error(f"'{member.filename}' is there twice", where=where)
        names.add(member.filename)

"""The files of a ROS 2 bag: an MCAP or sqlite3 file, or a rosbag2 folder of them, compressed or not."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from perception.bags.decompress import unpack, unpack_stream
from perception.bags.mcap import MAGIC, Channel, McapFile, Recorded
from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_ARRAY_BYTES
from perception.files.text import read_yaml

_SQLITE, _ROS1, _ZSTD = b"SQLite format 3\0", b"#ROSBAG V", b"\x28\xb5\x2f\xfd"
_METADATA = "metadata.yaml"
_STORAGES = (".mcap", ".db3")


@dataclass
class Bag:
    """An open bag.

    Attributes:
        path: as given.
    """

    path: Path
    _files: list[McapFile | _SqliteFile] = field(default_factory=list)
    _message_coding: str = ""

    @property
    def channels(self) -> list[Channel]:
        """The topics; several entries for one topic when it has several types."""
        return list(dict.fromkeys(c for file in self._files for c in file.channels.values()))

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """The messages of `topics` (None for all) in order of recording.

        Raises:
            DataError: damaged, or more than the limits allow.
        """
        with _naming(self.path):
            for file in self._files:
                for channel, stamp, data in file.messages(topics):
                    if self._message_coding:
                        coding, where = self._message_coding, str(self.path)
                        data = bytes(unpack(data, coding, MAX_ARRAY_BYTES, where=where))
                    yield channel, stamp, data


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag; what is unpacked for that goes away at the end.

    Args:
        path: a rosbag2 folder, or one of its storage files.

    Raises:
        DataError: there is none, it is one of ROS 1, cut off or damaged; the line says which.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="anysense-bag-") as folder:
        with _naming(path):
            files, coding = _files_of(path)
            bag = Bag(path, _message_coding=coding)
            for number, file in enumerate(files):
                bag._files.append(_open(_plain(file, Path(folder) / f"{number}")))
        try:
            yield bag
        finally:
            for opened in bag._files:
                opened.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what the file system, sqlite and the decompressors raise into one line about the bag."""
    try:
        yield
    except AnySenseError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be read as a bag: {reason}", where=str(path)) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # its own message may quote damaged text
        raise DataError(
            f"cannot be read as a bag: {error}",
            where=str(path),
            hint="a recording that was cut off: try `sqlite3 FILE .recover`",
        ) from error
    except MemoryError as error:
        raise DataError("cannot be read as a bag: not enough memory", where=str(path)) from error


def _files_of(path: Path) -> tuple[list[Path], str]:
    """The storage files of a bag, and with what its messages are compressed one by one."""
    if not path.exists():
        raise DataError("no such bag", where=str(path))
    if not path.is_dir():
        return [path], ""
    if not (path / _METADATA).is_file():
        held = [p for p in path.iterdir() if any(s in p.suffixes for s in _STORAGES)]
        raise DataError(
            f"cannot be read as a bag: no {_METADATA} in this folder",
            where=str(path),
            hint=f"`ros2 bag reindex {path}` writes it" if held else "expected a rosbag2 folder",
        )
    where = path / _METADATA
    content = read_yaml(where)
    info = content.get("rosbag2_bagfile_information") if isinstance(content, dict) else None
    names = info.get("relative_file_paths") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(names, list) or not names:
        raise DataError("names no file of a bag (relative_file_paths)", where=str(where))
    files = [path / PurePath(str(name)).name for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"names {file.name}, which is not there", where=str(where))
    by_message = str(info.get("compression_mode", "")).lower() == "message"
    return files, str(info.get("compression_format", "")) if by_message else ""


def _plain(file: Path, unpacked: Path) -> Path:
    """The file itself, or what is in it when it is compressed as a whole."""
    if _start(file)[:4] != _ZSTD:
        return file
    size = 0
    with file.open("rb") as source, unpacked.open("wb") as target:
        for piece in unpack_stream(source, "zstd", where=str(file)):
            size += target.write(piece)
            if size > MAX_ARCHIVE_BYTES:
                raise DataError(
                    f"unpacks to more than {MAX_ARCHIVE_BYTES} bytes",
                    where=str(file),
                    hint="unpack it with zstd -d",
                )
    return unpacked


def _start(file: Path) -> bytes:
    if not file.is_file():
        raise DataError("cannot be read as a bag: is no regular file", where=str(file))
    with file.open("rb") as opened:
        return opened.read(16)


def _open(file: Path) -> McapFile | _SqliteFile:
    start = _start(file)
    if start.startswith(_ROS1):
        raise DataError(
            "is a bag of ROS 1, expected ROS 2",
            where=str(file),
            hint=f"`rosbags-convert --src {file.name} --dst FOLDER` makes one of ROS 2",
        )
    if start.startswith(_SQLITE):
        return _SqliteFile(file)
    if not start.startswith(MAGIC):
        found = "is empty" if not start else "is neither MCAP nor sqlite3"
        raise DataError(f"cannot be read as a bag: {found}", where=str(file))
    mcap = McapFile(file)
    if mcap.profile == "ros1" or any(c.encoding == "ros1" for c in mcap.channels.values()):
        raise DataError(
            "is an MCAP file of ROS 1 messages, expected ROS 2",
            where=str(file),
            hint="convert the .bag it was made from with rosbags-convert",
        )
    return mcap


class _SqliteFile:
    """The sqlite3 storage of rosbag2."""

    def __init__(self, path: Path) -> None:
        # Opened as if it could not change, nothing is written beside it; but what a recorder that was
        # killed has left in its write-ahead log can only be read without that.
        log = path.with_name(f"{path.name}-wal")
        fixed = "" if log.is_file() and log.stat().st_size else "&immutable=1"
        uri = f"file:{quote(str(path.absolute()))}?mode=ro{fixed}"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._database.text_factory = lambda text: text.decode("utf-8", "replace")
        self._path = path
        for table in ("topics", "messages"):
            self._check(table)
        rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics")
        self.channels = {number: Channel(*map(str, rest)) for number, *rest in rows}

    def _check(self, table: str) -> None:
        """Views and computed columns could give rows without end."""
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        (found,) = self._database.execute(query, (table,)).fetchone()
        columns = self._database.execute(f"PRAGMA table_xinfo({table})").fetchall()
        if not found or any(hidden for *_, hidden in columns):
            raise DataError(
                f"cannot be read as a bag: has no table of {table}", where=str(self._path)
            )

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """As `McapFile.messages`."""
        wanted = [n for n, c in self.channels.items() if topics is None or c.topic in topics]
        for number, stamp, data in self._rows(wanted):
            if not isinstance(stamp, int) or not isinstance(data, bytes):
                raise DataError(
                    "cannot be read as a bag: a message without time or content",
                    where=str(self._path),
                )
            yield self.channels[number], stamp, data

    def _rows(self, numbers: Iterable[Any]) -> Iterator[tuple[Any, Any, Any]]:
        marks = list(numbers)
        query = (
            "SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN "
            f"({','.join('?' * len(marks))}) ORDER BY timestamp"
        )
        yield from self._database.execute(query, marks)

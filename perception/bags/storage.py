"""The files of a ROS 2 bag: an MCAP or sqlite3 file, or a rosbag2 folder of them, compressed or not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import BinaryIO

from perception.bags.decompress import unpack, unpack_stream
from perception.bags.mcap import ALWAYS, MAGIC, Channel, McapFile, Recorded, Within
from perception.bags.sqlite import FAULTS, SqliteFile, unnamed_file
from perception.bags.sqlite import MAGIC as SQLITE_MAGIC
from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_ARRAY_BYTES
from perception.files.text import read_yaml

_ROS1, _ZSTD = b"#ROSBAG V", b"\x28\xb5\x2f\xfd"
_METADATA = "metadata.yaml"
_STORAGES = (".mcap", ".db3")


@dataclass
class Bag:
    """An open bag.

    Attributes:
        path: as given.
    """

    path: Path
    _files: list[McapFile | SqliteFile] = field(default_factory=list)
    _message_coding: str = ""

    @property
    def channels(self) -> list[Channel]:
        """The topics; several entries for one topic when it has several types."""
        return list(dict.fromkeys(c for file in self._files for c in file.channels.values()))

    def messages(
        self,
        topics: Collection[str] | None = None,
        *,
        hinted: bool = False,
        within: Within = ALWAYS,
    ) -> Iterator[Recorded]:
        """The messages of `topics` (None for all) in order of recording.

        Args:
            topics: only these.
            hinted: leave out the parts that by the bag's own index have none of them.
            within: only those recorded from the first of these times on, before the second.

        Raises:
            DataError: damaged, or more than the limits allow; of a part of the time, a part of the file that
                claims to be of another one.
        """
        with _naming(self.path):
            for file in self._files:
                found = file.messages(topics, hinted=hinted, within=within)
                yield from map(self._plain, found)

    def span(self) -> tuple[int, int] | None:
        """Times of the first and the last message, in nanoseconds.

        None where the bag has no messages, or they are in no order of time from start to end: it can then
        be played as a whole only.
        """
        with _naming(self.path):
            spans = [file.span() for file in self._files]
        known = [span for span in spans if span is not None]
        in_turn = all(one[1] <= other[0] for one, other in pairwise(known))
        if not known or len(known) < len(spans) or not in_turn:
            return None
        return known[0][0], known[-1][1]

    def filled(self, start_ns: int, length_ns: int) -> list[int]:
        """Steps of a length, counted from a time, that hold messages, in order; a few of others with them.

        Raises:
            DataError: damaged.
        """
        with _naming(self.path):
            return sorted({s for file in self._files for s in file.filled(start_ns, length_ns)})

    def last_before(self, topic: str, when_ns: int, count: int) -> list[Recorded]:
        """The last messages of a topic that were recorded before a time, at most `count`, in order of it.

        Raises:
            DataError: as `messages`.
        """
        found: list[Recorded] = []
        with _naming(self.path):
            for file in reversed(self._files):
                if len(found) < count:
                    found = [*file.last_before(topic, when_ns, count - len(found)), *found]
        return list(map(self._plain, found))

    def _plain(self, message: Recorded) -> Recorded:
        if not self._message_coding:
            return message
        channel, stamp, data = message
        coding, where = self._message_coding, str(self.path)
        return channel, stamp, bytes(unpack(data, coding, MAX_ARRAY_BYTES, where=where))


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag; what is unpacked for that lies in files without a name, and goes with the process.

    Args:
        path: a rosbag2 folder, or one of its storage files.

    Raises:
        DataError: there is none, it is one of ROS 1, cut off or damaged; the line says which.
    """
    path = Path(path)
    with ExitStack() as opened:
        with _naming(path):
            files, coding = _files_of(path)
            bag = Bag(path, _message_coding=coding)
            for file in files:
                unpacked = _unpacked(file)
                if unpacked is not None:
                    opened.enter_context(unpacked)
                bag._files.append(_open(file, unpacked))
                opened.callback(bag._files[-1].close)
        yield bag


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
    except FAULTS as error:
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


def _unpacked(file: Path) -> BinaryIO | None:
    """The content of a file that is compressed as a whole; None of others."""
    if _start(file)[:4] != _ZSTD:
        return None
    target = unnamed_file()
    try:
        size = 0
        with file.open("rb") as source:
            for piece in unpack_stream(source, "zstd", where=str(file)):
                size += target.write(piece)
                if size > MAX_ARCHIVE_BYTES:
                    raise DataError(
                        f"unpacks to more than {MAX_ARCHIVE_BYTES} bytes",
                        where=str(file),
                        hint="unpack it with zstd -d",
                    )
        target.flush()
    except BaseException:
        target.close()
        raise
    return target


def _start(file: Path) -> bytes:
    if not file.is_file():
        raise DataError("cannot be read as a bag: is no regular file", where=str(file))
    with file.open("rb") as opened:
        return opened.read(16)


def _open(file: Path, unpacked: BinaryIO | None = None) -> McapFile | SqliteFile:
    if unpacked is None:
        start = _start(file)
    else:
        unpacked.seek(0)
        start = unpacked.read(16)
    if start.startswith(_ROS1):
        raise DataError(
            "is a bag of ROS 1, expected ROS 2",
            where=str(file),
            hint=f"`rosbags-convert --src {file.name} --dst FOLDER` makes one of ROS 2",
        )
    if start.startswith(SQLITE_MAGIC):
        return SqliteFile(file, unpacked)
    if not start.startswith(MAGIC):
        found = "is empty" if not start else "is neither MCAP nor sqlite3"
        raise DataError(f"cannot be read as a bag: {found}", where=str(file))
    mcap = McapFile(file, unpacked)
    if mcap.profile == "ros1" or any(c.encoding == "ros1" for c in mcap.channels.values()):
        raise DataError(
            "is an MCAP file of ROS 1 messages, expected ROS 2",
            where=str(file),
            hint="convert the .bag it was made from with rosbags-convert",
        )
    return mcap

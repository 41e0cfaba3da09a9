"""MCAP files of any origin (https://mcap.dev/spec): what is in them, and their messages in order of time.

The file's records are walked from start to end, so that nothing hangs on an index that may be missing or
wrong; chunks are unpacked one at a time, never to more than they claim and the limits allow.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from perception.bags.decompress import unpack
from perception.errors import DataError
from perception.files.limits import MAX_ARRAY_BYTES, MAX_STEPS

MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX, _ATTACHMENT = 1, 2, 3, 4, 5, 6, 7, 9
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_NUMBER = struct.Struct("<Q")
Within = tuple[int, int]
"""Times of recording: the first one, and the one behind the last, in nanoseconds."""

ALWAYS: Within = (-(1 << 63), 1 << 64)
_NARROW = 16
"""Steps of time that a chunk may claim to touch, and is believed unseen."""

_CUT_OFF = "ends early, as when a recording is killed"


@dataclass(frozen=True)
class Channel:
    """A topic of the file.

    Attributes:
        topic: its name.
        type: its message type.
        encoding: of the messages; `cdr` for ROS 2.
    """

    topic: str
    type: str
    encoding: str


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk's compressed records lie, and what its header and the index behind it claim."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    coding: str
    offset: int
    packed: int
    indexed: set[int] = field(default_factory=set)  # channels


Recorded = tuple[Channel, int, bytes]
"""A message: its channel, when it was recorded, and its bytes."""

_Found = tuple[Channel, int, memoryview | bytes]


@dataclass
class McapFile:
    """An open MCAP file.

    Attributes:
        path: the file, or what errors name it by.
        content: its content when it lies in no file of that name.
        profile: as its header says, `ros2` or `ros1` for recordings of ROS.
        channels: its topics by channel id.

    Raises:
        DataError: it is no MCAP file, cut off or damaged.
    """

    path: Path
    content: BinaryIO | None = None
    profile: str = ""
    channels: dict[int, Channel] = field(default_factory=dict)
    _schemas: dict[int, str] = field(default_factory=dict)
    _chunks: list[_Chunk] = field(default_factory=list)
    _loose: bool = False  # messages outside of chunks
    _data_start: int = len(MAGIC)

    def __post_init__(self) -> None:
        with self._reading() as file:
            self._walk(file)
            for chunk in (
                () if self.channels else self._chunks
            ):  # no summary: they are in the chunks
                for kind, content in self._unpacked(file, chunk):
                    self._define(kind, content)

    def messages(
        self,
        topics: Collection[str] | None = None,
        *,
        hinted: bool = False,
        within: Within = ALWAYS,
    ) -> Iterator[Recorded]:
        """Messages with the time they were recorded at; in order of it where all lie in chunks.

        Args:
            topics: only these.
            hinted: chunks whose index names only other topics are not unpacked.
            within: only those recorded from the first of these times on, before the second; chunks that
                claim to lie outside are not unpacked.

        Raises:
            DataError: damaged, or more than the limits allow at once; or a chunk that is unpacked for a
                part of the time has messages of other times than it claims.
        """
        begin, end = within
        with self._reading() as file:
            chunks = [
                c
                for c in self._chunks
                if (not hinted or self._may_have(c, topics))
                and begin <= c.end_ns
                and c.start_ns < end
            ]
            by_time = self._in_time_order(file, chunks, topics, honest=within != ALWAYS)
            found = self._in_file_order(file) if self._loose else by_time
            for channel, stamp, data in found:
                if (topics is None or channel.topic in topics) and begin <= stamp < end:
                    yield channel, stamp, bytes(data)

    def span(self) -> tuple[int, int] | None:
        """Times of the first and last message, as chunks claim them.

        None where there is none, or messages may lie outside of chunks, in no order of time.
        """
        if self._loose or not self._chunks:
            return None
        return min(c.start_ns for c in self._chunks), max(c.end_ns for c in self._chunks)

    def filled(self, start_ns: int, length_ns: int) -> set[int]:
        """Steps of a length, counted from a time, without which no message would be read.

        Some may be without messages: as chunks claim, unless one claims more than `_NARROW` steps, as where
        the recorder's clock was set in the midst of it; that one is unpacked.

        Raises:
            DataError: a chunk that is unpacked is damaged.
        """
        found: set[int] = set()
        with self._reading() as file:
            for chunk in self._chunks:
                first = (chunk.start_ns - start_ns) // length_ns
                last = (chunk.end_ns - start_ns) // length_ns
                if last - first < _NARROW:
                    found.update(range(first, last + 1))
                    continue
                stamps = self._stamps(file, chunk)
                own = {(stamp - start_ns) // length_ns for stamp in stamps}
                found |= {first, last} | {step for step in own if first < step < last}
        return found

    def _stamps(self, file: BinaryIO, chunk: _Chunk) -> Iterator[int]:
        for kind, content in self._unpacked(file, chunk):
            if kind == _MESSAGE:
                yield self._fields(_MESSAGE_HEAD, content)[2]

    def last_before(self, topic: str, when_ns: int, count: int) -> list[Recorded]:
        """The last messages of a topic that were recorded before a time, in order of it.

        Chunks are unpacked from the last one back until there are enough.

        Raises:
            DataError: as `messages`.
        """
        found: list[Recorded] = []
        chunks = sorted(self._chunks, key=lambda c: c.end_ns, reverse=True)
        with self._reading() as file:
            for chunk in chunks:
                if chunk.start_ns >= when_ns or not self._may_have(chunk, {topic}):
                    continue
                if len(found) >= count and chunk.end_ns < found[0][1]:
                    break
                held = self._in_time_order(file, [chunk], {topic}, honest=True)
                own = [(c, stamp, bytes(data)) for c, stamp, data in held if stamp < when_ns]
                found = sorted((*own, *found), key=lambda message: message[1])[-count:]
        return found

    def close(self) -> None:
        """Nothing to do: the file is open only while it is read."""

    def _reading(self) -> AbstractContextManager[BinaryIO]:
        return self.path.open("rb") if self.content is None else nullcontext(self.content)

    def _walk(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            raise self._error("is no MCAP file")
        ended = False
        while not ended:
            kind, length = self._record(file, size)
            start = file.tell()
            if kind == _HEADER:
                (self.profile, _), _ = self._strings(self._content(file, length), 2)
            elif kind in (_SCHEMA, _CHANNEL):
                self._define(kind, self._content(file, length))
            elif kind == _CHUNK:
                self._note_chunk(file, length)
            elif kind == _INDEX and self._chunks:
                self._chunks[-1].indexed.add(int.from_bytes(file.read(min(length, 2)), "little"))
            self._loose |= kind == _MESSAGE
            ended = kind == _FOOTER
            file.seek(start + length)
        if file.read(len(MAGIC)) != MAGIC:
            raise self._cut_off()

    def _record(self, file: BinaryIO, size: int) -> tuple[int, int]:
        """The kind and length of the record that begins here; its content must lie in the file."""
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            raise self._cut_off()
        kind, length = _RECORD.unpack(head)
        if kind == 0:
            raise self._error("is damaged, or was never written in part")
        if file.tell() + length > size:
            raise self._cut_off()
        if length > MAX_ARRAY_BYTES and kind != _ATTACHMENT:
            raise self._error(f"has a record of {length} bytes, more than {MAX_ARRAY_BYTES}")
        return kind, length

    def _content(self, file: BinaryIO, length: int) -> memoryview:
        content = file.read(length)
        if len(content) != length:
            raise self._cut_off()
        return memoryview(content)

    def _define(self, kind: int, content: memoryview) -> None:
        if kind == _SCHEMA:
            (number,) = self._fields(struct.Struct("<H"), content)
            (name,), _ = self._strings(content[2:], 1)
            self._schemas[number] = name
        elif kind == _CHANNEL:
            number, schema = self._fields(struct.Struct("<HH"), content)
            (topic, encoding), _ = self._strings(content[4:], 2)
            self.channels[number] = Channel(topic, self._schemas.get(schema, ""), encoding)

    def _note_chunk(self, file: BinaryIO, length: int) -> None:
        # The coding's name is short: what follows the fixed fields needs no more than this.
        start = file.tell()
        head = memoryview(file.read(min(length, 256)))
        begin, end, size, crc = self._fields(_CHUNK_HEAD, head)
        (coding,), at = self._strings(head[_CHUNK_HEAD.size :], 1)
        at += _CHUNK_HEAD.size
        (packed,) = self._fields(_NUMBER, head[at:])
        at += 8
        if at + packed > length:
            raise self._error("has a chunk that is longer than its record")
        if size > MAX_ARRAY_BYTES:
            raise self._error(f"has a chunk of {size} bytes, more than {MAX_ARRAY_BYTES}")
        self._chunks.append(_Chunk(begin, end, size, crc, coding, start + at, packed))

    def _unpacked(self, file: BinaryIO, chunk: _Chunk) -> Iterator[tuple[int, memoryview]]:
        """The records in a chunk."""
        file.seek(chunk.offset)
        packed = self._content(file, chunk.packed)
        content = unpack(packed, chunk.coding, chunk.size, where=str(self.path))
        if len(content) != chunk.size or (chunk.crc and zlib.crc32(content) != chunk.crc):
            raise self._error("has a chunk whose content is not what was written")
        view, place = memoryview(content), 0
        while place < len(view):
            kind, length = self._fields(_RECORD, view[place : place + _RECORD.size])
            place += _RECORD.size
            if length > len(view) - place:
                raise self._error("has a record that is longer than its chunk")
            yield kind, view[place : place + length]
            place += length

    def _message(self, content: memoryview) -> _Found:
        number, _, stamp, _ = self._fields(_MESSAGE_HEAD, content)
        if number not in self.channels:
            raise self._error(f"has a message of channel {number}, which it does not define")
        return self.channels[number], stamp, content[_MESSAGE_HEAD.size :]

    def _in_file_order(self, file: BinaryIO) -> Iterator[_Found]:
        size = file.seek(0, 2)
        chunks = iter(self._chunks)
        kind, place = 0, len(MAGIC)
        while kind != _FOOTER:
            file.seek(place)
            kind, length = self._record(file, size)
            place = file.tell() + length
            if kind == _MESSAGE:
                yield self._message(self._content(file, length))
            elif kind == _CHUNK:
                for inner, content in self._unpacked(file, next(chunks)):
                    self._define(inner, content)
                    if inner == _MESSAGE:
                        yield self._message(content)

    def _may_have(self, chunk: _Chunk, topics: Collection[str] | None) -> bool:
        """Whether a chunk has messages of these topics, as far as its index tells."""
        if topics is None or not chunk.indexed:
            return True
        unknown = chunk.indexed - set(self.channels)
        return bool(unknown) or any(self.channels[n].topic in topics for n in chunk.indexed)

    def _in_time_order(
        self,
        file: BinaryIO,
        chunks: list[_Chunk],
        topics: Collection[str] | None,
        *,
        honest: bool = False,
    ) -> Iterator[_Found]:
        """Merge the chunks, which may overlap in time; of equal times the first written comes first.

        Where some are left out for the times that they claim, those of the others must be right (`honest`).
        """
        waiting: list[tuple[int, int, Channel, bytes]] = []
        held = number = 0
        for chunk in sorted(chunks, key=lambda c: c.start_ns):
            while waiting and waiting[0][0] < chunk.start_ns:
                stamp, _, channel, data = heapq.heappop(waiting)
                held -= len(data)
                yield channel, stamp, data
            if held + chunk.size > MAX_ARRAY_BYTES:
                raise self._error(f"has chunks of one time with more than {MAX_ARRAY_BYTES} bytes")
            for kind, content in self._unpacked(file, chunk):
                self._define(kind, content)
                if kind != _MESSAGE:
                    continue
                channel, stamp, found = self._message(content)
                if honest and not chunk.start_ns <= stamp <= chunk.end_ns:
                    raise self._error(
                        f"has a message of {stamp} ns in a chunk of {chunk.start_ns} to {chunk.end_ns} ns"
                    )
                if topics is None or channel.topic in topics:
                    heapq.heappush(waiting, (stamp, number, channel, bytes(found)))
                    number, held = number + 1, held + len(found)
            if len(waiting) > MAX_STEPS:
                raise self._error(f"has chunks of one time with more than {MAX_STEPS} messages")
        while waiting:
            stamp, _, channel, data = heapq.heappop(waiting)
            yield channel, stamp, data

    def _fields(self, layout: struct.Struct, content: memoryview) -> tuple[int, ...]:
        if len(content) < layout.size:
            raise self._error("has a record that is too short")
        return layout.unpack(content[: layout.size])

    def _strings(self, content: memoryview, count: int) -> tuple[list[str], int]:
        """So many strings at the beginning, and where they end."""
        found, place = [], 0
        for _ in range(count):
            (length,) = self._fields(struct.Struct("<I"), content[place : place + 4])
            place += 4
            if length > len(content) - place:
                raise self._error("has a record that is too short")
            try:
                found.append(str(content[place : place + length], "utf-8"))
            except UnicodeDecodeError as error:
                raise self._error("has a name that is no UTF-8") from error
            place += length
        return found, place

    def _error(self, line: str) -> DataError:
        return DataError(f"cannot be read as a bag: {line}", where=str(self.path))

    def _cut_off(self) -> DataError:
        return DataError(
            f"cannot be read as a bag: {_CUT_OFF}",
            where=str(self.path),
            hint="`mcap recover` writes what can be saved to a new file",
        )

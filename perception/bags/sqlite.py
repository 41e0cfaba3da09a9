"""The sqlite3 storage of rosbag2, of any origin."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from perception.bags.mcap import ALWAYS, Channel, Recorded, Within
from perception.errors import DataError

MAGIC = b"SQLite format 3\0"

FAULTS = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)
"""What sqlite raises for a damaged file: errors of its own, and those of Python's binding, which turns
quoted text that is no UTF-8, and lengths that make no sense, into values."""

_STEPS_PER_BYTE, _LEAST_STEPS = 10, 1_000_000
_COUNTED = 10_000
_LARGEST = (1 << 63) - 1


class SqliteFile:
    """An open database.

    Args:
        path: the file, or what errors name it by.
        file: its content when it lies in no file of that name.

    Raises:
        DataError: it has no tables of a bag.
        FAULTS: it is damaged.
    """

    def __init__(self, path: Path, file: BinaryIO | None = None) -> None:
        self._path = path
        self._size, self._steps, self._exhausted = 0, 0, False
        if file is None:
            self._database = self._connected(path)
        else:
            with _named(file) as name:  # from here on sqlite holds it open
                self._database = self._connected(name)
        self._database.text_factory = lambda text: text.decode("utf-8", "replace")
        self._database.set_progress_handler(self._step, _COUNTED)
        try:
            for table in ("topics", "messages"):
                self._check(table)
            rows = self._rows("SELECT id, name, type, serialization_format FROM topics")
            self.channels = {number: Channel(*map(str, rest)) for number, *rest in rows}
        except BaseException:
            self._database.close()
            raise

    def _connected(self, path: Path) -> sqlite3.Connection:
        # Opened as if it could not change, nothing is written beside it; but what a recorder that was
        # killed has left in its write-ahead log can only be read without that.
        log = path.with_name(f"{path.name}-wal")
        logged = log.stat().st_size if log.is_file() else 0
        self._size = path.stat().st_size + logged
        uri = f"file:{quote(str(path.absolute()))}?mode=ro{'' if logged else '&immutable=1'}"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _step(self) -> bool:
        """Called in the course of a query; True ends it.

        Damaged or hostile trees of pages may lead in circles, and give rows without end.
        """
        self._steps += _COUNTED
        self._exhausted = self._steps > max(_LEAST_STEPS, _STEPS_PER_BYTE * self._size)
        return self._exhausted

    def _rows(self, query: str, values: Collection[Any] = ()) -> Iterator[Any]:
        self._steps, self._exhausted = 0, False
        try:
            rows = self._database.execute(query, tuple(values))
            yield from map(tuple, rows)  # not closed when left early, maybe after the database
        except sqlite3.OperationalError as error:
            if self._exhausted:
                raise self._error("has more rows than its size allows") from error
            raise

    def _check(self, table: str) -> None:
        """Views, virtual tables and computed columns could give rows without end."""
        query = (
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ? AND rootpage > 0"
        )
        ((found,),) = self._rows(query, (table,))
        columns = list(self._rows(f"PRAGMA table_xinfo({table})"))
        if not found or any(hidden for *_, hidden in columns):
            raise self._error(f"has no table of {table}")

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def messages(
        self,
        topics: Collection[str] | None = None,
        *,
        hinted: bool = False,
        within: Within = ALWAYS,
    ) -> Iterator[Recorded]:
        """As `McapFile.messages`; there is no index by topic."""
        wanted = [n for n, c in self.channels.items() if topics is None or c.topic in topics]
        chosen = f"FROM messages WHERE topic_id IN ({','.join('?' * len(wanted))})"
        if within != ALWAYS:
            chosen += " AND timestamp >= ? AND timestamp < ?"
            wanted += [max(within[0], -_LARGEST), min(within[1], _LARGEST)]
        yield from self._messages(
            f"SELECT topic_id, timestamp, data {chosen} ORDER BY timestamp", chosen, wanted
        )

    def span(self) -> tuple[int, int] | None:
        """Times of the first and last message; None where there is none, or centuries lie between."""
        ((first, last),) = self._rows("SELECT min(timestamp), max(timestamp) FROM messages")
        if not isinstance(first, int) or not isinstance(last, int) or last - first > _LARGEST:
            return None
        return first, last

    def filled(self, start_ns: int, length_ns: int) -> set[int]:
        """As `McapFile.filled`."""
        query = "SELECT DISTINCT (timestamp - ?) / ? FROM messages"
        return {step for (step,) in self._rows(query, (start_ns, length_ns)) if type(step) is int}

    def last_before(self, topic: str, when_ns: int, count: int) -> list[Recorded]:
        """As `McapFile.last_before`."""
        numbers = [n for n, c in self.channels.items() if c.topic == topic]
        chosen = (
            f"FROM messages WHERE topic_id IN ({','.join('?' * len(numbers))}) AND timestamp < ?"
        )
        order = f"ORDER BY timestamp DESC LIMIT {int(count)}"
        query = f"SELECT topic_id, timestamp, data {chosen} {order}"
        return list(self._messages(query, chosen, [*numbers, min(when_ns, _LARGEST)]))[::-1]

    def _messages(self, query: str, chosen: str, wanted: list[Any]) -> Iterator[Recorded]:
        self._check_sorting(query, chosen, wanted)
        total = 0
        for number, stamp, data in self._rows(query, wanted):
            channel = self.channels.get(number)
            if channel is None:  # columns may compare otherwise than values do
                raise self._error("a message of a topic that is not in its table")
            if not isinstance(stamp, int) or not isinstance(data, bytes):
                raise self._error("a message without time or content")
            total += len(data)
            self._check_total(total)
            yield channel, stamp, data

    def _check_sorting(self, query: str, chosen: str, wanted: list[Any]) -> None:
        """Without an index all messages are copied to be sorted: no more than the file can hold."""
        plan = self._rows(f"EXPLAIN QUERY PLAN {query}", wanted)
        if any("TEMP B-TREE" in str(step) for *_, step in plan):
            ((total,),) = self._rows(f"SELECT total(length(data)) {chosen}", wanted)
            self._check_total(total)

    def _check_total(self, count: float) -> None:
        if count > self._size:
            raise self._error("has longer messages than its size allows")

    def _error(self, line: str) -> DataError:
        return DataError(f"cannot be read as a bag: {line}", where=str(self._path))


def unnamed_file() -> BinaryIO:
    """A temporary file without a name, of which nothing is left however the process ends."""
    try:
        return os.fdopen(os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR, 0o600), "w+b")
    except (AttributeError, OSError):  # neither every system nor every file system has such files
        return tempfile.TemporaryFile()


@contextmanager
def _named(file: BinaryIO) -> Iterator[Path]:
    """A name for an unnamed file, for as long as it takes to open it."""
    file.flush()
    folder = Path(tempfile.gettempdir())
    name = folder / f"anysense-bag-{secrets.token_hex(8)}.db3"
    try:
        source = f"/proc/self/fd/{file.fileno()}"
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.link(source, name, src_dir_fd=handle)  # with a folder's handle, the link is followed
        except OSError:
            file.seek(0)
            with os.fdopen(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as own:
                shutil.copyfileobj(file, own)
        finally:
            os.close(handle)
        yield name
    finally:
        name.unlink(missing_ok=True)

"""Bags as people record them, and as nobody should: each reads, or gives one line that says why not."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from rosbags.rosbag2 import CompressionFormat, CompressionMode

from perception.bags import sqlite as sqlite_module
from perception.bags import storage as storage_module
from perception.bags.files import read_bag, sensor_topics, topics_of, write_bag
from perception.bags.messages import parse
from perception.bags.storage import open_bag
from perception.errors import AnySenseError, DataError
from perception.files.limits import MAX_ARRAY_BYTES

IMAGE = "sensor_msgs/msg/Image"


def _read(path: Path) -> list[tuple[str, int, bytes]]:
    return [(m.topic, m.stamp_ns, m.data) for m in read_bag(path)]


def _one_line(path: Path, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        topics_of(path)
        list(read_bag(path))
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    for word in (*words, path.name):
        assert word in line
    return line


@pytest.fixture
def expected(kit: Any) -> tuple[list[Any], list[tuple[str, int, bytes]]]:
    messages = kit.pairs(5)
    return messages, [(t, recorded, kit.serialized(m)) for t, m, recorded in messages]


def _mcap_of(build: Any, expected: Any, **how: Any) -> bytes:
    """An MCAP file without summary: two chunks, or none."""
    records = [build.message(1 if t == "/cam/rgb" else 2, at, d) for t, at, d in expected]
    both = build.channel(1, "/cam/rgb", IMAGE) + build.channel(2, "/cam/depth", IMAGE)
    if not how.pop("chunks", True):
        return build.add(both + b"".join(records)).end()
    for part in (slice(None, 4), slice(4, None)):
        content = (both if part.start is None else b"") + b"".join(records[part])
        times = [at for _, at, _ in expected[part]]
        build.add(build.chunk(content, times[0], times[-1], **how))
    return build.end()


@pytest.mark.parametrize("coding", ["", "zstd", "lz4"])
@pytest.mark.parametrize("chunks", [True, False])
def test_mcap_without_summary(
    kit: Any, mcap: Any, expected: Any, coding: str, chunks: bool
) -> None:
    path = kit.path(".mcap")
    path.write_bytes(_mcap_of(mcap(), expected[1], chunks=chunks, coding=coding))
    assert topics_of(path) == {"/cam/rgb": IMAGE, "/cam/depth": IMAGE}
    assert _read(path) == expected[1]
    assert [m.topic for m in read_bag(path, ["/cam/depth"])] == ["/cam/depth"] * 5


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        ("mcap", None),
        ("mcap", "STORAGE"),
        ("mcap", "FILE"),
        ("mcap", "MESSAGE"),
        ("sqlite3", None),
        ("sqlite3", "FILE"),
        ("sqlite3", "MESSAGE"),
    ],
)
def test_rosbag2_folders_of_every_compression(
    kit: Any, expected: Any, storage: str, mode: str | None
) -> None:
    compress = (CompressionMode[mode], CompressionFormat.ZSTD) if mode else ()
    path = kit.write(expected[0], storage, compress)
    assert topics_of(path) == {"/cam/rgb": IMAGE, "/cam/depth": IMAGE}
    assert _read(path) == expected[1]
    for topics in (["/cam/depth"], ["/cam/rgb", "/none"], []):
        chosen = [m for m in expected[1] if m[0] in topics]
        assert [(m.topic, m.stamp_ns, m.data) for m in read_bag(path, topics)] == chosen
    if mode != "MESSAGE":  # only metadata.yaml says that messages are compressed
        (file,) = (p for p in path.iterdir() if p.name != "metadata.yaml")
        assert _read(file) == expected[1]
        other = kit.path(".bag")  # what a file is does not hang on its name
        other.write_bytes(file.read_bytes())
        assert _read(other) == expected[1]


def test_chunks_that_overlap_come_in_order_of_time(kit: Any, mcap: Any) -> None:
    build = mcap()
    build.add(build.channel(1, "/a", "std_msgs/msg/Empty"))
    times = [[0, 10, 40], [5, 20, 41], [20, 30]]
    for number, chunk in enumerate(times):
        records = b"".join(build.message(1, t, bytes([number])) for t in reversed(chunk))
        build.add(build.chunk(records, min(chunk), max(chunk)))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    got = [(stamp, data[0]) for _, stamp, data in _read(path)]
    assert got == [(0, 0), (5, 1), (10, 0), (20, 1), (20, 2), (30, 2), (40, 0), (41, 1)]


@pytest.mark.parametrize("coding", ["", "zstd"])
def test_messages_within_and_outside_of_chunks(kit: Any, mcap: Any, coding: str) -> None:
    build = mcap()
    inner = (
        build.channel(2, "/b", IMAGE) + build.message(2, 7, b"second") + build.message(1, 8, b"")
    )
    build.add(build.channel(1, "/a", IMAGE) + build.message(1, 5, b"first"))
    build.add(build.chunk(inner, 7, 8, coding) + build.index(2) + build.index(1))
    build.add(build.message(2, 9, b"last"))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    whole = [("/a", 5, b"first"), ("/b", 7, b"second"), ("/a", 8, b""), ("/b", 9, b"last")]
    assert _read(path) == whole
    with open_bag(path) as bag:
        assert [data for _, _, data in bag.messages(["/b"], hinted=True)] == [b"second", b"last"]


def test_what_other_bags_are_called(kit: Any, mcap: Any, expected: Any) -> None:
    path = kit.path(".bag")
    path.write_bytes(b"#ROSBAG V2.0\n" + bytes(4096))
    _one_line(path, "ROS 1", "rosbags-convert")
    build = mcap("ros1")
    build.add(build.channel(1, "/cam", "sensor_msgs/Image", "ros1"))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    _one_line(path, "ROS 1")
    path.write_bytes(b"")
    _one_line(path, "empty")
    path.write_bytes(b"hello" * 10)
    _one_line(path, "neither MCAP nor sqlite3")
    _one_line(kit.path(), "no such bag")
    _one_line(Path("/dev/null"), "no regular file")
    with sqlite3.connect(kit.path(".db3")) as database:
        database.execute("CREATE TABLE cars (id INTEGER)")
    _one_line(Path(database.execute("PRAGMA database_list").fetchone()[2]), "no table of topics")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_folders_without_metadata_or_files(kit: Any, expected: Any, storage: str) -> None:
    path = kit.write(expected[0], storage)
    metadata = path / "metadata.yaml"
    text = metadata.read_text()
    metadata.unlink()
    _one_line(path, "metadata.yaml", f"ros2 bag reindex {path}")
    metadata.write_text("{}")
    _one_line(path, "relative_file_paths")
    metadata.write_text("rosbag2_bagfile_information: {relative_file_paths: [: 3")
    _one_line(path, "not YAML")
    metadata.write_text(text)
    assert _read(path) == expected[1]
    (file,) = (p for p in path.iterdir() if p.name != "metadata.yaml")
    file.rename(path / "moved")
    _one_line(path, file.name, "not there")
    empty = kit.path()
    empty.mkdir()
    _one_line(empty, "rosbag2 folder")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_cut_off_files_say_so(kit: Any, storage: str) -> None:
    path = kit.write(kit.pairs(40), storage)
    (file,) = (p for p in path.iterdir() if p.name != "metadata.yaml")
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.7, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        line = _one_line(file, "cannot be read as a bag")
        assert "recover" in line
    if storage == "mcap":
        for cut in range(1, 60):
            file.write_bytes(whole[:-cut])
            assert "ends early" in _one_line(file)


def test_types_of_chosen_topics_are_checked(kit: Any) -> None:
    t = kit.start
    path = kit.write(
        [
            ("/cam/info", kit.info(t), t),
            ("/pts", kit.cloud(t), t),
            ("/cam/rgb", kit.image(t), t),
            ("/cam/rgb/compressed", kit.compressed(t, "jpeg", b"x"), t),
        ]
    )
    assert sensor_topics(path, {"rgb": "/cam/rgb/compressed", "lidar": "/pts"})
    for modality, topic, words in (
        ("rgb", "/cam/info", "sensor_msgs/msg/CameraInfo, which is no rgb (could be /cam/rgb, "),
        ("depth", "/pts", "sensor_msgs/msg/PointCloud2, which is no depth"),
        ("lidar", "/cam/rgb", "sensor_msgs/msg/Image, which is no lidar (could be /pts)"),
        ("thermal", "/other", "no topic /other for thermal (could be /cam/rgb, /cam/rgb/comp"),
    ):
        with pytest.raises(DataError) as caught:
            sensor_topics(path, {modality: topic})
        assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1
    only = kit.write([("/pts", kit.cloud(t), t)])
    with pytest.raises(DataError, match="the bag has no sensor_msgs/msg/Image or"):
        sensor_topics(only, {"rgb": "/pts"})


@pytest.mark.parametrize("count", [1, 5, 12, 13, 40])
def test_of_many_topics_that_fit_some_are_named_and_the_others_counted(
    kit: Any, mcap: Any, count: int
) -> None:
    build = mcap()
    for number in range(count):
        build.add(build.channel(number, f"/cam{number:02d}", IMAGE))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    with pytest.raises(DataError) as caught:
        sensor_topics(path, {"rgb": "/none"})
    line = str(caught.value)
    counted = re.search(r" and (\d+) more", line)
    named = line.count("/cam")
    assert named + (int(counted[1]) if counted else 0) == count
    assert (counted is not None) == (named < count) and (named == count or named > 10)


def test_topics_of_other_encodings_are_named(kit: Any, mcap: Any) -> None:
    build = mcap("")
    build.add(build.channel(1, "/cam", "foxglove.RawImage", "protobuf"))
    build.add(build.channel(2, "/rgb", IMAGE))
    data = kit.serialized(kit.image(5))
    build.add(build.message(1, 1, b"\x0a") + build.message(2, 2, data))
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    assert _read(path) == [("/rgb", 2, data)]
    with pytest.raises(DataError, match=r"/cam is protobuf data, which is no rgb .*could be /rgb"):
        sensor_topics(path, {"rgb": "/cam"})


# -- hostile files -------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["zstd", "lz4"])
@pytest.mark.parametrize("claimed", [1000, None, MAX_ARRAY_BYTES + 1, 2**62])
def test_bombs_are_unpacked_no_further_than_they_claim(
    kit: Any, mcap: Any, coding: str, claimed: int | None
) -> None:
    build = mcap()
    inner = build.channel(1, "/a", IMAGE) + build.message(1, 5, bytes(2**26))
    path = kit.path(".mcap")
    path.write_bytes(build.add(build.chunk(inner, 0, 9, coding, claimed)).end())
    assert path.stat().st_size < 2**21
    if claimed is None:
        assert len(_read(path)[0][2]) == 2**26
        return
    tracemalloc.start()
    try:
        _one_line(path, "more than")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_many_chunks_of_one_time_are_not_held_at_once(kit: Any, mcap: Any) -> None:
    build = mcap()
    build.add(build.channel(1, "/a", IMAGE))
    chunk = build.chunk(build.message(1, 2**62, bytes(2**27)), 0, 2**62, "zstd")
    path = kit.path(".mcap")
    path.write_bytes(build.add(chunk * 20).end())
    _one_line(path, "chunks of one time")


def test_chunks_of_countless_empty_messages(kit: Any, mcap: Any) -> None:
    build = mcap()
    build.add(build.channel(1, "/a", IMAGE))
    chunk = build.chunk(build.message(1, 7, b"") * 1_100_000, 0, 9, "zstd")
    path = kit.path(".mcap")
    path.write_bytes(build.add(chunk).end())
    _one_line(path, "1000000 messages")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda b: b.record(6, bytes(20)), "too short"),
        (lambda b: b.record(6, struct.pack("<QQQII", 0, 1, 9, 0, 2**31)), "too short"),
        (lambda b: b.chunk(b"", 0, 1)[:-8] + struct.pack("<Q", 2**40), "longer than its record"),
        (lambda b: b.chunk(b"abc", 0, 1, crc=1), "not what was written"),
        (lambda b: b.chunk(b"abc", 0, 1, size=4, crc=0), "not what was written"),
        (lambda b: b.chunk(b"abc", 0, 1), "too short"),
        (lambda b: b.chunk(struct.pack("<BQ", 5, 2**50), 0, 1), "longer than its chunk"),
        (lambda b: b.chunk(b.message(1, 0, b"abc")[:-1], 0, 1), "longer than its chunk"),
        (lambda b: b.chunk(b"abc", 0, 1, "brotli"), "compressed with 'brotli'"),
        (lambda b: b.chunk(b.message(9, 0, b""), 0, 1), "channel 9"),
        (lambda b: b.message(9, 0, b""), "channel 9"),
        (lambda b: b.record(5, b"x"), "too short"),
        (lambda b: b.record(4, b"x"), "too short"),
        (lambda b: b.record(4, bytes(4) + b.text("/a") + b.text("cdr")[:-1]), "too short"),
        (lambda b: b.record(3, b"\0\0\2\0\0\0\xff\xff"), "UTF-8"),
        (lambda b: struct.pack("<BQ", 5, 2**63), "ends early"),
        (lambda b: bytes(9), "never written"),
    ],
)
def test_records_that_contradict_themselves(
    kit: Any, mcap: Any, change: Callable[[Any], bytes], word: str
) -> None:
    build = mcap()
    path = kit.path(".mcap")
    path.write_bytes(build.add(build.channel(1, "/a", IMAGE) + change(build)).end())
    _one_line(path, word)


def test_a_sparse_file_of_any_size_is_refused_at_once(kit: Any, mcap: Any) -> None:
    build = mcap()
    build.add(build.channel(1, "/a", IMAGE))
    path = kit.path(".mcap")
    path.write_bytes(build.content + struct.pack("<BQ", 5, 10**11))
    with path.open("r+b") as file:
        file.truncate(10**11 + 200)
    _one_line(path, "more than")
    path.write_bytes(build.content)
    with path.open("r+b") as file:
        file.truncate(10**11)
    _one_line(path, "never written")


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("UPDATE messages SET timestamp = 'soon'", "without time"),
        ("UPDATE messages SET data = 1000000000000", "without time or content"),
        ("UPDATE messages SET data = NULL", "without time or content"),
        ("DROP TABLE messages", "no table of messages"),
        (
            "DROP TABLE messages; CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION "
            "ALL SELECT id FROM n) SELECT 1 AS id, 1 AS topic_id, 1 AS timestamp, x'00' AS data FROM n",
            "no table of messages",
        ),
        (
            "DROP TABLE messages; CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp "
            "INTEGER, data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))",
            "no table of messages",
        ),
        (
            "DROP TABLE messages; CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data)",
            "no table of messages",
        ),
        (
            "DROP TABLE messages; CREATE TABLE messages (id INTEGER, topic_id TEXT COLLATE NOCASE, "
            "timestamp INTEGER, data BLOB); INSERT INTO messages VALUES (1, 'A', 1, x'00');"
            "DROP TABLE topics; CREATE TABLE topics (id TEXT, name TEXT, type TEXT, "
            "serialization_format TEXT); INSERT INTO topics VALUES ('a', '/a', 'T', 'cdr')",
            "not in its table",
        ),
    ],
)
def test_hostile_databases(kit: Any, sql: str, word: str) -> None:
    path = kit.write(kit.pairs(2), "sqlite3")
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as database:
        # Rows stay possible that the columns were not meant for.
        database.executescript(
            "CREATE TABLE loose AS SELECT * FROM messages; DROP TABLE messages;"
            "ALTER TABLE loose RENAME TO messages;" + sql
        )
    _one_line(file, word)


@pytest.mark.parametrize("junk", [b"\xff", b"\x80\x81", b"\xc3", b"\xf0\x90", b"\0"])
@pytest.mark.parametrize("word", [b"CREATE TABLE topics", b"serialization_format", b"tabletopics"])
def test_a_schema_that_is_no_text(kit: Any, junk: bytes, word: bytes) -> None:
    (file,) = kit.write(kit.pairs(1), "sqlite3").glob("*.db3")
    whole = file.read_bytes()
    place = whole.index(word)
    for start in range(len(word)):
        for count in (1, 3, len(word) - start):
            broken = bytearray(whole)
            broken[place + start : place + start + count] = (junk * count)[:count]
            file.write_bytes(broken)
            try:
                _read(file)
            except DataError as error:
                assert len(str(error).splitlines()) == 1


def _interior(page: int, children: int, child: int) -> bytes:
    """An interior page of a table, all of whose cells are one and lead to the same child."""
    cell = struct.pack(">IB", child, 1)
    head = struct.pack(">BHHHBI", 5, 0, children, page - len(cell), 0, child)
    cells = struct.pack(">H", page - len(cell)) * children
    return head + cells + bytes(page - len(head) - len(cells) - len(cell)) + cell


_TABLES = (
    "CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT);"
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);"
    "INSERT INTO topics VALUES (1, '/a', 'std_msgs/msg/Empty', 'cdr');"
)
_BY_TIME = "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"


@pytest.mark.parametrize("index", ["", _BY_TIME])
def test_many_small_messages_are_no_loop(kit: Any, index: str) -> None:
    path, count = kit.path(".db3"), 150_000
    with sqlite3.connect(path) as database:
        database.executescript(_TABLES + index)
        rows = ((1, t, b"x") for t in range(count, 0, -1))
        database.executemany("INSERT INTO messages VALUES (NULL, ?, ?, ?)", rows)
    database.close()
    assert [m.stamp_ns for m in read_bag(path)] == list(range(1, count + 1))


def test_an_index_that_leads_to_one_message_again_and_again(kit: Any) -> None:
    path, page = kit.path(".db3"), 4096
    database = sqlite3.connect(path)
    database.executescript(
        f"{_TABLES}{_BY_TIME} INSERT INTO messages VALUES (1, 1, 5, zeroblob(3000));"
        "CREATE TABLE pad (data BLOB); INSERT INTO pad VALUES (zeroblob(9000));"
    )
    pages = dict(database.execute("SELECT name, rootpage FROM sqlite_master"))
    database.close()
    content = bytearray(path.read_bytes())
    root, spare = pages["timestamp_idx"], len(content) // page
    leaf = content[page * (root - 1) : page * root]
    cell = struct.pack(">IBBBBB", spare, 4, 3, 1, 9, 5)  # a child, and the entry of the message
    head = struct.pack(">BHHHBI", 2, 0, 100, page - len(cell), 0, spare)
    cells = struct.pack(">H", page - len(cell)) * 100
    content[page * (spare - 1) :] = leaf
    content[page * (root - 1) : page * root] = (head + cells).ljust(page - len(cell), b"\0") + cell
    path.write_bytes(content)
    _one_line(path, "longer messages than its size allows")


@pytest.mark.parametrize("indexed", [True, False])
def test_what_comes_before_the_damage_is_given_where_there_is_an_index(
    kit: Any, indexed: bool
) -> None:
    """Without one, all has to be read before the first is known."""
    path, page = kit.path(".db3"), 4096
    database = sqlite3.connect(path)
    database.executescript(_TABLES + (_BY_TIME if indexed else ""))
    rows = ((1, t, bytes(3000)) for t in range(1, 21))
    database.executemany("INSERT INTO messages VALUES (NULL, ?, ?, ?)", rows)
    database.commit()
    database.close()
    content = bytearray(path.read_bytes())
    content[len(content) - page] = 99  # no kind of page: it holds the last message
    path.write_bytes(content)
    given = []
    with pytest.raises(DataError):
        for message in read_bag(path):
            given.append(message.stamp_ns)
    assert given == (list(range(1, len(given) + 1)) if indexed else [])
    assert bool(given) is indexed


def test_a_database_is_only_read(kit: Any, tmp_path: Path) -> None:
    """Nothing appears beside it, and what a killed recorder left in its log is read, too."""
    made, path = kit.path(".db3"), tmp_path / "killed" / "a.db3"
    path.parent.mkdir()
    database = sqlite3.connect(made)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(f"{_TABLES}{_BY_TIME}")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("INSERT INTO messages VALUES (1, 1, 5, zeroblob(100000))")
    database.commit()
    shutil.copy(made, path)
    assert _read(path) == []  # the log is not there
    assert os.listdir(path.parent) == ["a.db3"]
    shutil.copy(f"{made}-wal", f"{path}-wal")
    assert _read(path) == [("/a", 5, bytes(100_000))]
    database.close()


def test_what_is_unpacked_is_for_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        with sqlite_module.unnamed_file() as file:
            assert os.fstat(file.fileno()).st_mode & 0o077 == 0
        with tempfile.TemporaryFile() as file, sqlite_module._named(file) as name:
            assert name.stat().st_mode & 0o077 == 0
    finally:
        os.umask(before)


@pytest.mark.parametrize("indexed", [False, True])
def test_pages_that_lead_to_rows_without_end(kit: Any, indexed: bool) -> None:
    path, depth = kit.path(".db3"), 12
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT);"
        "CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB);"
        f"CREATE TABLE pad (id INTEGER, data BLOB); INSERT INTO pad VALUES (1, zeroblob({depth} * 4096));"
        "INSERT INTO topics VALUES (1, '/a', 'std_msgs/msg/Empty', 'cdr');"
        "INSERT INTO messages VALUES (1, 1, 5, x'0001');"
        + ("CREATE INDEX at ON messages (timestamp, topic_id, data);" if indexed else "")
    )
    tables = dict(database.execute("SELECT name, rootpage FROM sqlite_master"))
    database.close()
    content, page = bytearray(path.read_bytes()), 4096
    root, pages = tables["messages"], [n + tables["pad"] + 1 for n in range(depth)]
    assert len(content) >= page * pages[-1]
    leaf = bytes(content[page * (root - 1) : page * root])
    for number, child in zip([root, *pages], [*pages, 0], strict=True):
        body = _interior(page, 100, child) if child else leaf
        content[page * (number - 1) : page * number] = body
    path.write_bytes(content)
    if indexed:
        assert len(_read(path)) == 1
    else:
        start = time.monotonic()
        _one_line(path, "than its size allows")
        assert time.monotonic() - start < 30


def _flipped(whole: bytes, flips: list[tuple[float, int]]) -> bytes:
    out = bytearray(whole)
    for place, value in flips:
        out[int(place * (len(out) - 1))] ^= value
    return bytes(out)


@pytest.mark.parametrize("kind", ["zstd", "lz4", "plain", "sqlite3", "MESSAGE", "FILE"])
@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=3),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_flipped_bytes_give_messages_or_one_line(
    samples: dict[str, Path], kind: str, flips: list[tuple[float, int]], share: float
) -> None:
    folder = samples[kind]
    (file,) = (p for p in folder.iterdir() if p.name != "metadata.yaml")
    whole = file.read_bytes()
    broken = folder.with_name(f"{folder.name}-flipped")
    broken.mkdir(exist_ok=True)
    for beside in folder.glob("metadata.yaml"):
        (broken / beside.name).write_bytes(beside.read_bytes())
    path = broken / file.name
    path.write_bytes(_flipped(whole, flips)[: max(1, int(len(whole) * share))])
    try:
        for message in read_bag(broken if (broken / "metadata.yaml").exists() else path):
            try:
                parse(message)
            except AnySenseError as error:
                assert len(str(error).splitlines()) == 1
    except AnySenseError as error:
        assert len(str(error).splitlines()) == 1


# -- what is unpacked -----------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("unnamed", [True, False])
def test_unpacking_leaves_no_file_that_a_kill_would_leave(
    kit: Any,
    expected: Any,
    storage: str,
    unnamed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    if not unnamed:  # as on file systems that do not know O_TMPFILE
        monkeypatch.delattr(os, "O_TMPFILE")
        monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    path = kit.write(expected[0], storage, (CompressionMode.FILE, CompressionFormat.ZSTD))
    real, pieces = storage_module.unpack_stream, 0

    def watched(*args: Any, **named: Any) -> Any:
        nonlocal pieces
        for piece in real(*args, **named):
            pieces += 1
            assert os.listdir(scratch) == []
            yield piece

    monkeypatch.setattr(storage_module, "unpack_stream", watched)
    got = []
    for message in read_bag(path):
        assert os.listdir(scratch) == []
        got.append((message.topic, message.stamp_ns, message.data))
    assert got == expected[1] and pieces
    broken = next(p for p in path.iterdir() if p.name != "metadata.yaml")
    broken.write_bytes(broken.read_bytes()[:-9])
    line = _one_line(broken)
    assert str(scratch) not in line and os.listdir(scratch) == []


def test_several_readers_of_one_unpacked_bag(kit: Any, expected: Any) -> None:
    path = kit.write(expected[0], "mcap", (CompressionMode.FILE, CompressionFormat.ZSTD))
    with open_bag(path) as bag:
        readers = [bag.messages() for _ in range(3)]
        for wanted in expected[1]:
            for reader in readers:
                channel, stamp, data = next(reader)
                assert (channel.topic, stamp, data) == wanted


# -- indexes -------------------------------------------------------------------------------------


def test_chunks_without_the_topic_are_not_unpacked(kit: Any, mcap: Any) -> None:
    build = mcap()
    build.add(build.channel(1, "/a", IMAGE) + build.channel(2, "/b", IMAGE))
    build.add(build.chunk(b"damaged", 0, 1, crc=1) + build.index(1))
    build.add(build.chunk(build.message(2, 5, b"x"), 5, 5) + build.index(2))
    build.add(build.chunk(build.message(2, 6, b"y"), 6, 6))  # without an index, nobody knows
    path = kit.path(".mcap")
    path.write_bytes(build.end())
    with open_bag(path) as bag:
        assert [m[1] for m in bag.messages(["/b"], hinted=True)] == [5, 6]
        for topics, hinted in ((["/b"], False), (["/a"], True), (None, True)):
            with pytest.raises(DataError, match="not what was written"):
                list(bag.messages(topics, hinted=hinted))


# -- writing -------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_bag(kit: Any, expected: Any, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from perception.bags.files import read_bag, write_bag\n"
        "from perception.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: write_bag(Path(sys.argv[2]), read_bag(Path(sys.argv[1])))\n"
        "except DataError as error: print(error)\n"
    )
    source, target = kit.write(expected[0]), tmp_path / "full" / "bag"
    target.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(target)], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{target}: cannot be written: ") and not done.stderr
    assert list(target.parent.iterdir()) == []


def test_an_interrupted_recording_leaves_no_bag(kit: Any, expected: Any, tmp_path: Path) -> None:
    source, target = kit.write(expected[0]), tmp_path / "half" / "bag"

    def interrupted() -> Any:
        yield from list(read_bag(source))[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bag(target, interrupted())
    assert list(target.parent.iterdir()) == []
    assert write_bag(target, read_bag(source)) == len(expected[0])
    assert _read(target) == expected[1]

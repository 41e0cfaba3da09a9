"""What a job leaves besides its results: which chunk was made of what, by what, and what was kept and why."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from perception.extras import require
from perception.fleet.plan import Chunk

_TEXTS = ("recording", "place", "input", "key", "bundle", "anysense", "code", "python", "host")
_NUMBERS = ("number", "of", "rows", "frames")
_TIMES = ("seconds", "cpu_seconds")


def manifest_parquet(
    chunks: Sequence[Chunk],
    records: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
    borders: set[str],
) -> bytes:
    """A row for each chunk, and for each recording of which there are none, as a Parquet file.

    Args:
        chunks: all of the job.
        records: of those that are done, by key.
        failed: by title of a chunk or name of a recording, why nothing came of it.
        borders: titles of chunks that did not begin as the one before ended.
    """
    require("a fleet", "pyarrow")
    import pyarrow as pa

    rows = []
    for chunk in chunks:
        record = records.get(chunk.key, {})
        known = {
            "recording": chunk.source.name,
            "place": chunk.source.place.url,
            "input": chunk.identity,
            "key": chunk.key,
            "number": chunk.number,
            "of": chunk.of,
        }
        row = {**known, **{n: record[n] for n in (*_TEXTS, *_NUMBERS, *_TIMES) if n in record}}
        row["outcome"] = "done" if record else "failed" if chunk.title in failed else "open"
        row["reason"] = failed.get(chunk.title, "")
        row["same_border"] = chunk.title not in borders
        rows.append(row)
    titles = {chunk.title for chunk in chunks}
    rows += [
        {"recording": name, "outcome": "failed", "reason": reason}
        for name, reason in failed.items()
        if name not in titles
    ]
    schema = pa.schema(
        [(name, pa.string()) for name in (*_TEXTS, "outcome", "reason")]
        + [(name, pa.int64()) for name in _NUMBERS]
        + [(name, pa.float64()) for name in _TIMES]
        + [("same_border", pa.bool_())]
    )
    return _parquet([_sayable(row) for row in rows], schema)


def kept_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """What was kept and why (`keeping.Choice.rows`), as a Parquet file."""
    require("a fleet", "pyarrow")
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("recording", "frame", "reason")]
    schema = pa.schema([*texts, ("stamp_ns", pa.int64()), ("score", pa.float64())])
    return _parquet(rows, schema)


def _sayable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are UTF-8: names of files need not be."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _parquet(rows: Sequence[Mapping[str, Any]], schema: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(map(dict, rows)), schema), content, compression="zstd")
    return content.getvalue()

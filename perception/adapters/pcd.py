"""PCD files (Point Cloud Library, format 0.7): ascii, binary and binary_compressed."""

from __future__ import annotations

import io
import struct
from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.lzf import decompress_lzf
from perception.adapters.pointcloud import (
    DATATYPES,
    INTENSITY_NAMES,
    PointField,
    decode_pointcloud2,
)
from perception.errors import EncodingError
from perception.files.limits import check_bytes, check_points

_CODES = {np.dtype(v).str[1:]: k for k, v in DATATYPES.items()}
_SIZES = struct.Struct("<II")  # of compressed data, packed and unpacked
_LONGEST_LINE, _MOST_LINES = 4096, 1000


def parse_pcd(content: bytes) -> NDArray[np.float32]:
    """Read x, y, z in metres and intensity in 0..1 (N, 4) float32 from a PCD file's bytes.

    Binary data are little-endian, as PCL writes them.

    Raises:
        InputError: the header is wrong or claims more points than the limit, or the data end early or
            are damaged.
    """
    header, start = _header(content)
    try:
        names = [name.lower() for name in header["FIELDS"]]
        counts = [int(v) for v in header.get("COUNT", ["1"] * len(names))]
        sizes = [int(v) for v in header["SIZE"]]
        kinds = [f"{t.lower()}{s}" for t, s in zip(header["TYPE"], sizes, strict=True)]
        points, form = int(header["POINTS"][0]), header["DATA"][0].lower()
        widths = [s * c for s, c in zip(sizes, counts, strict=True)]
        starts = [0, *accumulate(counts if form == "ascii" else widths)]
        layout = list(zip(names, starts[:-1], (_CODES.get(k, 0) for k in kinds), strict=True))
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise EncodingError(f"PCD header lacks or garbles {error}") from error
    if min(sizes) < 1 or min(counts) < 0:
        raise EncodingError("PCD header has a SIZE below 1 or a COUNT below 0")
    check_points(points)
    _check_shape(header, points)
    for name, count in zip(names, counts, strict=True):
        if name in "xyz" and count != 1:
            raise EncodingError(f"PCD field {name} has COUNT {count}, expected 1")
    # PCL writes COUNT 0 for what it has left out of a point
    layout = [field for field, count in zip(layout, counts, strict=True) if count]
    doubled = [n for n, seen in Counter(field[0] for field in layout).items() if seen > 1]
    if set(doubled) & {"x", "y", "z", *INTENSITY_NAMES}:
        raise EncodingError(f"PCD header has several fields {doubled[0]}")
    if form == "binary":
        fields = [PointField(name, offset, code) for name, offset, code in layout]
        step = starts[-1]
        return decode_pointcloud2(fields, content[start:], width=points, height=1, point_step=step)
    wanted = [field for field in layout if field[0] in ("x", "y", "z", *INTENSITY_NAMES)]
    if form == "binary_compressed":
        return _compressed(content[start:], wanted, points, starts[-1])
    if form != "ascii":
        hint = "ascii, binary or binary_compressed"
        raise EncodingError(f"PCD data are {form[:30]}", hint=hint)
    return _ascii(content[start:], wanted, points, starts[-1])


def _check_shape(header: dict[str, list[str]], points: int) -> None:
    """Refuse a WIDTH and HEIGHT that are not POINTS, as PCL does; old files lack them."""
    try:
        width, height = (int(header[name][0]) for name in ("WIDTH", "HEIGHT"))
    except (KeyError, ValueError, IndexError):
        return
    if width * height != points:
        raise EncodingError(f"PCD header has {points} POINTS, but {width}x{height} of them")


def _header(content: bytes) -> tuple[dict[str, list[str]], int]:
    """The header's entries and where the data start."""
    header: dict[str, list[str]] = {}
    position = 0
    for _ in range(_MOST_LINES):
        if "DATA" in header:
            return header, position
        end = content.find(b"\n", position, position + _LONGEST_LINE)
        if end < 0:
            break
        words = content[position:end].decode("ascii", "replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    raise EncodingError("no PCD header")


def _compressed(
    body: bytes, wanted: list[tuple[str, int, int]], points: int, step: int
) -> NDArray[np.float32]:
    """All values of a field follow each other, then come those of the next."""
    check_bytes(points * step)
    if len(body) < _SIZES.size:
        raise EncodingError("PCD data end before their sizes")
    packed, size = _SIZES.unpack_from(body)
    available = len(body) - _SIZES.size
    if packed > available:
        raise EncodingError(f"ends early: {available} of {packed} bytes of compressed data")
    if size != points * step:
        raise EncodingError(
            f"PCD data unpack to {size} bytes, {points} points of {step} need others"
        )
    columns = decompress_lzf(body[_SIZES.size : _SIZES.size + packed], size)
    unknown = [name for name, _, code in wanted if not code]
    if unknown:
        raise EncodingError(f"PCD field {unknown[0]} has an unknown type")
    kind = np.dtype([(name, "<" + DATATYPES[code]) for name, _, code in wanted])
    table = np.zeros(points, kind)
    for name, offset, code in wanted:
        table[name] = np.frombuffer(columns, "<" + DATATYPES[code], points, offset * points)
    return _of_table(table)


def _of_table(table: NDArray[Any]) -> NDArray[np.float32]:
    """Go through the binary decoder, so that the rules for intensity and NaN are the same."""
    fields = [
        PointField(name, offset, _CODES[kind.str[1:]])
        for name, (kind, offset, *_) in (table.dtype.fields or {}).items()
    ]
    return decode_pointcloud2(
        fields, table.tobytes(), width=len(table), height=1, point_step=table.dtype.itemsize
    )


def _ascii(
    body: bytes, wanted: list[tuple[str, int, int]], points: int, columns: int
) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            table = _table(body, [column for _, column, _ in wanted], points, columns)
            kind = np.dtype([(name, "<" + DATATYPES[code]) for name, _, code in wanted])
            packed = np.zeros(points, kind)
            for i, (name, _, _) in enumerate(wanted):
                packed[name] = table[:, i]
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise EncodingError("PCD data do not fit the header") from error
    return _of_table(packed)


def _table(body: bytes, wanted: list[int], points: int, columns: int) -> NDArray[np.float64]:
    """The `wanted` columns of the first `points` rows, in memory that does not grow with the text.

    Raises:
        ValueError: fewer rows, other columns, or no numbers.
    """
    if points == 0 or not wanted:
        return np.zeros((points, len(wanted)))
    body = body.lstrip()
    if len(body) < 2 * points * columns - 1:  # a digit and a space each
        raise ValueError("fewer numbers than points")
    first = body[: body.find(b"\n") if b"\n" in body else None].split()
    if len(first) != columns:
        raise ValueError("other columns")
    table = np.loadtxt(
        io.BytesIO(body),
        np.float64,
        comments=None,
        usecols=[*wanted, columns - 1],  # the last, so that no row may be cut off
        max_rows=points,
        ndmin=2,
    )
    if len(table) != points:
        raise ValueError("fewer rows than points")
    return table

"""PCD files (Point Cloud Library, format 0.7): ascii and binary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.pointcloud import (
    DATATYPES,
    INTENSITY_NAMES,
    PointField,
    decode_pointcloud2,
)
from perception.errors import EncodingError

_CODES = {np.dtype(v).str[1:]: k for k, v in DATATYPES.items()}
_LONGEST_LINE = 4096


def parse_pcd(content: bytes) -> NDArray[np.float32]:
    """Read x, y, z in metres and intensity in 0..1 (N, 4) float32 from a PCD file's bytes.

    Binary data are little-endian, as PCL writes them.

    Raises:
        InputError: the header is wrong, the data end early, or they are compressed.
    """
    header, start = _header(content)
    try:
        names = [name.lower() for name in header["FIELDS"]]
        counts = [int(v) for v in header.get("COUNT", ["1"] * len(names))]
        sizes = [int(v) for v in header["SIZE"]]
        kinds = [f"{t.lower()}{s}" for t, s in zip(header["TYPE"], sizes, strict=True)]
        points, form = int(header["POINTS"][0]), header["DATA"][0].lower()
        widths = [s * c for s, c in zip(sizes, counts, strict=True)]
        starts = np.cumsum([0, *(counts if form == "ascii" else widths)]).tolist()
        layout = list(zip(names, starts[:-1], (_CODES.get(k, 0) for k in kinds), strict=True))
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise EncodingError(f"PCD header lacks or garbles {error}") from error
    if points < 0 or min([0, *counts, *sizes]) < 0:
        raise EncodingError("PCD header has a negative number")
    if form == "binary":
        fields = [PointField(name, offset, code) for name, offset, code in layout]
        step = int(starts[-1])
        return decode_pointcloud2(fields, content[start:], width=points, height=1, point_step=step)
    if form != "ascii":
        raise EncodingError(f"PCD data are {form[:30]}", hint="ascii or binary")
    return _ascii(content[start:], layout, points, int(starts[-1]))


def _header(content: bytes) -> tuple[dict[str, list[str]], int]:
    """The header's entries and where the data start."""
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = content.find(b"\n", position, position + _LONGEST_LINE)
        if end < 0:
            raise EncodingError("no PCD header")
        words = content[position:end].decode("ascii", "replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header, position


def _ascii(
    body: bytes, layout: list[tuple[str, int, int]], points: int, columns: int
) -> NDArray[np.float32]:
    """Go through the binary decoder, so that the rules for intensity and NaN are the same."""
    try:
        with np.errstate(over="ignore"):
            table = np.array(body.split(), np.float64).reshape(points, columns)
            wanted = [c for c in layout if c[0] in ("x", "y", "z", *INTENSITY_NAMES)]
            kind = np.dtype([(name, "<" + DATATYPES[code]) for name, _, code in wanted])
            packed = np.zeros(points, kind)
            for name, column, _ in wanted:
                packed[name] = table[:, column]
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise EncodingError("PCD data do not fit the header") from error
    offsets: Mapping[str, Any] = kind.fields or {}
    fields = [PointField(name, offsets[name][1], code) for name, _, code in wanted]
    return decode_pointcloud2(
        fields, packed.tobytes(), width=points, height=1, point_step=kind.itemsize
    )

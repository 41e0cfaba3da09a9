"""PCD files (Point Cloud Library, format 0.7): ascii and binary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.adapters.pointcloud import DATATYPES, PointField, decode_pointcloud2
from perception.errors import EncodingError

_CODES = {np.dtype(v).str[1:]: k for k, v in DATATYPES.items()}


def read_pcd(path: Path) -> NDArray[np.float32]:
    """Read x, y, z and intensity (N, 4) float32 from a PCD file.

    Raises:
        EncodingError: the header is wrong, the data end early, or they are compressed.
    """
    content = Path(path).read_bytes()
    header, start = _header(content, str(path))
    try:
        names = header["FIELDS"]
        sizes, counts = [int(v) for v in header["SIZE"]], [int(v) for v in header["COUNT"]]
        kinds = [f"{t.lower()}{s}" for t, s in zip(header["TYPE"], sizes, strict=True)]
        points, form = int(header["POINTS"][0]), header["DATA"][0]
        offsets = np.cumsum([0, *(s * c for s, c in zip(sizes, counts, strict=True))]).tolist()
        fields = [
            PointField(n, o, _CODES[k]) for n, o, k in zip(names, offsets[:-1], kinds, strict=True)
        ]
    except (KeyError, ValueError, IndexError) as error:
        raise EncodingError(f"PCD header lacks or garbles {error}", where=str(path)) from error
    if form == "binary":
        body = content[start:]
        return decode_pointcloud2(fields, body, width=points, height=1, point_step=int(offsets[-1]))
    if form != "ascii":
        raise EncodingError(f"PCD data are {form}", where=str(path), hint="ascii or binary")
    return _ascii(content[start:], names, points, str(path))


def _header(content: bytes, where: str) -> tuple[dict[str, list[str]], int]:
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = content.find(b"\n", position)
        if end < 0 or end - position > 4096:
            raise EncodingError("no PCD header", where=where)
        words = content[position:end].decode("ascii", "replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    header.setdefault("COUNT", ["1"] * len(header.get("FIELDS", [])))
    return header, position


def _ascii(body: bytes, names: list[str], points: int, where: str) -> NDArray[np.float32]:
    try:
        table = np.array([float(v) for v in body.split()], np.float32).reshape(points, -1)
        columns = [names.index(n) for n in ("x", "y", "z")]
    except ValueError as error:
        raise EncodingError("PCD data do not fit the header", where=where) from error
    if table.shape[1] < len(names):
        raise EncodingError("PCD data do not fit the header", where=where)
    columns += [names.index("intensity")] if "intensity" in names else []
    return table[:, columns]

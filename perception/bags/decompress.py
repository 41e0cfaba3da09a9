"""Unpacking zstd and lz4 of any origin: never more bytes than are allowed for."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from perception.errors import AnySenseError, DataError, MissingDependencyError

_PIECE = 2**20


def unpack(
    data: bytes | memoryview, coding: str, limit: int, *, where: str
) -> bytes | bytearray | memoryview:
    """Bytes compressed with `coding`.

    Args:
        data: one or more frames.
        coding: `zstd`, `lz4`, or empty for bytes that are not compressed.
        limit: of the result.
        where: names the file in errors.

    Raises:
        DataError: damaged, of another coding, or more than `limit` bytes.
    """
    if not coding:
        if len(data) > limit:
            raise _too_large(limit, where)
        return data
    out = bytearray()
    for piece in unpack_stream(io.BytesIO(data), coding, where=where):
        out += piece
        if len(out) > limit:
            raise _too_large(limit, where)
    return out


def unpack_stream(source: BinaryIO, coding: str, *, where: str) -> Iterator[bytes]:
    """The same from an open file, piece by piece of at most 1 MiB and without a limit.

    Raises:
        DataError: damaged, cut off, or of another coding.
    """
    decompressor: Any = None
    pending = b""
    try:
        while True:
            needs_input = decompressor is None or decompressor.needs_input
            if needs_input and not pending:
                pending = source.read(_PIECE)
                if not pending:
                    break
            if decompressor is None:
                decompressor = _decompressor(coding, where)
            piece = decompressor.decompress(pending, max_length=_PIECE)
            pending = b""
            if piece:
                yield piece
            if decompressor.eof:
                pending, decompressor = decompressor.unused_data or b"", None
    except AnySenseError:
        raise
    except Exception as error:  # each library has its own errors, of Exception and of RuntimeError
        line = str(error) or type(error).__name__
        raise DataError(f"damaged {coding} data: {line}", where=where) from error
    if decompressor is not None:
        raise DataError(f"{coding} data end early", where=where)


def _decompressor(coding: str, where: str) -> Any:
    if coding not in ("zstd", "lz4"):
        raise DataError(
            f"compressed with '{coding[:40]}'", where=where, hint="zstd and lz4 can be read"
        )
    try:
        if coding == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            return LZ4FrameDecompressor()
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdDecompressor
        else:
            from backports.zstd import ZstdDecompressor
        return ZstdDecompressor()
    except ImportError as error:
        raise MissingDependencyError(
            f"{coding} cannot be unpacked", where=where, hint="pip install 'anysense[bags]'"
        ) from error


def _too_large(limit: int, where: str) -> DataError:
    return DataError(f"unpacks to more than {limit} bytes", where=where)

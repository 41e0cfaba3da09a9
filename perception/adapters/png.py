"""PNG files by their chunks (ISO/IEC 15948): checked, limited, and rid of what is not the picture."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from perception.adapters.exif import UPRIGHT, orientation_of
from perception.errors import EncodingError
from perception.files.limits import MAX_STEPS, check_pixels

MAGIC: Final = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6

_BITS = {
    GRAY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GRAY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
_PICTURE = (b"PLTE", b"IDAT")
_LONGEST = 2**31 - 1


@dataclass(frozen=True)
class Png:
    """Attributes:
    width, height: pixels.
    bits: of one stored sample: 1, 2, 4, 8 or 16.
    color: `GRAY`, `RGB`, `PALETTE`, `GRAY_ALPHA` or `RGBA`.
    interlaced: whether its rows are in the order of Adam7.
    orientation: of the eXIf chunk, 1 when there is none.
    chunks: PLTE and IDAT as they are in the file, with length and checksum.
    """

    width: int
    height: int
    bits: int
    color: int
    interlaced: bool
    orientation: int
    chunks: tuple[memoryview, ...]


def read_png(content: bytes) -> Png:
    """Walk through the chunks of a PNG.

    Raises:
        EncodingError: a chunk is damaged or missing, the file ends early, or the header makes no sense.
        InputError: more pixels than the limit.
    """
    view = memoryview(content)
    header: tuple[int, int, int, int, int] | None = None
    orientation = UPRIGHT
    chunks: list[memoryview] = []
    for kind, start, length in _walk(view):
        body = view[start : start + length]
        if header is None:
            header = _header(kind, body, view[start + length : start + length + 4])
        elif kind in _PICTURE:
            _check(kind, body, view[start + length : start + length + 4])
            chunks.append(view[start - 8 : start + length + 4])
        elif kind == b"eXIf":
            orientation = orientation_of(body.tobytes())
    if header is None or not any(bytes(c[4:8]) == b"IDAT" for c in chunks):
        raise EncodingError("PNG is damaged: it has no picture")
    width, height, bits, color, interlace = header
    return Png(width, height, bits, color, bool(interlace), orientation, tuple(chunks))


def _walk(view: memoryview) -> list[tuple[bytes, int, int]]:
    """Type, start and length of each chunk before the end."""
    found: list[tuple[bytes, int, int]] = []
    position = len(MAGIC)
    while position + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, position)
        kind = bytes(view[position + 4 : position + 8])
        if length > _LONGEST or position + 12 + length > len(view):
            break
        if kind == b"IEND":
            return found
        found.append((kind, position + 8, length))
        if len(found) > MAX_STEPS:
            raise EncodingError(f"PNG of more than {MAX_STEPS} chunks")
        position += 12 + length
    raise EncodingError("no complete image: the PNG ends early")


def _check(kind: bytes, body: memoryview, checksum: memoryview) -> None:
    if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
        raise EncodingError(f"PNG is damaged: checksum of {kind.decode('ascii')}")


def _header(kind: bytes, body: memoryview, checksum: memoryview) -> tuple[int, int, int, int, int]:
    if kind != b"IHDR" or len(body) != 13:
        raise EncodingError("PNG is damaged: it does not begin with its header")
    _check(kind, body, checksum)
    width, height, bits, color, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if bits not in _BITS.get(color, ()) or packing or filtering or interlace > 1:
        raise EncodingError(f"PNG is damaged: {bits} bit samples of color type {color}")
    check_pixels(width, height)
    return width, height, bits, color, interlace


def picture_bytes(png: Png) -> bytes:
    """The same picture as a PNG of nothing but header, palette and data.

    What is left out (text, color profiles, animation) changes no pixel, but may unpack to gigabytes.
    """
    return _assemble(png, png.color, png.chunks)


def index_bytes(png: Png) -> bytes:
    """A palette picture as the gray PNG of its indices: only the header tells the two apart."""
    return _assemble(png, GRAY, tuple(c for c in png.chunks if bytes(c[4:8]) != b"PLTE"))


def _assemble(png: Png, color: int, chunks: tuple[memoryview, ...]) -> bytes:
    body = struct.pack(
        ">IIBBBBB", png.width, png.height, png.bits, color, 0, 0, int(png.interlaced)
    )
    head = b"\0\0\0\x0dIHDR" + body + zlib.crc32(body, zlib.crc32(b"IHDR")).to_bytes(4, "big")
    end = b"\0\0\0\0IEND\xaeB`\x82"
    return b"".join((MAGIC, head, *chunks, end))

"""PNG chunks: files put together by hand from ISO/IEC 15948, tables 11.1 and 11.2."""

from __future__ import annotations

import struct
import zlib

import pytest

from perception.adapters.png import index_bytes, picture_bytes, read_png
from perception.errors import EncodingError

MAGIC = b"\x89PNG\r\n\x1a\n"
ALLOWED = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
TURNED = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0"
DATA = zlib.compress(bytes(100))


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(
    bits: int = 8, color: int = 0, packing: int = 0, filtering: int = 0, order: int = 0
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, bits, color, packing, filtering, order))


IMAGE, END = chunk(b"IDAT", DATA), chunk(b"IEND")


@pytest.mark.parametrize("color", range(8))
@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 32])
def test_the_bit_depths_of_the_standard_and_no_others(color: int, bits: int) -> None:
    content = MAGIC + header(bits, color) + IMAGE + END
    if bits in ALLOWED.get(color, ()):
        found = read_png(content)
        assert (found.width, found.height, found.bits, found.color) == (5, 3, bits, color)
    else:
        with pytest.raises(EncodingError, match=f"{bits} bit samples of color type {color}"):
            read_png(content)


def test_methods_that_the_standard_does_not_know_are_refused() -> None:
    for order, interlaced in ((0, False), (1, True)):
        assert read_png(MAGIC + header(order=order) + IMAGE + END).interlaced is interlaced
    for other in ({"packing": 1}, {"filtering": 1}, {"order": 2}):
        with pytest.raises(EncodingError, match="PNG is damaged"):
            read_png(MAGIC + header(**other) + IMAGE + END)


@pytest.mark.parametrize(
    "first",
    [b"", chunk(b"IHDR", bytes(12)), chunk(b"IHDR", bytes(14)), chunk(b"tEXt", header()[8:21])],
    ids=["none", "short", "long", "another"],
)
def test_the_first_chunk_is_the_header(first: bytes) -> None:
    with pytest.raises(EncodingError, match="does not begin with its header"):
        read_png(MAGIC + first + IMAGE + END)


def test_a_file_without_data_has_no_picture() -> None:
    for chunks in (b"", chunk(b"PLTE", bytes(6)), chunk(b"tEXt", b"IDAT\0IDAT")):
        with pytest.raises(EncodingError, match="it has no picture"):
            read_png(MAGIC + header() + chunks + END)
    with pytest.raises(EncodingError, match="it has no picture"):
        read_png(MAGIC + END)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_what_makes_the_picture_has_the_right_checksum(kind: bytes) -> None:
    content = bytearray(MAGIC + header(color=3) + chunk(b"PLTE", bytes(6)) + IMAGE + END)
    start = content.index(kind)
    (length,) = struct.unpack_from(">I", content, start - 4)
    content[start + 4 + length] ^= 1
    with pytest.raises(EncodingError, match=f"checksum of {kind.decode()}"):
        read_png(bytes(content))


@pytest.mark.parametrize("length", [1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"IEND", b"IDAT", b"tEXt"])
def test_a_chunk_that_is_longer_than_the_file_ends_it_early(kind: bytes, length: int) -> None:
    """The end, too, is one only with all of its bytes."""
    start = MAGIC + header() + IMAGE
    with pytest.raises(EncodingError, match="the PNG ends early"):
        read_png(start + struct.pack(">I", length) + kind + END[8:])
    assert read_png(start + chunk(b"tEXt") + END).width == 5


def test_only_exif_tells_the_orientation() -> None:
    for kind, orientation in ((b"eXIf", 6), (b"tEXt", 1), (b"zxIf", 1)):
        for chunks in (chunk(kind, TURNED) + IMAGE, IMAGE + chunk(kind, TURNED)):
            assert read_png(MAGIC + header() + chunks + END).orientation == orientation
    followed = chunk(b"eXIf", TURNED) + chunk(b"tEXt", b"a\0b") + IMAGE
    assert read_png(MAGIC + header() + followed + END).orientation == 6


def test_of_a_file_only_what_makes_the_picture_is_handed_on() -> None:
    palette = chunk(b"PLTE", bytes(range(6)))
    plain = MAGIC + header(color=3) + palette + IMAGE + IMAGE + END
    assert picture_bytes(read_png(plain)) == plain
    text = chunk(b"tEXt", b"a\0b")
    full = MAGIC + header(color=3) + text + palette + text + IMAGE + text + IMAGE + text + END
    assert picture_bytes(read_png(full + b"behind the end")) == plain
    assert index_bytes(read_png(full)) == MAGIC + header(color=0) + IMAGE + IMAGE + END

"""What a JPEG's markers say about it, before anything is decoded (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from perception.adapters.exif import UPRIGHT, orientation_of
from perception.errors import EncodingError
from perception.files.limits import MAX_JPEG_SCANS

MAGIC: Final = b"\xff\xd8"

_MARKER = re.compile(rb"\xff+([\x01-\xfe])")  # any number of fill bytes before the code
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # not tables, extensions, conditioning
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_FIRST_ARITHMETIC = 0xC9
_PIXELS_PER_BYTE = 8 * 64  # no Huffman code is shorter than a bit, and each block of 8x8 has one
_SCAN, _END, _APP1, _APP3 = 0xDA, 0xD9, 0xE1, 0xE3
_LARGEST_APP3 = 2**17  # what else is kept in APP3 is small
_MOST_MARKERS = 10_000


@dataclass(frozen=True)
class JpegHeader:
    """Attributes:
    width, height: pixels.
    channels: components: 1 gray, 3 color, 4 CMYK.
    orientation: EXIF orientation, 1 when there is none.
    radiometric: whose block of a thermal camera's raw values lies beside the picture: `FLIR`, `DJI`,
        or empty.
    arithmetic: whether it is coded arithmetically, not by Huffman.
    """

    width: int
    height: int
    channels: int
    orientation: int
    radiometric: str
    arithmetic: bool = False


def read_header(content: bytes) -> JpegHeader:
    """Size and kind of a JPEG.

    Raises:
        EncodingError: it is damaged or ends before the picture, or of a kind that is not decoded.
    """
    size: tuple[int, int, int] | None = None
    orientation, radiometric, arithmetic = UPRIGHT, "", False
    app3_bytes = 0
    position = len(MAGIC)
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(content, position)
        if found is None:
            break
        code, position = found.group(1)[0], found.end()
        if code in _WITHOUT_LENGTH:
            continue
        if code in (_SCAN, _END):
            break
        length = int.from_bytes(content[position : position + 2], "big")
        segment = content[position + 2 : position + length]
        if length < 2 or len(segment) < length - 2:
            break
        position += length
        if code in _FRAMES:
            if size is not None:
                raise EncodingError("JPEG has two frame headers")
            size, arithmetic = _frame(code, segment), code >= _FIRST_ARITHMETIC
        elif code == _APP1 and segment.startswith(b"Exif\0"):
            orientation = orientation_of(segment[6:])
        elif code == _APP1 and segment.startswith(b"FLIR\0"):
            radiometric = "FLIR"
        elif code == _APP3:
            app3_bytes += length
            radiometric = radiometric or ("DJI" if app3_bytes > _LARGEST_APP3 else "")
    if size is None:
        raise EncodingError("JPEG is damaged: no frame header before the picture")
    return JpegHeader(*size, orientation, radiometric, arithmetic)


def _frame(code: int, segment: bytes) -> tuple[int, int, int]:
    try:
        bits, height, width, channels = struct.unpack_from(">BHHB", segment)
    except struct.error as error:
        raise EncodingError("JPEG is damaged: short frame header") from error
    if code in _LOSSLESS or bits != 8:
        kind = "lossless" if code in _LOSSLESS else f"{bits} bit"
        raise EncodingError(f"{kind} JPEG", hint="8 bit baseline or progressive, or PNG")
    return width, height, channels


def refuse_incomplete(content: bytes, header: JpegHeader) -> None:
    """Refuse a JPEG that lacks its end or cannot hold its pixels, or whose decoding would take minutes.

    Raises:
        EncodingError: it ends early, or has more than `MAX_JPEG_SCANS` scans.
    """
    # Scan data hold no unescaped marker: after the last start of scan there must be an end.
    cut = content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    most = len(content) * _PIXELS_PER_BYTE
    if cut or (header.width * header.height > most and not header.arithmetic):
        raise EncodingError("no complete image: the JPEG ends early")
    if content.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise EncodingError(f"JPEG of more than {MAX_JPEG_SCANS} scans")

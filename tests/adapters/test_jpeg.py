"""JPEG markers: files put together by hand from ITU-T T.81, table B.1, annex B.2."""

from __future__ import annotations

import struct

import pytest

from perception.adapters.jpeg import JpegHeader, read_header, refuse_incomplete
from perception.errors import EncodingError
from perception.files.limits import MAX_JPEG_SCANS

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
TABLES_AND_RESERVED = (0xC4, 0xC8, 0xCC)  # DHT, JPG, DAC
ALONE = (0x01, *range(0xD0, 0xD8))  # TEM and RST0..RST7 have no length
APP1, APP2, APP3, COMMENT = 0xE1, 0xE2, 0xE3, 0xFE
TURNED = b"Exif\0\0" + b"II*\0\x08\0\0\0\1\0\x12\x01\3\0\1\0\0\0\6\0\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
FLIR = b"FLIR\0\1\0\0FFF\0" + bytes(20)


def segment(code: int, body: bytes = b"") -> bytes:
    """A marker with its length, which counts itself."""
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def frame(code: int = 0xC0, bits: int = 8) -> bytes:
    """The header of a gray frame, 40 wide and 24 high."""
    return segment(code, struct.pack(">BHHB", bits, 24, 40, 1) + b"\1\x11\0")


@pytest.mark.parametrize("code", range(0xC0, 0xD0))
def test_what_is_a_frame_and_of_which_kind(code: int) -> None:
    content = START + frame(code) + SCAN
    if code in TABLES_AND_RESERVED:
        with pytest.raises(EncodingError, match="no frame header"):
            read_header(content)
        assert read_header(START + frame(code) + frame() + SCAN).width == 40
    elif code in LOSSLESS:
        with pytest.raises(EncodingError, match="lossless JPEG"):
            read_header(content)
    else:
        arithmetic = code > 0xC8  # SOF9 and later
        assert read_header(content) == JpegHeader(40, 24, 1, 1, "", arithmetic)


@pytest.mark.parametrize("code", ALONE)
def test_markers_without_a_length_are_passed_over(code: int) -> None:
    """Were the next two bytes taken for a length, the frame would be skipped with the segment."""
    alone = bytes([0xFF, code])
    assert read_header(START + alone + frame() + SCAN).width == 40
    assert read_header(START + b"\xff\xff" + alone + b"\xff\xff" + frame() + SCAN).height == 24


@pytest.mark.parametrize("bits", [2, 12, 16])
def test_other_bit_depths_are_named(bits: int) -> None:
    with pytest.raises(EncodingError, match=f"{bits} bit JPEG"):
        read_header(START + frame(bits=bits) + SCAN)


def test_a_frame_behind_the_first_scan_or_the_end_is_not_looked_for() -> None:
    for stop in (SCAN, END):
        with pytest.raises(EncodingError, match="no frame header"):
            read_header(START + stop + frame())
        assert read_header(START + frame() + stop + frame()).width == 40
    scan = SCAN + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 63, 0)
    with pytest.raises(EncodingError, match="no frame header"):
        read_header(START + scan + frame())
    with pytest.raises(EncodingError, match="two frame headers"):
        read_header(START + frame() + frame())


@pytest.mark.parametrize("code", [0xC4, 0xCC, *range(0xDB, 0xFF)])
def test_tables_and_notes_may_come_before_the_frame(code: int) -> None:
    other = segment(code, b"\0" * 65)
    assert read_header(START + other + frame() + SCAN) == JpegHeader(40, 24, 1, 1, "")
    assert read_header(START + frame() + other + SCAN) == JpegHeader(40, 24, 1, 1, "")


@pytest.mark.parametrize("length", [0, 1])
def test_a_length_that_does_not_count_itself_ends_the_reading(length: int) -> None:
    with pytest.raises(EncodingError, match="no frame header"):
        read_header(START + struct.pack(">BBH", 0xFF, APP2, length) + frame() + SCAN)
    empty = segment(APP2)  # a length of 2 is all of the segment
    assert read_header(START + empty + frame() + SCAN).width == 40


def test_a_segment_that_the_file_ends_in_is_not_read() -> None:
    whole = START + frame()
    assert read_header(whole).width == 40
    for missing in range(1, len(whole) - 1):
        with pytest.raises(EncodingError, match="no frame header"):
            read_header(whole[:-missing])


def test_only_exif_tells_the_orientation() -> None:
    exif = segment(APP1, TURNED)
    assert read_header(START + exif + frame() + SCAN).orientation == 6
    for other in (segment(APP1, XMP), segment(APP1, FLIR)):  # share the marker
        assert read_header(START + exif + other + frame() + SCAN).orientation == 6
        assert read_header(START + other + exif + frame() + SCAN).orientation == 6
    for code in (APP2, APP3, COMMENT):  # may quote it
        assert read_header(START + segment(code, TURNED) + frame() + SCAN).orientation == 1


def test_whose_raw_values_lie_beside_the_picture() -> None:
    flir, raw = segment(APP1, FLIR), segment(APP3, bytes(65_533))
    small = segment(APP3, bytes(2000))
    for segments, maker in (
        ([], ""),
        ([flir], "FLIR"),
        ([flir, small], "FLIR"),
        ([flir, raw, raw, raw], "FLIR"),
        ([segment(APP2, FLIR)], ""),
        ([segment(APP1, XMP)], ""),
        ([small], ""),
        ([raw, raw, raw], "DJI"),
        ([small, raw, raw, raw, small], "DJI"),
    ):
        assert read_header(START + b"".join(segments) + frame() + SCAN).radiometric == maker


def test_a_block_takes_a_bit_at_least() -> None:
    """A byte holds eight blocks of 8 x 8 pixels: 512.  Arithmetic codes have no such bound."""
    content = START + frame() + SCAN + bytes(200) + END
    for more, refused in ((0, False), (1, True)):
        header = JpegHeader(512, len(content) + more, 1, 1, "")
        if refused:
            with pytest.raises(EncodingError, match="ends early"):
                refuse_incomplete(content, header)
        else:
            refuse_incomplete(content, header)
        arithmetic = JpegHeader(512, len(content) + more, 1, 1, "", arithmetic=True)
        refuse_incomplete(content, arithmetic)


def test_an_end_must_follow_the_last_scan_and_there_may_be_only_so_many() -> None:
    header = read_header(START + frame())
    most = START + frame() + SCAN * MAX_JPEG_SCANS
    refuse_incomplete(most + END, header)
    for content in (most, START + frame() + END + SCAN, START + frame() + SCAN):
        with pytest.raises(EncodingError, match="ends early"):
            refuse_incomplete(content, header)
    with pytest.raises(EncodingError, match="scans"):
        refuse_incomplete(most + SCAN + END, header)

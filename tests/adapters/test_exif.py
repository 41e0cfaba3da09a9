"""The orientation in an EXIF block, wherever the directory lies and whatever else is in it."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.adapters.exif import UPRIGHT, orientation_of

ORIENTATION, SHORT, LONG = 0x0112, 3, 4
Entry = tuple[int, int, int, int]


def block(entries: list[Entry], order: str = "<", start: int = 8, magic: int = 42) -> bytes:
    """A TIFF header whose first directory lies at `start`: tag, type, count and value of its entries."""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", magic, start)
    rows = [struct.pack(order + "HHIHH", *entry, 0) for entry in entries]
    count = struct.pack(order + "H", len(entries))
    return head + bytes(start - len(head)) + count + b"".join(rows) + bytes(4)


OTHERS = st.tuples(
    st.integers(0, 0xFFFF).filter(lambda tag: tag != ORIENTATION),
    st.sampled_from((1, 2, SHORT, LONG, 5)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 0xFFFF),
)


@given(
    st.lists(OTHERS, max_size=5),
    st.lists(OTHERS, max_size=5),
    st.integers(1, 8),
    st.sampled_from("<>"),
    st.integers(8, 40),
)
def test_it_is_found_among_others(
    before: list[Entry], after: list[Entry], value: int, order: str, start: int
) -> None:
    entries = [*before, (ORIENTATION, SHORT, 1, value), *after]
    assert orientation_of(block(entries, order, start)) == value
    assert orientation_of(block([*before, *after], order, start)) == UPRIGHT


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "entry",
    [
        (ORIENTATION + 1, SHORT, 1, 6),
        (ORIENTATION, LONG, 1, 6),
        (ORIENTATION, SHORT, 2, 6),
        (ORIENTATION, SHORT, 0, 6),
        (ORIENTATION, SHORT, 1, 0),
        (ORIENTATION, SHORT, 1, 9),
        (0x0100, SHORT, 1, 6),
    ],
)
def test_what_only_looks_like_it_is_not_taken(entry: Entry, order: str) -> None:
    assert orientation_of(block([entry], order)) == UPRIGHT


@pytest.mark.parametrize("order", "<>")
def test_what_is_no_tiff_header_is_not_read_as_one(order: str) -> None:
    good = block([(ORIENTATION, SHORT, 1, 6)], order)
    assert orientation_of(good) == 6
    assert orientation_of(block([(ORIENTATION, SHORT, 1, 6)], order, magic=43)) == UPRIGHT
    assert orientation_of(b"XX" + good[2:]) == UPRIGHT
    for end in range(len(good) - 6):  # the entry's value is not there
        assert orientation_of(good[:end]) == UPRIGHT


@given(st.binary(max_size=80))
def test_any_bytes_have_some_orientation(content: bytes) -> None:
    assert 1 <= orientation_of(content) <= 8
    assert 1 <= orientation_of(b"II*\0" + content) <= 8


@given(st.sets(st.sampled_from((0x010F, 0x0110, 0x0131, 0x0132))), st.integers(1, 8))
def test_as_another_reader_has_it(others: set[int], value: int) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[ORIENTATION] = value
    for tag in others:  # make, model, software, date
        exif[tag] = "text"
    out = io.BytesIO()
    image.new("RGB", (2, 2)).save(out, "JPEG", exif=exif.tobytes())
    assert image.open(io.BytesIO(out.getvalue())).getexif()[ORIENTATION] == value
    assert orientation_of(exif.tobytes().removeprefix(b"Exif\0\0")) == value

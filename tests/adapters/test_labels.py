"""Label PNGs of every kind: what is stored is the id."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perception.adapters.files import load_labels
from perception.adapters.pictures import decode_labels, decode_picture
from perception.errors import AnySenseError, EncodingError

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def scanlines(samples: np.ndarray, bits: int) -> bytes:
    """Unfiltered rows of an (H, W) array of samples, packed to `bits` each."""
    rows = b""
    for row in samples:
        text = "".join(f"{int(v):0{bits}b}" for v in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    return rows


def png(
    samples: np.ndarray, bits: int, color: int = GRAY, interlaced: bool = False, extra: bytes = b""
) -> bytes:
    """A PNG written from the specification, so that no library's reading of it is assumed."""
    height, width = samples.shape
    if interlaced:
        passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7]
        data = b"".join(scanlines(p, bits) for p in passes if p.size)
    else:
        data = scanlines(samples, bits)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    palette = b""
    if color == PALETTE:  # every entry the same color: only the index tells classes apart
        palette = chunk(b"PLTE", b"\7\7\7" * 2**bits) + chunk(b"tRNS", b"\0" * 2**bits)
    parts = (chunk(b"IHDR", header), palette, extra, chunk(b"IDAT", zlib.compress(data)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(
        [(GRAY, b) for b in (1, 2, 4, 8, 16)] + [(PALETTE, b) for b in (1, 2, 4, 8)]
    ),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    interlaced=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_stored_sample_is_the_id(
    kind: tuple[int, int], size: tuple[int, int], interlaced: bool, seed: int
) -> None:
    color, bits = kind
    ids = np.random.default_rng(seed).integers(0, 2**bits, size)
    got = decode_labels(png(ids, bits, color, interlaced))
    assert got.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(got, ids)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_pillow_masks(tmp_path: Path, mode: str) -> None:
    mask = np.zeros((32, 48), bool)
    mask[8:20, 10:30] = True
    image = Image.fromarray(mask if mode == "1" else mask.astype(np.uint8) * 255)
    if mode == "P":
        image = Image.fromarray(mask.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 255, 0, 0] * 3)
    image.save(tmp_path / "mask.png", optimize=True)
    want = mask.astype(np.uint8) * (255 if mode == "L" else 1)
    assert np.array_equal(load_labels(tmp_path / "mask.png"), want)


@pytest.mark.parametrize(
    ("mode", "named"),
    [("RGB", "colors (RGB or RGBA)"), ("RGBA", "colors (RGB or RGBA)"), ("LA", "gray with alpha")],
)
def test_label_pngs_with_colors_are_refused(tmp_path: Path, mode: str, named: str) -> None:
    Image.new(mode, (8, 6)).save(tmp_path / "colors.png")
    with pytest.raises(
        EncodingError, match=r"colors\.png.*gray or palette PNG.*index is the id"
    ) as told:
        load_labels(tmp_path / "colors.png")
    assert f"labels are {named}, " in str(told.value)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".bmp"])
def test_label_files_of_other_formats_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "labels.png"  # whatever the name says
    path.write_bytes(cv2.imencode(suffix, np.ones((8, 8), np.uint8))[1].tobytes())
    with pytest.raises(EncodingError, match="PNG"):
        load_labels(path)


def test_an_orientation_never_turns_labels() -> None:
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    ids = np.arange(12).reshape(3, 4)
    content = png(ids, 8, extra=chunk(b"eXIf", exif))
    assert np.array_equal(decode_labels(content), ids)
    assert np.array_equal(decode_picture(content).stored, ids)
    assert np.array_equal(decode_picture(content).upright(), np.rot90(ids, -1))


def test_every_byte_that_changes_is_noticed_or_changes_no_id() -> None:
    """A damaged label file never gives other ids."""
    ids = np.random.default_rng(0).integers(0, 5, (9, 7))
    good = png(ids, 4, PALETTE)
    for position in range(len(good)):
        for bit in (1, 128):
            bad = bytearray(good)
            bad[position] ^= bit
            try:
                assert np.array_equal(decode_labels(bytes(bad)), ids)
            except AnySenseError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("left", [0, 8, 20, 33, 60, -13, -12, -1])
def test_a_cut_png_is_named(left: int) -> None:
    content = png(np.zeros((9, 7), int), 8)
    with pytest.raises(EncodingError, match="no complete image"):
        decode_labels(content[:left])


def test_text_and_profiles_that_unpack_to_much_are_not_unpacked() -> None:
    bomb = zlib.compress(b"\0" * 2**26, 9)
    extra = chunk(b"zTXt", b"k\0\0" + bomb) + chunk(b"iCCP", b"p\0\0" + bomb)
    ids = np.arange(6).reshape(2, 3)
    assert np.array_equal(decode_labels(png(ids, 8, extra=extra)), ids)


def test_data_that_unpack_to_more_than_the_header_says_do_no_harm() -> None:
    rows = zlib.compress(scanlines(np.ones((2, 3), int), 8) + b"\0" * 2**26, 9)
    header = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
    try:
        assert (decode_labels(content + chunk(b"IEND", b"")) == 1).all()
    except EncodingError as error:
        assert "damaged" in str(error)


def test_an_animation_gives_its_still_picture() -> None:
    frames = [Image.fromarray(np.full((4, 5), v, np.uint8)) for v in (3, 9)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert (decode_labels(file.getvalue()) == 3).all()

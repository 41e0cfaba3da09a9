"""TIFF files of thermal and depth cameras."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perception.adapters.tiff import read_tiff
from perception.errors import AnySenseError, EncodingError
from perception.sensors.depth.decode import load_depth
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.thermal.decode import load_thermal

COUNTS = np.random.default_rng(0).integers(4000, 7000, (50, 70)).astype(np.uint16)


def tiff(array: np.ndarray = COUNTS, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **({"photometric": "minisblack"} | options))
    return file.getvalue()


def raw_tiff(tags: list[tuple[int, int, int, int]], data: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of one directory with the tags as given, its data at the end of the directory."""
    start = 8 + 2 + 12 * len(tags) + 4
    out = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    for tag, kind, count, value in sorted(tags):
        value = start if value == -1 else value
        short = kind == 3 and count == 1
        out += struct.pack(
            order + ("HHIHH" if short else "HHII"), tag, kind, count, value, *[0] * short
        )
    return out + struct.pack(order + "I", 0) + data


def gray_tags(width: int, height: int, size: int, **more: int) -> list[tuple[int, int, int, int]]:
    """What a radiometric camera writes: no photometric tag."""
    tags = {256: width, 257: height, 258: 16, 259: 1, 273: -1, 277: 1, 278: height, 279: size}
    tags |= {int(k[1:]): v for k, v in more.items()}
    return [(t, 4, 1, v) if t not in (258, 259, 277) else (t, 3, 1, v) for t, v in tags.items()]


@pytest.mark.parametrize("order", ["<", ">"])
def test_radiometric_files_without_photometric_tag(tmp_path: Path, order: str) -> None:
    data = COUNTS.astype(order + "u2").tobytes()
    (tmp_path / "a.tiff").write_bytes(raw_tiff(gray_tags(70, 50, len(data)), data, order))
    sample = load_thermal(tmp_path / "a.tiff")
    assert (sample.unit, sample.data.dtype) == ("counts16", np.float32)
    assert np.array_equal(sample.data, COUNTS)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "layout",
    [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"bigtiff": True}, {"compression": "zlib"},
     {"compression": "zlib", "tile": (16, 16)}],
    ids=["plain", "strips", "tiles", "bigtiff", "zlib", "zlib-tiles"],
)  # fmt: skip
def test_every_layout_gives_the_stored_samples(
    dtype: str, order: str, layout: dict[str, Any]
) -> None:
    array = (COUNTS // 32).astype(dtype)
    got = read_tiff(tiff(array, byteorder=order, **layout)).values
    assert got.dtype == np.dtype(dtype) and got.dtype.isnative
    assert np.array_equal(got, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("code", [5, 8, 32773], ids=["LZW", "deflate", "packbits"])
def test_what_opencv_writes_comes_back(tmp_path: Path, dtype: type, code: int) -> None:
    array = (COUNTS // 32).astype(dtype)
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), array, [cv2.IMWRITE_TIFF_COMPRESSION, code])
    assert np.array_equal(read_tiff(path.read_bytes()).values, array)
    color = np.dstack([array, array // 2, array // 4])
    cv2.imwrite(str(path), color, [cv2.IMWRITE_TIFF_COMPRESSION, code])
    assert np.array_equal(read_tiff(path.read_bytes()).values, color[..., ::-1])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_color_planes(tmp_path: Path, planar: str) -> None:
    color = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    stored = np.moveaxis(color, -1, 0) if planar == "separate" else color
    (tmp_path / "a.tif").write_bytes(tiff(stored, photometric="rgb", planarconfig=planar))
    assert np.array_equal(load_rgb(tmp_path / "a.tif").data, color)


def test_zero_may_be_white_in_a_picture_but_not_in_counts(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "a.tif").write_bytes(tiff(gray, photometric="miniswhite"))
    assert np.array_equal(load_rgb(tmp_path / "a.tif").data[..., 0], 255 - gray)
    assert np.array_equal(load_thermal(tmp_path / "a.tif").data, gray)


def test_several_pages_are_refused_and_previews_are_not(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(COUNTS, photometric="minisblack")
        writer.write(COUNTS[::2, ::2], photometric="minisblack", subfiletype=1)
    assert np.array_equal(read_tiff(file.getvalue()).values, COUNTS)
    (tmp_path / "a.tif").write_bytes(tiff(np.stack([COUNTS] * 3)))
    with pytest.raises(EncodingError, match=r"a\.tif: TIFF of several pages"):
        load_thermal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (raw_tiff(gray_tags(70, 50, 7000, t259=7), bytes(7000)), "compressed by JPEG"),
        (raw_tiff(gray_tags(70, 50, 7000, t259=50000), bytes(7000)), "compressed by ZSTD"),
        (raw_tiff(gray_tags(70, 50, 7000, t262=32803), bytes(7000)), "DNG"),
        (raw_tiff(gray_tags(70, 50, 7000, t262=34892), bytes(7000)), "DNG"),
        (raw_tiff(gray_tags(70, 50, 7000, t262=5), bytes(7000)), "color space"),
        (tiff(COUNTS.astype(np.complex64)), "64 bits, sample format COMPLEX"),
        (raw_tiff(gray_tags(70, 50, 7000, t258=12), bytes(7000)), "12 bits"),
        (raw_tiff(gray_tags(70, 50, 7000), bytes(6999)), "ends early"),
        (raw_tiff(gray_tags(70000, 50000, 7000), bytes(7000)), "limit"),
        (raw_tiff(gray_tags(2**32 - 1, 2**32 - 1, 7000), bytes(7000)), "limit"),
        (raw_tiff(gray_tags(70, 50, 7000, t277=60000), bytes(7000)), "samples a pixel|damaged"),
        (raw_tiff(gray_tags(70, 50, 7000, t259=5), bytes(7000)), "damaged|imagecodecs"),
        (b"II*\0", "damaged"),
        (b"II*\0\x08\0\0\0\xff\xff", "damaged|TIFF"),
        (b"MM\0+\0\x08\0\0" + b"\xff" * 8, "damaged"),
    ],
)
def test_what_is_wrong_is_named(content: bytes, what: str) -> None:
    with pytest.raises(AnySenseError, match=what) as caught:
        read_tiff(content)
    assert "\n" not in str(caught.value)


def test_fewer_tiles_than_the_size_needs_are_not_filled_up() -> None:
    content = bytearray(tiff(COUNTS, compression="zlib", tile=(16, 16)))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        tag = file.pages[0].tags[257]
    struct.pack_into({3: "<H", 4: "<I"}[int(tag.dtype)], content, tag.valueoffset, 9000)
    with pytest.raises(EncodingError, match="ends early"):
        read_tiff(bytes(content))
    struct.pack_into({3: "<H", 4: "<I"}[int(tag.dtype)], content, tag.valueoffset, 900_000)
    with pytest.raises(EncodingError, match="more than 65536 strips or tiles"):
        read_tiff(bytes(content))


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_strip_and_tile_must_be_there_to_its_last_byte(
    layout: dict[str, Any], compression: str | None
) -> None:
    content = tiff(COUNTS, compression=compression, **layout)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
    assert np.array_equal(read_tiff(content[:end]).values, COUNTS)
    for missing in (1, 40):
        with pytest.raises(EncodingError, match="ends early"):
            read_tiff(content[: end - missing])


@pytest.mark.parametrize("told", [0, 1, 6999, 7001, 2**31])
def test_a_wrong_count_matters_only_where_data_are_packed(told: int) -> None:
    data = COUNTS.astype("<u2").tobytes()
    assert np.array_equal(read_tiff(raw_tiff(gray_tags(70, 50, told), data)).values, COUNTS)
    if told in (0, 2**31):  # none, and more than there is
        with pytest.raises(EncodingError, match="ends early"):
            read_tiff(raw_tiff(gray_tags(70, 50, told, t259=8), zlib.compress(data)))


@pytest.mark.parametrize("compression", ["raw", "tiff_deflate", "tiff_lzw", "packbits"])
def test_a_palette_gives_its_colors(compression: str) -> None:
    """A palette of 16 bits holds each color of 8 bits times 256 or 257: the upper 8 are it."""
    indices = (np.arange(24) % 3).astype(np.uint8).reshape(4, 6)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 20, 30, 40, 254, 60, 70, 80, 129])
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    colors = np.array([[255, 20, 30], [40, 254, 60], [70, 80, 129]], np.uint8)
    assert np.array_equal(read_tiff(file.getvalue()).values, colors[indices])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_alpha_is_dropped_and_colors_are_kept(
    compression: str | None, dtype: str, channels: int
) -> None:
    """Of half floats, too, which OpenCV does not read, and whose rows are counted before unpacking."""
    stored = np.random.default_rng(3).integers(0, 256, (13, 17, channels)).astype(dtype)
    extra = {2: {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, 3: {}}
    options = {"photometric": "rgb", "planarconfig": "contig"} | extra.get(channels, {})
    got = read_tiff(tiff(stored, compression=compression, **options)).values
    assert np.array_equal(got, stored[..., 0] if channels == 2 else stored[..., :3])


def test_without_imagecodecs_a_strip_of_half_floats_unpacks_to_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    halves = (COUNTS // 32).astype("<f2").tobytes()
    for code, data, what in (
        (8, halves, ""),
        (8, halves + b"\0", "a strip unpacks to more than its rows"),
        (32946, halves + bytes(70), "a strip unpacks to more than its rows"),
        (5, halves, "compressed by LZW, of a kind that OpenCV does not read"),
        (32773, halves, "compressed by PACKBITS, of a kind that OpenCV does not read"),
    ):
        packed = zlib.compress(data)
        content = raw_tiff([*gray_tags(70, 50, len(packed), t259=code), (339, 3, 1, 3)], packed)
        if what:
            with pytest.raises(EncodingError, match=what):
                read_tiff(content)
        else:
            assert np.array_equal(read_tiff(content).values, COUNTS // 32)


def test_a_strip_that_unpacks_to_more_than_its_rows_is_refused() -> None:
    bomb = zlib.compress(bytes(2**28), 9)
    # Half floats, which OpenCV does not read
    tags = gray_tags(70, 50, len(bomb), t259=8)
    content = raw_tiff([*tags, (339, 3, 1, 3)], bomb)
    with pytest.raises(EncodingError, match="unpacks to more|damaged"):
        read_tiff(content)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317,
                             320, 322, 323, 324, 325, 330, 338, 339, 700, 34665, 32997, 50838]),
            st.integers(0, 18),
            st.sampled_from([0, 1, 2, 3, 5, 100, 2**16, 2**31, 2**32 - 1]),
            st.sampled_from([0, 1, 2, 3, 5, 8, 16, 64, 70, 300, 2**16 - 1]),
        ),
        max_size=14,
    ),
    st.binary(max_size=400),
    st.sampled_from("<>"),
)  # fmt: skip
def test_any_directory_decodes_or_gives_one_line(
    tags: list[tuple[int, int, int, int]], data: bytes, order: str
) -> None:
    base = {t[0]: t for t in gray_tags(8, 8, 128)}
    try:
        read_tiff(raw_tiff(list((base | {t[0]: t for t in tags}).values()), data, order))
    except AnySenseError as error:
        assert "\n" not in str(error)


@pytest.mark.realdata
def test_a_real_radiometric_camera(real_data: Path) -> None:
    files = sorted((real_data / "thermal_radiometric" / "thermal").glob("*.tiff"))
    assert files
    for path in files:
        sample = load_thermal(path)
        assert (sample.data.shape, sample.unit) == ((512, 640), "counts16")
        assert 1000 < np.median(sample.data) < 20000
        assert np.ptp(sample.data) > 100


def test_depth_in_tiff_is_metres(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COUNTS.astype(np.float32) / 1000)
    assert np.allclose(load_depth(tmp_path / "a.tif").data, COUNTS / 1000)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [0, 1, 2], ids=["unknown", "multiplied", "separate"])
def test_colors_are_not_multiplied_by_alpha(compression: str, order: str, alpha: int) -> None:
    """Nor turned or inverted: what is compressed comes back as what is not."""
    rgba = np.random.default_rng(2).integers(0, 256, (13, 17, 4), dtype=np.uint8)
    plain = tiff(rgba, photometric="rgb", extrasamples=[alpha], byteorder=order)
    assert np.array_equal(read_tiff(plain).values, rgba[..., :3])
    packed = _packed(rgba, compression, order, t338=alpha, t262=2)
    assert np.array_equal(read_tiff(packed).values, rgba[..., :3])


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_packed_samples_are_neither_turned_nor_inverted(
    compression: str, order: str, orientation: int, photometric: int, dtype: str
) -> None:
    counts = (COUNTS // (256 if dtype == "u1" else 1)).astype(dtype)
    packed = _packed(counts, compression, order, t274=orientation, t262=photometric)
    got = read_tiff(packed)
    assert np.array_equal(got.values, counts)
    assert (got.orientation, got.inverted) == (orientation, photometric == 0)


def _packed(array: np.ndarray, compression: str, order: str, **tags: int) -> bytes:
    """A compressed file of one strip, by libtiff's encoder, with other values in some tags."""
    image = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA)
    code = {"zlib": 8, "lzw": 5, "packbits": 32773}[compression]
    good, content = cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, code,
                                                 cv2.IMWRITE_TIFF_PREDICTOR, 1,
                                                 cv2.IMWRITE_TIFF_ROWSPERSTRIP, len(image)])  # fmt: skip
    assert good
    with tifffile.TiffFile(io.BytesIO(content.tobytes())) as file:
        page = file.pages[0]
        strip = content.tobytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
    if order == ">" and array.dtype.itemsize > 1:
        pytest.skip("the encoder writes little-endian samples")
    channels = 1 if array.ndim == 2 else array.shape[2]
    entries = [(256, 3, 1, array.shape[1]), (257, 3, 1, len(array)), (259, 3, 1, code),
               (273, 4, 1, 0), (277, 3, 1, channels), (278, 3, 1, len(array)),
               (279, 4, 1, len(strip)), (258, 3, 1, 8 * array.dtype.itemsize),
               *((int(k[1:]), 3, 1, v) for k, v in tags.items())]  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    extra = b""
    if channels > 1:
        entries[7] = (258, 3, channels, start)
        extra = struct.pack(f"{order}{channels}H", *[8] * channels)
    entries[3] = (273, 4, 1, start + len(extra))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, kind, count, value in sorted(entries):
        inline = kind == 3 and count == 1
        head += struct.pack(f"{order}HHI", tag, kind, count)
        head += struct.pack(f"{order}H2x", value) if inline else struct.pack(f"{order}I", value)
    return head + bytes(4) + extra + strip

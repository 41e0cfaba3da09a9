"""Raw `sensor_msgs/Image` encodings with planes, mosaics and 16 bits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.adapters import RawImage, decode_colors
from perception.errors import AnySenseError, EncodingError, InputError
from perception.files.limits import MAX_PIXELS
from perception.sensors.depth.decode import decode_depth
from perception.sensors.thermal.decode import decode_thermal

PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def planes(rgb: np.ndarray, encoding: str, padding: int = 0) -> tuple[bytes, int]:
    """The bytes and the step of a picture whose chroma is constant in blocks of 2x2."""
    height, width = rgb.shape[:2]
    flat = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma = flat[: height * width].reshape(height, width)
    u, v = flat[height * width :].reshape(2, height // 2, width // 2)
    pair = (v, u) if encoding == "nv21" else (u, v)
    if encoding == "nv24":
        pair = tuple(np.repeat(np.repeat(p, 2, 0), 2, 1) for p in pair)
    chroma = np.stack(pair, -1)
    step = width + padding
    rows = [np.pad(luma, ((0, 0), (0, padding)))]
    chroma = chroma.reshape(len(chroma), -1)
    rows.append(np.pad(chroma, ((0, 0), (0, padding * chroma.shape[1] // width))))
    return b"".join(r.tobytes() for r in rows), step


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 8), st.integers(1, 9)),
    padding=st.sampled_from([0, 2, 6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_planar_encoding_gives_the_same_picture(
    size: tuple[int, int], padding: int, seed: int
) -> None:
    blocks = np.random.default_rng(seed).integers(40, 216, (*size, 3), dtype=np.uint8)
    rgb = np.repeat(np.repeat(blocks, 2, 0), 2, 1)
    got = {}
    for encoding in ("nv12", "nv21", "nv24"):
        data, step = planes(rgb, encoding, padding)
        raw = RawImage(*rgb.shape[:2], encoding, data, step)
        got[encoding] = decode_colors(raw).astype(int)
        assert np.array_equal(decode_colors(RawImage(*rgb.shape[:2], encoding, data + b"tail", step)),
                              got[encoding])  # fmt: skip
        with pytest.raises(InputError, match="bytes"):
            decode_colors(RawImage(*rgb.shape[:2], encoding, data[: -2 * step - 1], step))
    assert np.abs(got["nv12"] - rgb).max() <= 4
    assert np.array_equal(got["nv12"], got["nv21"])
    assert np.abs(got["nv12"] - got["nv24"]).max() <= 2


def test_nv24_rows_have_twice_the_step_for_chroma() -> None:
    data = bytes([235] * 3 + [9] * 2) + bytes([128] * 6 + [9] * 4)
    got = decode_colors(RawImage(1, 3, "nv24", data, 5))
    assert got.tolist() == [[[255] * 3] * 3]


@pytest.mark.parametrize(
    ("encoding", "size"), [("nv12", (3, 4)), ("nv21", (4, 3)), ("uyvy", (2, 3))]
)
def test_odd_sizes_have_no_chroma(encoding: str, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="even sizes"):
        decode_colors(RawImage(*size, encoding, bytes(100)))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb16", (0, 1, 2)), ("bgr16", (2, 1, 0)), ("16UC3", (2, 1, 0)), ("rgba16", (0, 1, 2, 3)),
     ("bgra16", (2, 1, 0, 3)), ("16UC4", (2, 1, 0, 3))],
)  # fmt: skip
def test_color_of_16_bits(encoding: str, order: tuple[int, ...], big: bool) -> None:
    rgba = np.random.default_rng(0).integers(0, 65536, (3, 5, 4)).astype(">u2" if big else "<u2")
    data = np.ascontiguousarray(rgba[..., list(order)]).tobytes()
    got = decode_colors(RawImage(3, 5, encoding, data, is_bigendian=big))
    assert np.array_equal(got, rgba[..., :3] // 256)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("big", [False, True])
def test_mosaics_of_16_bits(pattern: str, big: bool) -> None:
    color = {"r": 200, "g": 100, "b": 30}
    mosaic = np.empty((8, 8), np.uint16)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = color[letter] * 256 + 77
    data = mosaic.astype(">u2" if big else "<u2").tobytes()
    got = decode_colors(RawImage(8, 8, f"bayer_{pattern}16", data, is_bigendian=big))
    assert got.shape == (8, 8, 3) and got.dtype == np.uint8
    assert got[4, 4].tolist() == [200, 100, 30]


@pytest.mark.parametrize("size", [(3, 4), (4, 3)])
@pytest.mark.parametrize("bits", [8, 16])
def test_mosaics_need_neighbors(size: tuple[int, int], bits: int) -> None:
    with pytest.raises(InputError, match="too small"):
        decode_colors(RawImage(*size, f"bayer_rggb{bits}", bytes(64)))
    assert decode_colors(RawImage(4, 4, f"bayer_rggb{bits}", bytes(64))).shape == (4, 4, 3)


@pytest.mark.parametrize("encoding", ["mono8", "rgb8", "bayer_rggb16", "nv12", "nv24", "32FC1"])
@pytest.mark.parametrize("step", [2**31 - 1, 2**32 - 1])
def test_a_step_of_gigabytes_costs_nothing(encoding: str, step: int) -> None:
    decode = decode_depth if encoding == "32FC1" else decode_colors
    if encoding in ("mono8", "rgb8", "32FC1"):
        data = b"\0\0\x80\x3f"
        got = decode(RawImage(1, 1, encoding, data, step))
        assert got.shape[:2] == (1, 1)
    with pytest.raises(InputError):
        decode(RawImage(4, 4, encoding, bytes(200), step))


def test_the_last_row_may_lack_its_padding() -> None:
    data = b"\1\2\3--\4\5\6"
    assert decode_colors(RawImage(2, 3, "mono8", data, 5))[..., 0].tolist() == [
        [1, 2, 3],
        [4, 5, 6],
    ]
    with pytest.raises(InputError, match="needs 3 bytes a row, has step 5 and 7 bytes"):
        decode_colors(RawImage(2, 3, "mono8", data[:-1], 5))


@pytest.mark.parametrize(
    "size", [(0, 5), (5, 0), (-1, 5), (2**32 - 1, 2**32 - 1), (1, MAX_PIXELS + 1)]
)
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="pixels"):
        decode_colors(RawImage(*size, "mono8", b"\0" * 64))


@pytest.mark.parametrize(
    "encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4", "rgb16", "bgra16"]
)
def test_color_mapped_thermal_is_named_as_such(encoding: str) -> None:
    kind = np.uint16 if "16" in encoding else np.uint8
    channels = 4 if "a" in encoding or "4" in encoding else 3
    gray = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8).astype(kind)
    pixels = np.dstack([gray] * 3 + [np.full_like(gray, 9)] * (channels - 3))
    values, unit = decode_thermal(RawImage(6, 8, encoding, pixels.tobytes()))
    assert np.array_equal(values, gray)  # gray in three channels
    assert unit == ("counts16" if kind is np.uint16 else "counts8")
    pixels[2, 3] = [200, 30, 60, 0][:channels]
    with pytest.raises(EncodingError, match="color-mapped"):
        decode_thermal(RawImage(6, 8, encoding, pixels.tobytes()))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["nv12", "nv21", "nv24", "rgb16", "bgra16", "bayer_gbrg16", "mono16", "uyvy"]),
    st.one_of(st.integers(-1, 9), st.sampled_from([2**31, 2**32 - 1])),
    st.one_of(st.integers(-1, 9), st.sampled_from([2**31, 2**32 - 1])),
    st.one_of(st.none(), st.integers(-1, 40), st.sampled_from([2**31, 2**32 - 1])),
    st.one_of(st.none(), st.binary(max_size=300)),
)
def test_any_planes_decode_or_give_one_line(
    encoding: str, height: int, width: int, step: int | None, data: bytes | None
) -> None:
    # What is None fits: rows without padding, and as many bytes as all planes need.
    bytes_per_pixel = {"rgb16": 6, "bgra16": 8, "bayer_gbrg16": 2, "mono16": 2, "uyvy": 2}
    row = bytes_per_pixel.get(encoding, 1) * width if step is None else step
    planes = {"nv12": 1.5, "nv21": 1.5, "nv24": 3}.get(encoding, 1)
    small = 0 <= height < 10 and 0 <= row < 100
    content = data if data is not None else bytes(int(row * height * planes) if small else 9)
    # A mosaic of 2x2 has no neighbors to take the other colors from.
    whole = step is None and data is None and height >= 4 and width >= 4
    decoded = 0
    for decode in (decode_colors, decode_thermal):
        try:
            image = decode(RawImage(height, width, encoding, content, row))
        except AnySenseError as error:
            assert "\n" not in str(error)
            continue
        decoded += 1
        assert (image[0] if isinstance(image, tuple) else image).shape[:2] == (height, width)
    assert decoded or not whole or height > 9 or width > 9 or height % 2 or width % 2


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((126, 128, 128), (128, 128, 128)),
        ((81, 90, 240), (254, 0, 0)),
        ((145, 54, 34), (0, 255, 1)),
        ((41, 240, 110), (0, 0, 255)),
    ],
)
@pytest.mark.parametrize(
    "encoding", ["nv12", "nv21", "nv24", "uyvy", "yuv422", "yuyv", "yuv422_yuy2"]
)
def test_the_primaries_of_bt601(
    encoding: str, yuv: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    y, u, v = yuv
    data = {
        "nv12": [y] * 4 + [u, v],
        "nv21": [y] * 4 + [v, u],
        "nv24": [y] * 4 + [u, v] * 4,
    }.get(encoding, [u, y, v, y] * 2 if encoding in ("uyvy", "yuv422") else [y, u, y, v] * 2)
    got = decode_colors(RawImage(2, 2, encoding, bytes(data))).astype(int)
    assert np.abs(got - rgb).max() <= 1


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("mono8", 3),
        ("8UC1", 3),
        ("mono16", 6),
        ("rgb8", 9),
        ("rgba8", 12),
        ("rgb16", 18),
        ("16UC4", 24),
    ],
)
def test_how_many_bytes_a_row_needs(encoding: str, packed: int) -> None:
    assert decode_colors(RawImage(2, 3, encoding, bytes(2 * packed))).shape == (2, 3, 3)
    for step, size in ((packed - 1, 2 * packed), (packed, 2 * packed - 1), (0, 2 * packed - 1)):
        with pytest.raises(InputError, match=f"needs {packed} bytes a row"):
            decode_colors(RawImage(2, 3, encoding, bytes(size), step))


def test_data_must_be_bytes() -> None:
    for data in ("text", [1, 2, 3], None, 7):
        with pytest.raises(InputError, match="expected bytes"):
            decode_colors(RawImage(1, 1, "mono8", data))  # type: ignore[arg-type]
    for kind in (bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)):
        assert decode_colors(RawImage(1, 1, "mono8", kind(b"\7"))).tolist() == [[[7, 7, 7]]]

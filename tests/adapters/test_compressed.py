"""CompressedImage: what image_transport's plugins write comes back, and nothing else gets through."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from perception.adapters.rvl import decode_rvl
from perception.errors import AnySenseError, EncodingError, InputError
from perception.files.limits import MAX_PIXELS
from perception.sensors.samples import to_sample

HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id="")
RANDOM = np.random.default_rng(0)
COLOR = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)
MILLIMETERS = RANDOM.integers(0, 6000, (6, 8), dtype=np.uint16)
MILLIMETERS[2, 3:] = 0


def _decoded(kind: str, data: bytes, format: str, unit: str = "auto") -> tuple[np.ndarray, str]:
    sample = to_sample(kind, SimpleNamespace(data=data, format=format, header=HEADER), unit)
    return sample.data, sample.unit


def _encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def _words(numbers: list[int]) -> bytes:
    """Numbers in groups of four bits, in words."""
    groups: list[int] = []
    for number in numbers:
        while number >= 8:
            groups.append(number & 7 | 8)
            number >>= 3
        groups.append(number)
    groups += [0] * (-len(groups) % 8)
    words = [
        sum(g << (28 - 4 * i) for i, g in enumerate(groups[at : at + 8]))
        for at in range(0, len(groups), 8)
    ]
    return struct.pack(f"<{len(words)}I", *words)


def encode_rvl(image: np.ndarray) -> bytes:
    """The code of Wilson's paper, one pixel after the other."""
    numbers: list[int] = []
    put = numbers.append
    values = image.reshape(-1).astype(int).tolist()
    place = previous = 0
    while place < len(values):
        end = place
        while end < len(values) and values[end] == 0:
            end += 1
        put(end - place)
        place = end
        while end < len(values) and values[end] != 0:
            end += 1
        put(end - place)
        for value in values[place:end]:
            difference = value - previous
            put(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = value
        place = end
    return _words(numbers)


def _transport(payload: bytes, scale: float = 0.0, offset: float = 0.0) -> bytes:
    return struct.pack("<iff", 0, scale, offset) + payload


def _rvl(image: np.ndarray) -> bytes:
    return struct.pack("<II", image.shape[1], image.shape[0]) + encode_rvl(image)


@pytest.mark.parametrize(
    "format", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", ""]
)
def test_png_colors_whatever_the_source_was(format: str) -> None:
    data = _encoded(".png", COLOR[..., ::-1])
    values, unit = _decoded("rgb", data, format)
    assert np.array_equal(values, COLOR) and unit == ""


def test_jpeg_and_gray_and_sixteen_bit_as_rgb() -> None:
    flat = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    data = _encoded(".jpg", flat[..., ::-1])
    values, _ = _decoded("rgb", data, "rgb8; jpeg compressed bgr8")
    assert np.abs(values.astype(int) - flat).max() <= 4
    gray, _ = _decoded("rgb", _encoded(".png", COLOR[..., 0]), "mono8; png")
    assert np.array_equal(gray, np.dstack([COLOR[..., 0]] * 3))
    wide, _ = _decoded("rgb", _encoded(".png", COLOR[..., 0] * np.uint16(256)), "png")
    assert np.array_equal(wide, gray)


def test_sixteen_bit_png_is_depth_in_millimetres_or_thermal_counts() -> None:
    data = _encoded(".png", MILLIMETERS)
    depth, _ = _decoded("depth", data, "16UC1; png compressed ")
    meters = np.where(MILLIMETERS > 0, MILLIMETERS / np.float32(1000), np.nan)
    assert np.allclose(depth, meters, equal_nan=True)
    counts, unit = _decoded("thermal", data, "mono16; png")
    assert unit == "counts16" and np.array_equal(counts, MILLIMETERS)
    kelvin, unit = _decoded("thermal", data, "png", "centikelvin")
    assert unit == "kelvin" and kelvin[0, 0] == np.float32(MILLIMETERS[0, 0]) * np.float32(0.01)


@pytest.mark.parametrize(
    ("format", "payload"),
    [
        ("16UC1; compressedDepth png", _encoded(".png", MILLIMETERS)),
        ("16UC1; compressedDepth", _encoded(".png", MILLIMETERS)),
        ("16UC1; compressedDepth rvl", _rvl(MILLIMETERS)),
    ],
)
def test_compressed_depth_of_millimetres(format: str, payload: bytes) -> None:
    depth, _ = _decoded("depth", _transport(payload), format)
    meters = np.where(MILLIMETERS > 0, MILLIMETERS / np.float32(1000), np.nan)
    assert depth.dtype == np.float32 and np.allclose(depth, meters, equal_nan=True)


@pytest.mark.parametrize("coding", ["png", "rvl"])
def test_compressed_depth_of_metres_is_inverse_depth(coding: str) -> None:
    # As the transport quantizes: q = scale / depth + offset, with 100 and 10 m its defaults.
    scale = 100.0 * 101.0
    offset = 1.0 - scale / 10.0
    meters = RANDOM.uniform(0.3, 9.5, (6, 8)).astype(np.float32)
    meters[1, 2] = np.nan
    stored = np.nan_to_num(scale / meters + offset).round().astype(np.uint16)
    payload = _rvl(stored) if coding == "rvl" else _encoded(".png", stored)
    data = _transport(payload, scale, offset)
    depth, _ = _decoded("depth", data, f"32FC1; compressedDepth {coding}")
    assert np.isnan(depth[1, 2])
    assert np.allclose(depth, meters, rtol=0, atol=0.01, equal_nan=True)


@given(
    npst.arrays(
        np.uint16,
        npst.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.one_of(st.just(0), st.integers(0, 65535), st.integers(990, 1010)),
    )
)
def test_rvl_there_and_back(image: np.ndarray) -> None:
    payload = np.frombuffer(encode_rvl(image), np.uint8)
    assert np.array_equal(decode_rvl(payload, image.shape[1], image.shape[0]), image)


@given(npst.arrays(np.uint16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_code_that_is_cut_is_refused(image: np.ndarray) -> None:
    whole = encode_rvl(image)
    for end in range(0, len(whole), 4):
        with pytest.raises(EncodingError, match="ends after"):
            decode_rvl(np.frombuffer(whole[:end], np.uint8), image.shape[1], image.shape[0])


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ([2**30 - 1, 0], "does not hold 2x2"),  # the longest number there may be
        ([2**30, 0], "more than 30 bits"),
        ([5, 0], "does not hold 2x2"),
        ([0, 5, 2, 2, 2, 2, 2], "does not hold 2x2"),
        ([1, 1, 6, 0, 0, 2, 0], "does not hold 2x2"),  # a run of nothing
    ],
)
def test_codes_of_no_such_image(numbers: list[int], word: str) -> None:
    with pytest.raises(EncodingError, match=word):
        decode_rvl(np.frombuffer(_words(numbers), np.uint8), 2, 2)


def test_a_code_may_begin_with_runs_of_nothing() -> None:
    got = decode_rvl(np.frombuffer(_words([0, 0, 0, 2, 20, 1, 2, 0]), np.uint8), 2, 2)
    assert got.tolist() == [[10, 9], [0, 0]]


@given(
    st.one_of(st.just(b""), st.binary(max_size=80)),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 10**6),
)
def test_any_rvl_is_an_image_or_a_typed_error(
    data: bytes, width: int, height: int, place: int
) -> None:
    whole = encode_rvl(np.random.default_rng(place).integers(0, 900, (height, width), np.uint16))
    start = place % (len(whole) + 1)
    changed = whole[:start] + data + whole[start + len(data) :]
    try:
        out = decode_rvl(np.frombuffer(changed, np.uint8), width, height)
    except EncodingError:
        assert data, "nothing was changed"
        return
    assert out.shape == (height, width)


@pytest.mark.parametrize(
    ("modality", "format", "data", "word"),
    [
        ("rgb", "jpeg", b"", "neither JPEG nor PNG"),
        ("rgb", "h264", b"\0\0\0\1\x67" + bytes(40), "h264"),
        ("rgb", "webp", _encoded(".webp", COLOR), "neither JPEG nor PNG"),
        ("rgb", "tiff", _encoded(".tiff", COLOR), "neither JPEG nor PNG"),
        ("rgb", "png", _encoded(".png", COLOR)[:-30], "complete"),
        ("rgb", "16UC1; compressedDepth png", _transport(b""), "expected colors"),
        ("depth", "png", _encoded(".png", COLOR), "one channel"),
        ("depth", "jpeg", _encoded(".jpg", COLOR[..., 0]), "scale"),
        ("depth", "16UC1; compressedDepth png", b"short", "5 bytes"),
        ("depth", "16UC1; compressedDepth png", _transport(b""), "neither JPEG nor PNG"),
        ("depth", "16UC1; compressedDepth png", _encoded(".png", MILLIMETERS), "neither"),
        ("depth", "32FC1; compressedDepth png", _transport(_encoded(".png", MILLIMETERS)), "0, 0"),
        (
            "depth",
            "32FC1; compressedDepth png",
            _transport(_encoded(".png", COLOR[..., 0]), 100.0),
            "one channel of 16 bit",
        ),
        (
            "depth",
            "32FC1; compressedDepth png",
            _transport(_encoded(".png", COLOR * np.uint16(99)), 100.0),
            "one channel of 16 bit",
        ),
        (
            "depth",
            "32FC1; compressedDepth png",
            _transport(_encoded(".png", MILLIMETERS), float("nan"), 1.0),
            "nan, 1",
        ),
        (
            "depth",
            "32FC1; compressedDepth png",
            _transport(_encoded(".png", MILLIMETERS), 1.0, float("inf")),
            "1, inf",
        ),
        ("depth", "16UC1; compressedDepth png", _transport(_encoded(".jpg", COLOR)), "a JPEG"),
        ("depth", "16UC1; compressedDepth rvl", _transport(bytes(7)), "size"),
        ("depth", "16UC1; compressedDepth rvl", _transport(bytes(8)), "0x0"),
        ("depth", "16UC1; compressedDepth rvl", _transport(_rvl(MILLIMETERS)[:-8]), "ends after"),
        (
            "depth",
            "16UC1; compressedDepth rvl",
            _transport(struct.pack("<II", 2**31, 2**31) + bytes(64)),
            str(MAX_PIXELS),
        ),
        (
            "depth",
            "16UC1; compressedDepth rvl",
            _transport(struct.pack("<II", 2, 2) + bytes(4000)),
            "limit",
        ),
    ],
)
def test_what_is_no_such_image(modality: str, format: str, data: bytes, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        _decoded(modality, data, format)
    assert len(str(caught.value).splitlines()) == 1


@given(
    st.sampled_from(["rgb", "depth", "thermal"]),
    st.sampled_from(["jpeg", "16UC1; compressedDepth png", "32FC1; compressedDepth rvl", ";;"]),
    st.sampled_from([_encoded(".png", MILLIMETERS), _encoded(".jpg", COLOR), _rvl(MILLIMETERS)]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
)
def test_flipped_bytes_give_an_image_or_a_typed_error(
    modality: str, format: str, payload: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(_transport(payload, 10100.0, -1009.0) if "Depth" in format else payload)
    for place, value in flips:
        data[place % len(data)] = value
    try:
        values, _ = _decoded(modality, bytes(data), format)
    except AnySenseError:
        return
    assert values.ndim == (3 if modality == "rgb" else 2)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_that_was_compressed_as_it_is_becomes_colors(
    suffix: str, dtype: type, pattern: str
) -> None:
    if suffix == ".jpg" and dtype == np.uint16:
        pytest.skip("no such JPEG")
    colors = dict(zip("rgb", (200, 100, 30), strict=True))
    cell = np.array([colors[c] for c in pattern], dtype).reshape(2, 2)
    mosaic = np.tile(cell, (8, 8)) * (256 if dtype == np.uint16 else 1)
    bits = 8 * np.dtype(dtype).itemsize
    format = f"bayer_{pattern}{bits}; {suffix[1:]} compressed bayer_{pattern}{bits}"
    got, _ = _decoded("rgb", _encoded(suffix, mosaic.astype(dtype)), format)
    assert got.shape == (16, 16, 3)
    inner = got[3:-3, 3:-3].reshape(-1, 3).astype(int)
    assert np.abs(inner - [200, 100, 30]).max() <= (12 if suffix == ".jpg" else 1)

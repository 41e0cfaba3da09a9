"""Image, depth and thermal encodings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.adapters import RawImage, decode_colors, decode_compressed
from perception.adapters.image import RGB_DECODERS
from perception.errors import AnySenseError, EncodingError, InputError
from perception.sensors.depth.decode import decode_depth, depth_from_array
from perception.sensors.thermal.decode import decode_thermal

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("rgb8", PICTURE),
        ("bgr8", PICTURE[..., ::-1]),
        ("rgba8", np.dstack([PICTURE, PICTURE[..., 0]])),
        ("bgra8", np.dstack([PICTURE[..., ::-1], PICTURE[..., 0]])),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_color_layouts_with_row_padding(encoding: str, stored: np.ndarray, padding: int) -> None:
    rows = np.ascontiguousarray(stored).reshape(6, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    raw = RawImage(6, 8, encoding, rows.tobytes(), rows.shape[1])
    assert np.array_equal(decode_colors(raw), PICTURE)


def test_rgb8_is_a_view() -> None:
    data = np.ascontiguousarray(PICTURE).tobytes()
    assert np.shares_memory(
        decode_colors(RawImage(6, 8, "rgb8", data)), np.frombuffer(data, np.uint8)
    )


def test_gray_images() -> None:
    gray = PICTURE[..., 0].copy()
    assert np.array_equal(decode_colors(RawImage(6, 8, "mono8", gray.tobytes()))[..., 2], gray)
    wide = (gray.astype(">u2") << 8) | 7
    raw = RawImage(6, 8, "mono16", wide.astype(">u2").tobytes(), is_bigendian=True)
    assert np.array_equal(decode_colors(raw)[..., 1], gray)


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", (1, 0)), ("yuv422_yuy2", (0, 1))])
def test_yuv_order(encoding: str, order: tuple[int, int]) -> None:
    pixels = np.empty((2, 4, 2), np.uint8)
    pixels[..., order[0]] = 200  # luma: bright
    pixels[..., order[1]] = 128  # chroma: neutral
    got = decode_colors(RawImage(2, 4, encoding, pixels.tobytes()))
    assert np.ptp(got) <= 2
    assert got.min() > 190


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_back_a_plain_color(pattern: str) -> None:
    color = {"r": 200, "g": 100, "b": 30}
    mosaic = np.empty((8, 8), np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = color[letter]
    got = decode_colors(RawImage(8, 8, f"bayer_{pattern}8", mosaic.tobytes()))
    assert got[4, 4].tolist() == [200, 100, 30]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images_come_back_as_rgb(suffix: str) -> None:
    flat = np.full((16, 16, 3), (250, 20, 60), np.uint8)
    ok, content = cv2.imencode(suffix, flat[..., ::-1])
    assert ok
    assert np.abs(decode_compressed(content.tobytes()).astype(int) - flat).max() <= 4


def test_depth_units_and_special_values() -> None:
    steps = np.array([[0, 1500], [65535, 1]], np.uint16)
    meters = decode_depth(RawImage(2, 2, "16UC1", steps.tobytes()))
    assert np.isnan(meters[0, 0])
    assert np.allclose(meters.ravel()[1:], [1.5, 65.535, 0.001])
    floats = np.array([[np.nan, np.inf, -np.inf, -1, 0, 2.5]], np.float32)
    got = decode_depth(RawImage(1, 6, "32FC1", floats.tobytes()))[0]
    assert np.isnan(got[[0, 3, 4]]).all()
    assert got[1] == np.inf
    assert got[2] == -np.inf
    assert got[5] == 2.5


def test_eight_bit_depth_needs_a_scale() -> None:
    with pytest.raises(InputError, match="scale"):
        depth_from_array(np.ones((2, 2), np.uint8))
    assert depth_from_array(np.full((2, 2), 51, np.uint8), 10 / 255)[0, 0] == pytest.approx(2.0)


def test_thermal_units() -> None:
    counts = np.array([[0, 29815]], np.uint16)
    values, unit = decode_thermal(RawImage(1, 2, "mono16", counts.tobytes()))
    assert (unit, values[0, 1]) == ("counts16", 29815)
    values, unit = decode_thermal(RawImage(1, 2, "mono16", counts.tobytes()), unit="centikelvin")
    assert unit == "kelvin"
    assert values[0, 1] == pytest.approx(298.15)
    assert np.isnan(values[0, 0])
    assert decode_thermal(RawImage(1, 2, "mono8", b"\1\2"))[1] == "counts8"
    with pytest.raises(EncodingError, match="cannot be"):
        decode_thermal(RawImage(1, 2, "mono8", b"\1\2"), unit="centikelvin")


@pytest.mark.parametrize("decode", [decode_colors, decode_depth, decode_thermal])
def test_unknown_encodings_are_named(decode) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EncodingError, match="jpeg2000"):
        decode(RawImage(2, 2, "jpeg2000", b"1234"))


@given(
    st.sampled_from([*RGB_DECODERS, "16UC1", "32FC1", "nonsense"]),
    st.integers(-1, 9),
    st.integers(-1, 9),
    st.integers(0, 40),
    st.binary(max_size=300),
    st.booleans(),
)
def test_any_message_decodes_or_gives_a_typed_error(
    encoding: str, height: int, width: int, step: int, data: bytes, big: bool
) -> None:
    raw = RawImage(height, width, encoding, data, step, big)
    for decode in (decode_colors, decode_depth, decode_thermal):
        try:
            decode(raw)
        except AnySenseError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_typed_error(data: bytes) -> None:
    try:
        decode_compressed(data)
    except EncodingError as error:
        assert "\n" not in str(error)

"""Picture files: formats, limits, orientation, bit depths; everything wrong is named."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from perception.adapters import decode_compressed, pictures
from perception.adapters.pictures import decode_picture, dim_remark, format_of, single_channel
from perception.errors import AnySenseError, EncodingError
from perception.files.limits import MAX_JPEG_SCANS, check_bytes
from perception.sensors.depth.decode import load_depth
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.thermal.decode import load_thermal

SCENE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encoded(suffix: str, image: np.ndarray = SCENE) -> bytes:
    done, content = cv2.imencode(suffix, image)
    assert done
    return content.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_camera_pictures_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    smooth = cv2.resize(SCENE[:3, :5], (40, 24))  # for JPEG's sake
    image = Image.fromarray(smooth)
    path = tmp_path / f"a.{kind.lower()}"
    if kind == "TIFF":
        image.save(path, tiffinfo={274: orientation})
    else:
        exif = image.getexif()
        exif[274] = orientation
        image.save(path, exif=exif, quality=95)
    want = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    got = load_rgb(path).data
    assert got.shape == want.shape
    assert np.abs(got.astype(int) - want).max() <= 4  # of JPEG decoders
    assert decode_picture(path.read_bytes()).orientation == orientation
    if kind != "TIFF":  # a message's raster is the one that its CameraInfo describes
        assert decode_compressed(path.read_bytes()).shape == (24, 40, 3)


def test_depth_is_never_turned(tmp_path: Path) -> None:
    steps = np.arange(1, 13, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(
        tmp_path / "d.tif", steps, photometric="minisblack", extratags=[(274, 3, 1, 6, True)]
    )
    assert np.allclose(load_depth(tmp_path / "d.tif").data, steps * 1e-3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_none(value: int) -> None:
    exif = b"II*\0\x08\0\0\0\1\0\x12\x01\3\0\1\0\0\0" + struct.pack("<HH", value, 0)
    content = encoded(".jpg")
    segment = b"Exif\0\0" + exif
    marker = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    assert decode_picture(content[:2] + marker + content[2:]).orientation == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a GIF", b"GIF89a" + bytes(30)),
        ("a BMP", encoded(".bmp")),
        ("a WebP", b"RIFF\x20\0\0\0WEBP" + bytes(30)),
        ("a HEIC", b"\0\0\0\x18ftypheic" + bytes(30)),
        ("an AVIF", b"\0\0\0\x18ftypavif" + bytes(30)),
        ("a JPEG 2000", b"\0\0\0\x0cjP  " + bytes(30)),
        ("a PNM", encoded(".ppm")),
        ("an OpenEXR", b"v/1\x01" + bytes(30)),
        ("an AppleDouble", b"\0\5\x16\7" + bytes(30)),
        ("a numpy array", b"\x93NUMPY" + bytes(30)),
    ],
)
def test_other_formats_are_named_whatever_the_suffix(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(EncodingError, match=rf"picture\.png: is {name}.* or TIFF"):
        load_rgb(tmp_path / "picture.png")
    with pytest.raises(EncodingError, match="expected JPEG or PNG"):
        decode_compressed(content)


@pytest.mark.parametrize("start", [b"RIFF\x20\0\0\0WAVE", b"RIFF\x20\0\0\0AVI ", b"RIFXabcdWEBP"])
def test_half_of_a_webps_beginning_is_none(start: bytes) -> None:
    with pytest.raises(EncodingError, match="no complete image"):
        format_of(start + bytes(30))


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.PNG").write_bytes(encoded(".png"))
    (tmp_path / "b.jpg").write_bytes(encoded(".png"))
    assert np.array_equal(load_rgb(tmp_path / "a.PNG").data, load_rgb(tmp_path / "b.jpg").data)
    assert np.array_equal(load_rgb(tmp_path / "b.jpg").data, SCENE[..., ::-1])


def test_messages_take_no_tiff() -> None:
    content = encoded(".tiff")
    assert format_of(content) == "TIFF"
    with pytest.raises(EncodingError, match="a TIFF, expected JPEG or PNG"):
        decode_compressed(content)


@pytest.mark.parametrize(
    ("stored", "want"),
    [
        (SCENE[..., 0], np.repeat(SCENE[..., :1], 3, 2)),
        (SCENE.astype(np.uint16) * 256 + 9, SCENE),
        (np.dstack([SCENE, SCENE[..., 0]]), SCENE),
    ],
)
@pytest.mark.parametrize("write", ["png", "tiff"])
def test_bit_depths_and_channels(
    tmp_path: Path, stored: np.ndarray, want: np.ndarray, write: str
) -> None:
    path = tmp_path / f"a.{write}"
    if write == "png":
        swapped = stored if stored.ndim == 2 else stored[..., [2, 1, 0, 3][: stored.shape[2]]]
        path.write_bytes(encoded(".png", swapped))
    else:
        color = "minisblack" if stored.ndim == 2 else "rgb"
        tifffile.imwrite(path, stored, photometric=color)
    assert np.array_equal(load_rgb(path).data, want)


def test_palette_pictures_show_their_colors(tmp_path: Path) -> None:
    image = Image.fromarray((np.arange(24) % 3).astype(np.uint8).reshape(4, 6)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for suffix in ("png", "tiff"):
        image.save(tmp_path / f"a.{suffix}")
        got = load_rgb(tmp_path / f"a.{suffix}").data
        assert np.array_equal(got, np.asarray(image.convert("RGB")))


def test_float_pictures_are_no_rgb(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 3), np.float32), photometric="rgb")
    with pytest.raises(EncodingError, match=r"a\.tif: float32 picture"):
        load_rgb(tmp_path / "a.tif")


def jpeg_claiming(width: int, height: int) -> bytes:
    content = bytearray(encoded(".jpg", SCENE))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def png_claiming(width: int, height: int) -> bytes:
    content = bytearray(encoded(".png", SCENE))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def tiff_claiming(width: int, height: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, SCENE[..., 0], photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        tags = tiff.pages[0].tags
        at = {tag: tags[tag].valueoffset for tag in (256, 257)}
        code = {tag: {3: "<H", 4: "<I"}[int(tags[tag].dtype)] for tag in (256, 257)}
    content = bytearray(file.getvalue())
    for tag, value in ((256, width), (257, height)):
        struct.pack_into(code[tag], content, at[tag], value)
    return bytes(content)


@pytest.mark.parametrize("make", [jpeg_claiming, png_claiming, tiff_claiming])
def test_a_header_that_claims_too_much_is_refused_before_decoding(
    make: Callable[[int, int], bytes],
) -> None:
    with pytest.raises(AnySenseError, match="more than the limit"):
        decode_picture(make(32000, 32000))
    with pytest.raises(AnySenseError):
        decode_picture(make(0, 5))
    with pytest.raises(AnySenseError):  # within the limit, but not what is there
        decode_picture(make(8000, 8000))


@pytest.mark.parametrize(
    ("content", "needed"),
    [
        (encoded(".png", SCENE), 960 * 4),
        (encoded(".jpg", SCENE), 960 * 4),
        (encoded(".png", SCENE.astype(np.uint16)), 960 * 4 * 2),
    ],
)
def test_a_decoder_is_given_room_for_four_channels_of_every_pixel(
    content: bytes, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 x 40 pixels, whatever channels the header tells; no more than the limit of bytes."""
    monkeypatch.setattr(pictures, "check_bytes", functools.partial(check_bytes, limit=needed))
    assert decode_picture(content).stored.shape == (24, 40, 3)
    monkeypatch.setattr(pictures, "check_bytes", functools.partial(check_bytes, limit=needed - 1))
    with pytest.raises(AnySenseError, match=f"{needed} bytes, more than the limit"):
        decode_picture(content)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(SCENE).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    assert decode_picture(content).stored.shape == SCENE.shape
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    with pytest.raises(EncodingError, match="scans"):
        decode_picture(content[:start] + scan * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", "12 bit JPEG"),
        (b"\xff\xc0", b"\xff\xc3", "lossless JPEG"),
        (b"\xff\xc0", b"\xff\xfe", "no frame header"),
    ],
)
def test_jpegs_of_other_kinds_are_named(old: bytes, new: bytes, what: str) -> None:
    with pytest.raises(EncodingError, match=what):
        decode_picture(encoded(".jpg").replace(old, new, 1))


def test_a_cut_jpeg_is_named() -> None:
    content = encoded(".jpg")
    for length in (len(content) - 2, len(content) // 2, 40, 3):
        with pytest.raises(EncodingError, match="complete|damaged"):
            decode_picture(content[:length])
    assert decode_picture(content + b"tail").stored.shape == SCENE.shape


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_pictures_decode_or_give_one_line(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        decode_picture(bytes(content)).rgb()
    except AnySenseError as error:
        assert "\n" not in str(error)


def _samples() -> list[bytes]:
    found = [encoded(s) for s in (".jpg", ".png", ".tiff")]
    for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}):
        file = io.BytesIO()
        tifffile.imwrite(file, SCENE[..., 0].astype(np.uint16), photometric="minisblack", **options)
        found.append(file.getvalue())
    return found


SAMPLES = _samples()


def test_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """What is wrong is said by the error alone."""
    log = cv2 if hasattr(cv2, "getLogLevel") else cv2.utils.logging
    level = log.getLogLevel()
    for content in SAMPLES:
        for bad in (content[: len(content) // 2], content[:60] + bytes(40) + content[100:]):
            if bad[:2] == b"\xff\xd8" and len(bad) == len(content):
                continue  # libjpeg takes bytes between markers, and says so itself
            with contextlib.suppress(AnySenseError):
                decode_picture(bad)
    assert capfd.readouterr().err == ""
    assert log.getLogLevel() == level


def test_false_colors_are_not_taken_for_temperatures(tmp_path: Path) -> None:
    gray = np.random.default_rng(1).integers(0, 256, (24, 40), dtype=np.uint8)
    (tmp_path / "iron.png").write_bytes(
        encoded(".png", cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO))
    )
    with pytest.raises(EncodingError, match=r"iron\.png: is color-mapped"):
        load_thermal(tmp_path / "iron.png")
    with pytest.raises(EncodingError, match="color-mapped"):
        single_channel(np.dstack([gray, np.zeros_like(gray), gray]))  # red equals blue
    (tmp_path / "gray.png").write_bytes(encoded(".png", np.dstack([gray] * 3)))
    assert np.array_equal(load_thermal(tmp_path / "gray.png").data, gray)


@pytest.mark.parametrize(
    ("most", "bits"), [(1, 8), (200, 8), (255, 8), (256, 9), (1023, 10), (4095, 12)]
)
def test_16_bit_colors_of_fewer_bits_are_remarked(most: int, bits: int) -> None:
    """Their upper 8 bits would be a black picture; what fits into a byte is one of 8 bits."""
    stored = np.zeros((4, 5, 3), np.uint16)
    stored[1, 2, 0] = most
    (line,) = dim_remark(encoded(".png", stored))
    assert line.startswith(f"has values up to {most}: {bits} bits in 16")


@pytest.mark.parametrize("most", [0, 4096, 65535])
def test_of_16_bit_colors_that_use_them_or_are_black_nothing_is_said(most: int) -> None:
    stored = np.zeros((4, 5, 3), np.uint16)
    stored[1, 2, 0] = most
    assert dim_remark(encoded(".png", stored)) == []

"""Color images: the encodings of `sensor_msgs/Image` and compressed images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.pictures import MESSAGE_FORMATS, decode_picture
from perception.errors import EncodingError, InputError, names_hint
from perception.files.limits import check_pixels

Bytes = bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True)
class RawImage:
    """The fields of a `sensor_msgs/Image`.

    Attributes:
        height, width: pixels.
        encoding: as in `sensor_msgs/image_encodings`.
        data: the rows, `step` bytes each.
        step: bytes from row to row; 0 means that rows follow each other without padding.
        is_bigendian: byte order of 16 and 32 bit values.
    """

    height: int
    width: int
    encoding: str
    data: Bytes
    step: int = 0
    is_bigendian: bool = False

    def rows(self, dtype: str, channels: int) -> NDArray[Any]:
        """The pixels as (H, W) or (H, W, channels) in native byte order, a view where it can be.

        Args:
            dtype: numpy type of one value, such as `u2`.
            channels: values per pixel.

        Raises:
            InputError: the size, step or number of bytes cannot be.
        """
        kind = np.dtype(dtype).newbyteorder(">" if self.is_bigendian else "<")
        table = self.byte_rows(self.height, self.width * channels * kind.itemsize)
        if kind.itemsize > 1:
            values = np.ascontiguousarray(table).view(kind)
            table = values if kind.isnative else values.astype(kind.newbyteorder("="))
        return table if channels == 1 else table.reshape(self.height, self.width, channels)

    def byte_rows(
        self, rows: int, packed: int, *, after: int = 0, steps: int = 1
    ) -> NDArray[np.uint8]:
        """The first `packed` bytes of each row, (rows, packed), a view.

        Args:
            rows: how many; the last one may come without its padding.
            packed: bytes that count of each.
            after: rows of one step that lie before, as those of another plane.
            steps: steps from row to row.

        Raises:
            InputError: the size, step or number of bytes cannot be.
        """
        what = f"{self.encoding} image of {self.width}x{self.height}"
        check_pixels(self.width, self.height, where=self.encoding)
        flat = byte_view(self.data, what)
        step = self.step * steps or packed
        start = after * step // steps
        if step < packed or flat.size < start + step * (rows - 1) + packed:
            raise InputError(
                f"{what} needs {packed} bytes a row, has step {step} and {flat.size} bytes"
            )
        flat = flat[start:]
        if step == packed:
            return flat[: rows * packed].reshape(rows, packed)
        # A view, since a step of gigabytes costs nothing to claim
        return np.lib.stride_tricks.as_strided(flat, (rows, packed), (step, 1))


def byte_view(data: Bytes, what: str) -> NDArray[np.uint8]:
    """The bytes of a message as a flat view.

    Raises:
        InputError: `data` is no contiguous buffer of bytes.
    """
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise InputError(f"{what} has data of {type(data).__name__}, expected bytes") from error


Decoder = Callable[[RawImage], NDArray[np.uint8]]


def _upper(wide: NDArray[Any]) -> NDArray[np.uint8]:
    """The upper 8 of 16 bits; 8 stay as they are."""
    return (wide >> 8).astype(np.uint8) if wide.dtype == np.uint16 else wide


def _color(channels: int, code: int | None, dtype: str = "u1") -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        pixels = _upper(raw.rows(dtype, channels))
        return pixels if code is None else cv2.cvtColor(np.ascontiguousarray(pixels), code)

    return decode


def _even(raw: RawImage, *, rows: bool) -> None:
    if raw.width % 2 or (rows and raw.height % 2):
        raise InputError(
            f"{raw.encoding} image of {raw.width}x{raw.height}: chroma needs even sizes"
        )


def _yuv422(code: int) -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        _even(raw, rows=False)
        return cv2.cvtColor(np.ascontiguousarray(raw.rows("u1", 2)), code)

    return decode


def _yuv420(code: int) -> Decoder:
    """A plane of luma, then half as many rows of chroma pairs, of the same step."""

    def decode(raw: RawImage) -> NDArray[np.uint8]:
        _even(raw, rows=True)
        table = raw.byte_rows(raw.height * 3 // 2, raw.width)
        return cv2.cvtColor(np.ascontiguousarray(table), code)

    return decode


# ITU-R BT.601 with luma 16..235, as OpenCV's codes for the other YUV encodings
_YUV_TO_RGB = np.array(
    [[1.164383, 0, 1.596027], [1.164383, -0.391762, -0.812968], [1.164383, 2.017232, 0]]
)
_YUV_TO_RGB = np.column_stack([_YUV_TO_RGB, _YUV_TO_RGB @ [-16.0, -128.0, -128.0]])


def _nv24(raw: RawImage) -> NDArray[np.uint8]:
    """A plane of luma, then as many rows of chroma pairs, of twice the step."""
    luma = raw.byte_rows(raw.height, raw.width)
    chroma = raw.byte_rows(raw.height, raw.width * 2, after=raw.height, steps=2)
    pairs = np.ascontiguousarray(chroma).reshape(raw.height, raw.width, 2)
    return cv2.transform(np.dstack([luma, pairs]), _YUV_TO_RGB)


def _bayer(code: int, dtype: str = "u1") -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        if raw.width < 4 or raw.height < 4:
            raise InputError(f"{raw.encoding} image of {raw.width}x{raw.height} is too small")
        return _upper(cv2.cvtColor(np.ascontiguousarray(raw.rows(dtype, 1)), code))

    return decode


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two of
# the first row: ROS's RGGB is OpenCV's BG.
_BAYER_CODES = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_COLORS = {
    "rgb{}": (3, None),
    "bgr{}": (3, cv2.COLOR_BGR2RGB),
    "{}UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba{}": (4, cv2.COLOR_RGBA2RGB),
    "bgra{}": (4, cv2.COLOR_BGRA2RGB),
    "{}UC4": (4, cv2.COLOR_BGRA2RGB),
    "mono{}": (1, cv2.COLOR_GRAY2RGB),
}
RGB_DECODERS: dict[str, Decoder] = {
    **{name.format(8): _color(*how) for name, how in _COLORS.items()},
    "8UC1": _color(1, cv2.COLOR_GRAY2RGB),
    **{name.format(16): _color(*how, "u2") for name, how in _COLORS.items()},
    "yuv422": _yuv422(cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _yuv422(cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _yuv422(cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _yuv422(cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _yuv420(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _yuv420(cv2.COLOR_YUV2RGB_NV21),
    "nv24": _nv24,
    **{f"bayer_{name}8": _bayer(code) for name, code in _BAYER_CODES.items()},
    **{f"bayer_{name}16": _bayer(code, "u2") for name, code in _BAYER_CODES.items()},
}


def decode_colors(raw: RawImage) -> NDArray[np.uint8]:
    """Decode a color or gray image to (H, W, 3) uint8 R, G, B.

    `rgb8` comes back as a view of the message.  `8UC3`, `8UC4` and their like of 16 bits are read in
    OpenCV's order (B, G, R), and `yuv422` is UYVY, as in ROS.  Of 16 bits the upper 8 are taken.  The
    planes of `nv12`, `nv21` (chroma of half the height) and `nv24` follow each other.

    Raises:
        EncodingError: the encoding is not known.
        InputError: size and bytes contradict each other.
    """
    decoder = RGB_DECODERS.get(raw.encoding)
    if decoder is None:
        raise EncodingError(
            f"unknown color encoding '{raw.encoding}'", hint=names_hint(raw.encoding, RGB_DECODERS)
        )
    return decoder(raw)


def decode_compressed(data: Bytes, format: str = "") -> NDArray[Any]:
    """Decode JPEG or PNG bytes to (H, W) or (H, W, 3) R, G, B, with 8 or 16 bit as stored.

    An EXIF orientation is left alone: a camera's `CameraInfo` describes the raster as it is stored.

    Args:
        data: the bytes of a `sensor_msgs/CompressedImage`.
        format: that message's `format`; only used to refuse what is no plain image.

    Raises:
        EncodingError: the bytes are neither, damaged, or end early.
        InputError: `data` is no buffer of bytes, or claims more pixels than the limit.
    """
    if "compresseddepth" in format.lower():
        raise EncodingError(
            f"format '{format}' is no plain image", hint="subscribe to the raw depth topic"
        )
    content = byte_view(data, "compressed image").tobytes()
    picture = decode_picture(content, MESSAGE_FORMATS)
    if picture.damage:
        warnings.warn(f"a compressed image {picture.damage}", stacklevel=2)
    return picture.stored

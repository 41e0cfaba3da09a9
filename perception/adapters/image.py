"""Color images: the encodings of `sensor_msgs/Image` and compressed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.pictures import MESSAGE_FORMATS, decode_picture
from perception.errors import EncodingError, InputError

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
        what = f"{self.encoding} image of {self.width}x{self.height}"
        kind = np.dtype(dtype).newbyteorder(">" if self.is_bigendian else "<")
        packed = self.width * channels * kind.itemsize
        step = self.step or packed
        if self.height < 1 or self.width < 1:
            raise InputError(f"{what} has no pixels")
        flat = byte_view(self.data, what)
        if step < packed or flat.size < step * (self.height - 1) + packed:
            raise InputError(
                f"{what} needs {packed} bytes a row, has step {step} and {flat.size} bytes"
            )
        if flat.size < step * self.height:  # the last row may come without its padding
            flat = np.concatenate([flat, np.zeros(step * self.height - flat.size, np.uint8)])
        table = flat[: step * self.height].reshape(self.height, step)[:, :packed]
        if kind.itemsize > 1:
            values = np.ascontiguousarray(table).view(kind)
            table = values if kind.isnative else values.astype(kind.newbyteorder("="))
        return table if channels == 1 else table.reshape(self.height, self.width, channels)


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


def _color(channels: int, code: int | None) -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        pixels = raw.rows("u1", channels)
        return pixels if code is None else cv2.cvtColor(np.ascontiguousarray(pixels), code)

    return decode


def _mono16(raw: RawImage) -> NDArray[np.uint8]:
    high = (raw.rows("u2", 1) >> 8).astype(np.uint8)  # type: ignore[operator]
    return cv2.cvtColor(high, cv2.COLOR_GRAY2RGB)


def _yuv(code: int) -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        if raw.width % 2:
            raise InputError(f"{raw.encoding} image has odd width {raw.width}")
        return cv2.cvtColor(np.ascontiguousarray(raw.rows("u1", 2)), code)

    return decode


def _bayer(code: int) -> Decoder:
    def decode(raw: RawImage) -> NDArray[np.uint8]:
        if raw.width < 4 or raw.height < 4:
            raise InputError(f"{raw.encoding} image of {raw.width}x{raw.height} is too small")
        return cv2.cvtColor(np.ascontiguousarray(raw.rows("u1", 1)), code)

    return decode


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two of
# the first row: ROS's RGGB is OpenCV's BG.
RGB_DECODERS: dict[str, Decoder] = {
    "rgb8": _color(3, None),
    "bgr8": _color(3, cv2.COLOR_BGR2RGB),
    "8UC3": _color(3, cv2.COLOR_BGR2RGB),
    "rgba8": _color(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _color(4, cv2.COLOR_BGRA2RGB),
    "8UC4": _color(4, cv2.COLOR_BGRA2RGB),
    "mono8": _color(1, cv2.COLOR_GRAY2RGB),
    "8UC1": _color(1, cv2.COLOR_GRAY2RGB),
    "mono16": _mono16,
    "yuv422": _yuv(cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _yuv(cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _yuv(cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _yuv(cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": _bayer(cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _bayer(cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _bayer(cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _bayer(cv2.COLOR_BayerGB2RGB),
}


def decode_rgb(raw: RawImage) -> NDArray[np.uint8]:
    """Decode a color or gray image to (H, W, 3) uint8 R, G, B.

    `rgb8` comes back as a view of the message.  `8UC3` and `8UC4` are read in OpenCV's order (B, G,
    R), and `yuv422` is UYVY, as in ROS.

    Raises:
        EncodingError: the encoding is not known.
        InputError: size and bytes contradict each other.
    """
    decoder = RGB_DECODERS.get(raw.encoding)
    if decoder is None:
        raise EncodingError(
            f"unknown color encoding '{raw.encoding}'", where="rgb", hint=", ".join(RGB_DECODERS)
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
    return decode_picture(content, MESSAGE_FORMATS).stored

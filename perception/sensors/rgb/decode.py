"""Colors from arrays, messages and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.compressed import (
    colors_of,
    decode_compressed_image,
    is_depth_transport,
)
from perception.adapters.files import naming, picture_of, picture_remarks
from perception.adapters.image import RGB_DECODERS, RawImage, decode_colors
from perception.adapters.messages import COMPRESSED, IMAGE, raw_of, type_of
from perception.errors import EncodingError, InputError
from perception.files.text import read_bytes
from perception.frame import Sample, shape_hint
from perception.sensors.kind import Hints

ROS_TYPES = (IMAGE, COMPRESSED)


def from_array(array: NDArray[Any], hints: Hints) -> Sample:
    """(H, W), (H, W, C) of uint8 or uint16, of `hints.encoding`; `rgb8` if none is given."""
    encoding = hints.encoding or "rgb8"
    return Sample("rgb", _colors(array, encoding), encoding=encoding)


def from_message(message: Any, hints: Hints) -> Sample:
    """An `Image` or `CompressedImage`."""
    if type_of(message) == IMAGE:
        return Sample("rgb", decode_colors(raw_of(message)), encoding=message.encoding)
    if is_depth_transport(message.format):
        raise EncodingError(f"format '{message.format}' is depth, expected colors")
    image = decode_compressed_image(message.data, message.format)
    return Sample("rgb", colors_of(image, message.format), encoding=message.format)


def from_file(path: Path, hints: Hints) -> Sample:
    """See `load_rgb`."""
    return load_rgb(path)


def remarks(path: Path) -> list[str]:
    """Turned, dim or damaged."""
    return picture_remarks(path, dim=True)


def load_rgb(path: Path) -> Sample:
    """A color or gray picture (JPEG, PNG or TIFF, 8 or 16 bit) as an rgb sample.

    It is turned upright as its EXIF or TIFF orientation says.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no picture, or cut off.
    """
    with naming(path):
        return Sample("rgb", picture_of(read_bytes(path), path).rgb(), encoding="rgb8")


def _channels(encoding: str) -> int:
    """Values of one pixel."""
    if encoding.startswith(("rgba", "bgra")) or encoding.endswith("C4"):
        return 4
    if encoding.startswith(("rgb", "bgr")) or encoding.endswith("C3"):
        return 3
    return 2 if encoding.startswith(("yuv", "uyvy", "yuyv")) else 1


def _colors(array: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"shape {array.shape} is no picture", hint=shape_hint(array.shape, 3) or "(H, W, 3)"
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    dtype, wanted = np.dtype(np.uint16 if "16" in encoding else np.uint8), _channels(encoding)
    fits = channels == wanted or encoding not in RGB_DECODERS
    if not fits or array.dtype.newbyteorder("=") != dtype:
        shape = f"(H, W, {wanted})" if wanted > 1 else "(H, W)"
        raise InputError(f"{array.dtype} {array.shape} is not {encoding}", hint=f"{shape} {dtype}")
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array, dtype.newbyteorder("<")).reshape(height, -1)
    raw = RawImage(height, width, encoding, rows.view(np.uint8).reshape(-1), rows.strides[0])
    return decode_colors(raw)

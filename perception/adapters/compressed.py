"""`sensor_msgs/CompressedImage`: JPEG and PNG, and the `compressedDepth` transport of depth images.

Formats are those of ROS's image_transport_plugins: `jpeg`, `png`, `rgb8; jpeg compressed bgr8`,
`16UC1; compressedDepth png`, `32FC1; compressedDepth rvl` and their like.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.image import Bytes, RawImage, byte_view, decode_colors, decode_compressed
from perception.adapters.pictures import single_channel
from perception.adapters.rvl import decode_rvl
from perception.errors import EncodingError
from perception.files.limits import check_pixels

_MAGICS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_DEPTH_HEADER = struct.Struct("<iff")  # which coding; the two parameters of inverse depth
_RVL_SIZE = struct.Struct("<II")  # width, height


def is_depth_transport(format: str) -> bool:
    """Whether a `CompressedImage` of this format came by the `compressedDepth` transport."""
    return "compresseddepth" in format.lower()


def decode_compressed_image(data: Bytes, format: str) -> NDArray[Any]:
    """Decode the bytes of a `CompressedImage` of any format.

    Returns:
        (H, W) or (H, W, 3) R, G, B, with 8 or 16 bit as stored; (H, W) float32 metres where a depth
        transport's source was `32FC1`.

    Raises:
        EncodingError: neither JPEG, PNG nor compressedDepth, or cut off.
    """
    flat = byte_view(data, "compressed image")
    if is_depth_transport(format):
        return _decode_depth_transport(flat, format)
    _check_magic(flat, format)
    return decode_compressed(flat, format)


def colors_of(image: NDArray[Any], format: str) -> NDArray[np.uint8]:
    """A decoded `CompressedImage` as (H, W, 3) uint8 RGB; mosaics as the camera sent them, too."""
    mosaic = format.partition(";")[0].strip()
    if image.ndim == 2 and mosaic.startswith("bayer_"):
        pattern = mosaic.rstrip("0123456789")
        raw = np.ascontiguousarray(image, image.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        height, width = image.shape
        return decode_colors(RawImage(height, width, f"{pattern}{8 * image.dtype.itemsize}", raw))
    if image.dtype != np.uint8:
        image = (image >> 8).astype(np.uint8)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def gray_of(image: NDArray[Any]) -> NDArray[Any]:
    """A decoded `CompressedImage` as (H, W).

    Raises:
        EncodingError: it has colors.
    """
    try:
        return single_channel(image)
    except EncodingError as error:
        raise EncodingError(f"compressed image {error.message}", hint=error.hint) from error


def _check_magic(flat: NDArray[np.uint8], format: str) -> str:
    start = flat[:8].tobytes()
    found = next((name for magic, name in _MAGICS.items() if start.startswith(magic)), "")
    if not found:
        raise EncodingError(
            f"compressed image of format '{format}' is neither JPEG nor PNG",
            hint="record or subscribe to the raw topic",
        )
    return found


def _decode_depth_transport(flat: NDArray[np.uint8], format: str) -> NDArray[Any]:
    """(H, W) uint16 as stored, or float32 metres where the source was 32FC1."""
    if flat.size < _DEPTH_HEADER.size:
        raise EncodingError(f"{flat.size} bytes are no compressedDepth")
    _, scale, offset = _DEPTH_HEADER.unpack(flat[: _DEPTH_HEADER.size].tobytes())
    source, _, coding = format.partition(";")
    payload = flat[_DEPTH_HEADER.size :]
    if coding.lower().split()[-1:] == ["rvl"]:
        if payload.size < _RVL_SIZE.size:
            raise EncodingError("compressedDepth rvl ends before its size")
        width, height = _RVL_SIZE.unpack(payload[: _RVL_SIZE.size].tobytes())
        check_pixels(width, height, error=EncodingError)
        stored: NDArray[Any] = decode_rvl(payload[_RVL_SIZE.size :], width, height)
    else:
        if _check_magic(payload, format) != "png":
            raise EncodingError(f"format '{format}' holds a JPEG, expected PNG")
        stored = decode_compressed(payload)
    if source.strip() != "32FC1":
        return stored
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise EncodingError("inverse depth must be one channel of 16 bit")
    return _from_inverse(stored, scale, offset)


def _from_inverse(stored: NDArray[np.uint16], scale: float, offset: float) -> NDArray[np.float32]:
    """Metres from quantized inverse depth, 0 = no return."""
    if not (np.isfinite([scale, offset]).all() and scale > 0):
        raise EncodingError(f"inverse depth with parameters {scale:g}, {offset:g}")
    with np.errstate(divide="ignore"):
        meters = np.float32(scale) / (stored.astype(np.float32) - np.float32(offset))
    meters[(stored == 0) | ~(meters > 0)] = np.nan
    return meters

"""TIFF files (revision 6.0, BigTIFF) of one page, as thermal and depth cameras write them.

tifffile reads what OpenCV does not: 16 bit and float rasters without a photometric tag, and all of
NumPy's types.  Only what it claims within the limits of `perception.files.limits` is decoded.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.quiet import quiet_decoders
from perception.errors import AnySenseError, EncodingError
from perception.files.limits import MAX_TIFF_SEGMENTS, check_bytes, check_pixels

MAGICS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_COMPRESSIONS = {_NONE, _LZW, *_DEFLATE, _PACKBITS}
_PHOTOMETRIC, _ORIENTATION = 262, 274
_INVERTED, _GRAY, _RGB, _PALETTE = 0, 1, 2, 3
_EXTRA_SAMPLES, _MULTIPLIED, _SHORT = 338, 1, 3
_NEUTRAL = {_PHOTOMETRIC: _GRAY, _ORIENTATION: 1, _EXTRA_SAMPLES: _MULTIPLIED}
"""Values of tags at which libtiff leaves the samples alone."""
_RAW = {32803: "a camera's raw mosaic (DNG)", 34892: "a camera's raw data (DNG)"}
_MOST_PREVIEWS, _MOST_SAMPLES = 8, 4

# Without a handler, what tifffile thinks of a file would go to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffPicture:
    """Attributes:
    values: (H, W) or (H, W, C) in R, G, B order, the stored samples in native byte order.
    inverted: whether 0 is said to be white; the values are as stored.
    orientation: 1..8 as in EXIF.
    """

    values: NDArray[Any]
    inverted: bool
    orientation: int


def read_tiff(content: bytes) -> TiffPicture:
    """Decode the one page of a TIFF; further pages may only be previews.

    Raises:
        EncodingError: it is damaged, ends early, has several pages, or is of a kind that is not read.
        InputError: more pixels or bytes than the limits.
    """
    import tifffile  # a slow import, and no message of a robot's needs it

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages[0]
            _refuse_pages(file)
            _check(page, len(content))
            return _read(page, content)
    except AnySenseError:
        raise
    except Exception as error:  # hostile directories lead the parser to any of Python's own
        raise EncodingError("TIFF is damaged") from error


def _refuse_pages(file: Any) -> None:
    for index in range(1, _MOST_PREVIEWS):
        try:
            page = file.pages[index]
        except IndexError:
            return
        if not page.is_reduced:
            break
    raise EncodingError("TIFF of several pages", hint="write one file a frame")


def _check(page: Any, available: int) -> None:
    """Compare everything that the directory claims with the limits and with what is there."""
    check_pixels(page.imagewidth, page.imagelength)
    photometric = page.tags.valueof(_PHOTOMETRIC)
    if photometric in _RAW:
        raise EncodingError(f"TIFF holds {_RAW[photometric]}", hint="convert it to 8 or 16 bit RGB")
    if photometric not in (None, _INVERTED, _GRAY, _RGB, _PALETTE):
        raise EncodingError(
            f"TIFF of color space {_name(page.photometric)}", hint="gray, RGB or palette"
        )
    if int(page.compression) not in _COMPRESSIONS:
        raise EncodingError(
            f"TIFF compressed by {_name(page.compression)}",
            hint="save it uncompressed, or with LZW or Deflate",
        )
    bits = page.bitspersample
    if page.dtype is None or bits not in (8, 16, 32, 64) or page.dtype.kind not in "iuf":
        raise EncodingError(
            f"TIFF with samples of {bits} bits, sample format {_name(page.sampleformat)}",
            hint="8, 16, 32 or 64 bit integers or floats",
        )
    if page.samplesperpixel > _MOST_SAMPLES or page.axes not in ("YX", "YXS", "SYX"):
        raise EncodingError(f"TIFF of {page.samplesperpixel} samples a pixel, axes {page.axes}")
    check_bytes(page.nbytes)
    width, length = _segment(page)
    check_pixels(width, length)
    segments = -(-page.imagewidth // width) * -(-page.imagelength // length)
    if page.axes == "SYX":
        segments *= page.samplesperpixel
    if max(segments, len(page.dataoffsets)) > MAX_TIFF_SEGMENTS:
        raise EncodingError(f"TIFF of more than {MAX_TIFF_SEGMENTS} strips or tiles")
    _check_data(page, segments, available)


def _segment(page: Any) -> tuple[int, int]:
    """Width and length of a tile, or of a strip."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _check_data(page: Any, segments: int, available: int) -> None:
    offsets, counts = page.dataoffsets, page.databytecounts
    complete = len(offsets) == len(counts) >= segments and all(
        count > 0 and offset + count <= available
        for offset, count in zip(offsets, counts, strict=True)
    )
    if int(page.compression) == _NONE and page.is_contiguous:
        # Some cameras count wrongly where it does not matter
        complete = bool(offsets) and offsets[0] + page.nbytes <= available
    elif int(page.compression) == _NONE:
        complete = complete and sum(counts) >= page.nbytes
    if not complete:
        raise EncodingError("no complete image: the TIFF ends early")


def _read(page: Any, content: bytes) -> TiffPicture:
    orientation = page.tags.valueof(_ORIENTATION)
    orientation = orientation if orientation in range(1, 9) else 1
    photometric = page.tags.valueof(_PHOTOMETRIC)
    values = _by_opencv(page, content) if int(page.compression) != _NONE else None
    if values is None:
        values = _by_tifffile(page, content)
        if photometric == _PALETTE:
            values = _colors(page.colormap, values)
    return TiffPicture(values, photometric == _INVERTED, orientation)


def _by_opencv(page: Any, content: bytes) -> NDArray[Any] | None:
    """What libtiff makes of compressed data, in memory that the directory bounds; None if it cannot."""
    plain = _as_stored(page, content)
    if plain is None:
        return None
    with quiet_decoders():
        try:
            image = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None
    palette = page.tags.valueof(_PHOTOMETRIC) == _PALETTE
    if image is None or (image.dtype != page.dtype.newbyteorder("=") and not palette):
        return None
    if image.ndim == 3 and image.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        image = cv2.cvtColor(image, code)
    same = image.shape[:2] == (page.imagelength, page.imagewidth)
    return image if same and (image.ndim == 3) == (page.samplesperpixel > 1 or palette) else None


def _as_stored(page: Any, content: bytes) -> bytes | bytearray | None:
    """The file without what libtiff would change samples for: it turns, inverts and multiplies by alpha.

    None if such an entry has an odd form.
    """
    out: bytes | bytearray = content
    for code, value in _NEUTRAL.items():
        tag = page.tags.get(code)
        found = tag.value if tag is not None else value
        if found in (value, (value,)) or (code == _PHOTOMETRIC and found != _INVERTED):
            continue
        if tag.dtype != _SHORT or tag.count != 1:
            return None
        out = bytearray(out)
        number = struct.pack(f"{page.parent.byteorder}H", value)
        out[tag.valueoffset : tag.valueoffset + len(number)] = number
    return out


def _by_tifffile(page: Any, content: bytes) -> NDArray[Any]:
    if int(page.compression) != _NONE and importlib.util.find_spec("imagecodecs") is None:
        _refuse_bombs(page, content)
    values = page.asarray(maxworkers=1)
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[2] == 4:  # alpha
        values = values[..., :3]
    elif values.ndim == 3 and values.shape[2] < 3:  # gray, with alpha or called RGB
        values = values[..., 0]
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _refuse_bombs(page: Any, content: bytes) -> None:
    """Without imagecodecs, tifffile inflates without bound; LZW it cannot at all."""
    if int(page.compression) not in _DEFLATE:
        raise EncodingError(
            f"TIFF compressed by {_name(page.compression)}, of a kind that OpenCV does not read",
            hint="pip install imagecodecs, or save it uncompressed",
        )
    width, length = _segment(page)
    most = width * length * page.samplesperpixel * page.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        inflate = zlib.decompressobj()
        if len(inflate.decompress(content[offset : offset + count], most + 1)) > most:
            raise EncodingError("TIFF is damaged: a strip unpacks to more than its rows")


def _colors(colormap: NDArray[np.uint16], indices: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(np.asarray(colormap)[:, indices] >> 8, 0, -1), np.uint8)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))

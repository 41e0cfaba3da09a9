"""Orientation of pictures as EXIF and TIFF tell it (tag 0x0112 of EXIF 2.3 and TIFF 6.0)."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UPRIGHT: Final = 1

_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY_BYTES, _MOST_ENTRIES = 12, 1000


def orientation_of(exif: bytes) -> int:
    """The orientation 1..8 in an EXIF block (a TIFF header with its first directory); 1 when it has none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None or struct.unpack_from(order + "H", exif, 2)[0] != 42:
            return UPRIGHT
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for i in range(min(entries, _MOST_ENTRIES)):
            position = start + 2 + i * _ENTRY_BYTES
            tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, position)
            if tag == _ORIENTATION and kind == _SHORT and count == 1:
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:  # offsets that lead outside
        pass
    return UPRIGHT


def upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An (H, W, ...) picture turned and mirrored so that its first row is the scene's top.

    Args:
        image: the stored raster.
        orientation: where EXIF says that row 0 and column 0 lie: 1 top left, 2 top right, 3 bottom
            right, 4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    if orientation >= 5:  # rows and columns are exchanged
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)

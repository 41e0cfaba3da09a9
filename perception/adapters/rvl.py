"""RVL, the lossless code for 16 bit depth images: runs of zeros, and differences of what is not zero.

Wilson, "Fast lossless depth image compression", ISS 2017.  Numbers are strings of 4 bit groups, three
bits of value (the lowest first) and one that says whether another group follows; eight groups fill a
32 bit word from its top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.errors import EncodingError
from perception.files.limits import check_bytes

_MOST_GROUPS = 6
"""Groups of the longest number: a difference of two pixels has 17 bits."""


def decode_rvl(payload: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint16]:
    """Decode RVL to (height, width) uint16.

    Args:
        payload: the code, little-endian 32 bit words.
        width, height: of the image, checked by the caller.

    Raises:
        EncodingError: the code ends early, or holds more pixels than the image has.
    """
    pixels = width * height
    # A number for each pixel and two for each run, of which there are not more than pixels.
    check_bytes(payload.size, 2 * _MOST_GROUPS * pixels + 64, where="rvl", error=EncodingError)
    numbers = _numbers(payload)
    out = np.zeros(pixels, np.uint16)
    filled: list[tuple[int, int, int]] = []  # first pixel, first number, how many
    pixel, place = 0, 0
    counts = numbers.tolist()
    while pixel < pixels:
        if place + 1 >= len(counts):
            raise EncodingError(f"ends after {pixel} of {pixels} pixels", where="rvl")
        zeros, others = counts[place], counts[place + 1]
        place += 2
        if pixel + zeros + others > pixels or (zeros + others == 0 and pixel):
            raise EncodingError(f"does not hold {width}x{height} pixels", where="rvl")
        if place + others > len(counts):
            raise EncodingError(f"ends after {pixel} of {pixels} pixels", where="rvl")
        filled.append((pixel + zeros, place, others))
        pixel += zeros + others
        place += others
    if filled:
        starts, firsts, lengths = np.array(filled, np.int64).T
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        folded = numbers[np.repeat(firsts, lengths) + within]
        differences = (folded >> 1) ^ -(folded & 1)
        out[np.repeat(starts, lengths) + within] = np.cumsum(differences).astype(np.uint16)
    return out.reshape(height, width)


def _numbers(payload: NDArray[np.uint8]) -> NDArray[np.int64]:
    """All complete numbers of a code, including those that only fill up its last word."""
    words = payload[: payload.size // 4 * 4].view("<u4")
    shifts = np.arange(28, -1, -4, dtype=np.uint32)
    groups = ((words[:, None] >> shifts) & 15).astype(np.uint8).reshape(-1)
    ends = np.flatnonzero(groups < 8)
    if not ends.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= 10:  # 31 bits: no count or difference is that large
        raise EncodingError("holds a number of more than 30 bits", where="rvl")
    groups = groups[: ends[-1] + 1]
    places = np.arange(groups.size) - np.repeat(starts, ends - starts + 1)
    return np.add.reduceat((groups & 7).astype(np.int64) << (3 * places), starts)

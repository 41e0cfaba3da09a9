"""Outlines and run-length codes of regions as masks.

Run-length codes are those of COCO (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; its
API): runs of 0 and 1 in turn, down the columns, as numbers or as a text of 6 bits a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import DataError
from perception.files.limits import check_pixels

_SHIFT = 4  # fractional bits of corners
_FARTHEST = 2**24
_MOST_RUNS = 2**22


def mask_of_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels inside any of some outlines.

    Args:
        polygons: x, y, x, y, ... where (0, 0) is the outer corner of the first pixel.
        size: (height, width).
    """
    mask = np.zeros(size, np.uint8)
    for one in polygons:
        corners = np.asarray(one, np.float64).reshape(-1, 2).clip(-_FARTHEST, _FARTHEST) - 0.5
        fixed = np.round(corners * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, shift=_SHIFT)  # type: ignore[call-overload]
    return mask.astype(bool)


def mask_of_runs(counts: Any, size: Any, where: str) -> NDArray[np.bool_]:
    """The mask of a run-length code.

    Args:
        counts: a text, or a list of whole numbers.
        size: height and width.
        where: names it in errors.

    Raises:
        DataError: it is no such code, or not of this size.
    """
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(map(_is_whole, size)):
        raise DataError("size of a mask is not height and width", where=where)
    height, width = size
    check_pixels(width, height, where=where, error=DataError)
    runs = _runs_of_text(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or len(runs) > _MOST_RUNS:
        raise DataError("mask has no runs", where=where)
    if not all(_is_whole(n) and n >= 0 for n in runs):
        raise DataError("runs of a mask are not whole numbers", where=where)
    if sum(runs) != height * width:
        raise DataError(
            f"runs of a mask sum up to {sum(runs)}, not to {width}x{height}", where=where
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _runs_of_text(text: str, where: str) -> list[int]:
    """Six bits a character from '0' on: five of the number, low ones first, and whether more follow.

    From the fourth on, a run is written as the difference to the one two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError("is no run-length code", where=where)
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("run-length code ends early", where=where)
    return runs


def bounds_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom edges of a mask; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)

"""Memory that is used again: of fresh memory every 4 KiB cost a page fault when they are first written."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK = 2**15
"""Points at a time: four columns of them and what is made of them fit a second-level cache."""

_MOST_BYTES = 2**23
"""Larger arrays are given back to the system: they are of rare sizes, and their faults matter less."""


class Scratch:
    """Arrays of one user at a time, by name."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A contiguous array that holds anything, the user's until it gives the scratch back."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = np.empty(size, dtype)
            if held.nbytes <= _MOST_BYTES:
                self._held[name] = held
        return held[:size].reshape(shape)


class ScratchPool:
    """As many `Scratch` as there have been users at a time.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._free: deque[Scratch] = deque()

    @contextmanager
    def lend(self) -> Iterator[Scratch]:
        """A scratch that is nobody else's meanwhile; nothing of it may be kept."""
        try:
            taken = self._free.pop()
        except IndexError:
            taken = Scratch()
        try:
            yield taken
        finally:
            self._free.append(taken)


POINTS = ScratchPool()
"""For what is made of the points of clouds."""


def block_size(count: int) -> int:
    """How many of `count` points to take at a time, at least 1.

    Blocks are of about one size: a last one of a single point would be multiplied by another routine.
    """
    return -(-count // max(1, -(-count // BLOCK))) or 1


def as_columns(rows: NDArray[Any], scratch: Scratch) -> NDArray[np.float32]:
    """Points (n, C) of any type and layout as contiguous columns (C, n) of float32."""
    columns = scratch.array("columns", rows.shape[::-1], np.float32)
    plain = rows.dtype == np.float32 and rows.flags.aligned
    if rows.size and plain and rows.strides[1] == 4 and rows.strides[0] > 0:
        return cv2.transpose(rows, columns)
    np.copyto(columns, rows.T, casting="unsafe")
    return columns

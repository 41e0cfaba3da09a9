"""Memory that is used again: of fresh memory every 4 KiB cost a page fault when they are first written."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

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

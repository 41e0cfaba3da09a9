"""Where an engine's tensors lie in one block of memory, and a pool of such blocks."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 256
"""Bytes: what CUDA aligns its own allocations to, and what TensorRT asks of addresses."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a block."""

    offset: int
    size: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class Layout:
    """Places of several tensors in one block, by name.

    Attributes:
        places: by name.
        size: bytes of the block, at least 1.
    """

    places: dict[str, Place]
    size: int

    def view(self, block: NDArray[np.uint8], name: str) -> NDArray[np.generic]:
        """A tensor within a block of host memory."""
        place = self.places[name]
        part = block[place.offset : place.offset + place.size]
        return part.view(place.dtype).reshape(place.shape)


def lay_out(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[np.generic]]]) -> Layout:
    """Place tensors one after the other, each aligned.

    Args:
        tensors: shape and dtype by name.
    """
    places, end = {}, 0
    for name, (shape, dtype) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        places[name] = Place(end, size, shape, dtype)
        end += math.ceil(size / ALIGNMENT) * ALIGNMENT
    return Layout(places, max(1, end))


class Lease(Generic[T]):
    """One of a pool's things, in use as long as somebody holds on to this.

    Attributes:
        item: the thing.
    """

    def __init__(self, item: T) -> None:
        self.item = item


class Pool(Generic[T]):
    """Things that are used again when nobody holds them any longer, and made when all are in use.

    Args:
        make: makes another one.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: list[T] = []
        # The last holder may go in any thread, and while this one holds the lock.
        self._lock = threading.RLock()
        self.made = 0

    def take(self) -> Lease[T]:
        """A lease on a thing that nobody else uses."""
        with self._lock:
            item = self._free.pop() if self._free else None
        if item is None:
            item = self._make()
            self.made += 1
        lease = Lease(item)
        weakref.finalize(lease, self._give_back, item)
        return lease

    def _give_back(self, item: T) -> None:
        with self._lock:
            self._free.append(item)

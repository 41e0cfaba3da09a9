"""Where CUDA memory and streams come from: pycuda where it is installed, or the driver itself.

Both work in the device's primary context, the one that PyTorch and CUDA's runtime use too, so that they
can live in one process.
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.runtime.engines import cuda_driver_calls as calls
from perception.runtime.engines.base import BackendMissingError, first_line

_NON_BLOCKING = 1  # a stream that does not wait for the default one, on which other packages work

Bytes = NDArray[np.uint8]


class CudaMemory(ABC):
    """Device memory, page-locked host memory and streams of one GPU.

    Args:
        device: the GPU's number.
    """

    name: str

    @abstractmethod
    def __init__(self, device: int) -> None: ...

    @abstractmethod
    def current(self) -> Any:
        """A context manager in which CUDA may be called from this thread.

        It makes the primary context this thread's, and afterwards leaves the thread as it was.
        """

    @abstractmethod
    def stream(self) -> tuple[Any, int]:
        """A new stream that does not wait for the default one, and its handle."""

    @abstractmethod
    def allocate(self, size: int) -> tuple[Any, int]:
        """Device memory of `size` bytes, freed with the first value, and its address."""

    @abstractmethod
    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory of `size` bytes."""


class _PyCuda(CudaMemory):
    name = "pycuda"

    def __init__(self, device: int) -> None:
        import pycuda.driver as driver

        self._driver = driver
        driver.init()
        self._context = driver.Device(device).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        # By pycuda, which knows only of contexts that it pushed itself.
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> tuple[Any, int]:
        stream = self._driver.Stream(_NON_BLOCKING)
        return stream, int(stream.handle)

    def allocate(self, size: int) -> tuple[Any, int]:
        memory = self._driver.mem_alloc(size)
        return memory, int(memory)

    def pinned(self, size: int) -> Bytes:
        array: Bytes = self._driver.pagelocked_empty(size, np.uint8)
        return array


class _Driver(CudaMemory):
    name = "driver"

    def __init__(self, device: int) -> None:
        self._context = calls.primary_context(device)

    @contextmanager
    def current(self) -> Iterator[None]:
        calls.push(self._context)
        try:
            yield
        finally:
            calls.pop()

    def stream(self) -> tuple[Any, int]:
        handle = calls.make_stream(_NON_BLOCKING)
        return _Freed(self, calls.free_stream, handle), handle

    def allocate(self, size: int) -> tuple[Any, int]:
        address = calls.allocate(size)
        return _Freed(self, calls.free, address), address

    def pinned(self, size: int) -> Bytes:
        address = calls.allocate_host(size)
        memory = (ctypes.c_uint8 * size).from_address(address)
        memory.owner = _Freed(self, calls.free_host, address)  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)


class _Freed:
    """Frees a handle when it is dropped, from whatever thread drops it."""

    def __init__(self, memory: CudaMemory, free: Callable[[int], None], handle: int) -> None:
        self._memory, self._free, self._handle = memory, free, handle

    def __del__(self) -> None:
        # When the process ends, the driver may have gone before.
        with suppress(Exception), self._memory.current():
            self._free(self._handle)


LAYERS: tuple[type[CudaMemory], ...] = (_PyCuda, _Driver)
"""In the order in which they are tried."""

_lock = threading.Lock()
_opened: dict[int, CudaMemory] = {}


def cuda_memory(device: int = 0) -> CudaMemory:
    """The memory layer of this process for a GPU, the same for all engines.

    Raises:
        BackendMissingError: there is no driver, or it cannot reach the GPU.
    """
    with _lock:
        if device not in _opened:
            _opened[device] = open_memory(device, LAYERS)
        return _opened[device]


def open_memory(device: int, layers: tuple[type[CudaMemory], ...]) -> CudaMemory:
    """The first layer that works.

    Raises:
        BackendMissingError: none does; the message says why not, for each.
    """
    reasons = []
    for kind in layers:
        try:
            return kind(device)
        except Exception as error:  # each package has exceptions of its own
            reasons.append(f"{kind.name}: {first_line(error)}")
    raise BackendMissingError(
        f"no access to CUDA memory ({'; '.join(reasons)})", hint="anysense doctor says more"
    )

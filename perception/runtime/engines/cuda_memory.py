"""Where CUDA memory and streams come from: pycuda, or cuda-python or cupy in its place.

All of them work in the device's primary context, the one that PyTorch and CUDA's runtime use too, so that
they can live in one process.
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
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


class _CudaPython(CudaMemory):
    name = "cuda-python"

    def __init__(self, device: int) -> None:
        try:
            from cuda.bindings import driver
        except ImportError:
            from cuda import cuda as driver  # before 12.6

        self._cuda = driver
        self._call(driver.cuInit(0))
        number = self._call(driver.cuDeviceGet(device))
        self._context = self._call(driver.cuDevicePrimaryCtxRetain(number))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        code, *values = answer
        if int(code) != 0:
            raise EngineError(f"CUDA error {int(code)} ({code.name})")
        return values[0] if values else None

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._cuda.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self._call(self._cuda.cuCtxPopCurrent())

    def stream(self) -> tuple[Any, int]:
        stream = self._call(self._cuda.cuStreamCreate(_NON_BLOCKING))
        return stream, int(stream)

    def allocate(self, size: int) -> tuple[Any, int]:
        address = int(self._call(self._cuda.cuMemAlloc(size)))
        return _Freed(self, self._cuda.cuMemFree, address), address

    def pinned(self, size: int) -> Bytes:
        address = int(self._call(self._cuda.cuMemAllocHost(size)))
        memory = (ctypes.c_uint8 * size).from_address(address)
        memory.owner = _Freed(self, self._cuda.cuMemFreeHost, address)  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)


class _Freed:
    """Frees an address when it is dropped, from whatever thread drops it."""

    def __init__(self, memory: CudaMemory, free: Any, address: int) -> None:
        self._memory, self._free, self._address = memory, free, address

    def __del__(self) -> None:
        # When the process ends, the driver may have gone before.
        with suppress(Exception), self._memory.current():
            self._free(self._address)


class _CuPy(CudaMemory):
    name = "cupy"

    def __init__(self, device: int) -> None:
        import cupy

        self._cuda = cupy.cuda
        self._device = device
        with self.current():
            self._cuda.alloc(1)  # makes the primary context; raises where there is no GPU

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._cuda.Device(self._device):
            # CUDA's runtime binds the primary context at the first call from a thread only.
            self._cuda.runtime.setDevice(self._device)
            yield

    def stream(self) -> tuple[Any, int]:
        stream = self._cuda.Stream(non_blocking=True)
        return stream, int(stream.ptr)

    def allocate(self, size: int) -> tuple[Any, int]:
        memory = self._cuda.alloc(size)
        return memory, int(memory.ptr)

    def pinned(self, size: int) -> Bytes:
        return np.frombuffer(self._cuda.alloc_pinned_memory(size), np.uint8, size)


LAYERS: tuple[type[CudaMemory], ...] = (_PyCuda, _CudaPython, _CuPy)
"""In the order in which they are tried."""

_lock = threading.Lock()
_opened: dict[int, CudaMemory] = {}


def cuda_memory(device: int = 0) -> CudaMemory:
    """The memory layer of this process for a GPU, the same for all engines.

    Raises:
        BackendMissingError: none of the packages is installed, or none can reach the GPU.
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
        f"no access to CUDA memory ({'; '.join(reasons)})",
        hint="pip install pycuda, or pip install cuda-python",
    )

"""The one place that touches CUDA memory and streams: pycuda, or NVIDIA's cuda-python in its place."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.runtime.engines.base import BackendMissingError, first_line


class CudaMemory(ABC):
    """Device memory, pinned host memory and one kind of stream, on the device's primary context.

    The primary context is the one that PyTorch and CUDA's runtime use too, so that all of them can
    live in one process; `current` makes it this thread's while CUDA is called, and leaves the
    thread as it was.
    """

    name: str

    @abstractmethod
    def current(self) -> Any:
        """A context manager in which CUDA may be called from this thread."""

    @abstractmethod
    def stream(self) -> tuple[Any, int]:
        """A new stream, and its handle for TensorRT."""

    @abstractmethod
    def allocate(self, size: int) -> tuple[Any, int]:
        """Device memory of `size` bytes, freed with the first value, and its address."""

    @abstractmethod
    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A float32 array in page-locked memory."""

    @abstractmethod
    def upload(self, address: int, source: NDArray[np.float32], stream: Any) -> None:
        """Copy from a pinned array, without waiting."""

    @abstractmethod
    def download(self, target: NDArray[np.float32], address: int, stream: Any) -> None:
        """Copy into a pinned array, without waiting."""

    @abstractmethod
    def wait(self, stream: Any) -> None:
        """Wait until all that was queued on the stream is done."""


class _PyCuda(CudaMemory):
    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._driver = driver
        driver.init()
        self._context = driver.Device(0).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> tuple[Any, int]:
        stream = self._driver.Stream()
        return stream, int(stream.handle)

    def allocate(self, size: int) -> tuple[Any, int]:
        memory = self._driver.mem_alloc(max(1, size))
        return memory, int(memory)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._driver.pagelocked_empty(shape, np.float32)
        return array

    def upload(self, address: int, source: NDArray[np.float32], stream: Any) -> None:
        self._driver.memcpy_htod_async(address, source, stream)

    def download(self, target: NDArray[np.float32], address: int, stream: Any) -> None:
        self._driver.memcpy_dtoh_async(target, address, stream)

    def wait(self, stream: Any) -> None:
        stream.synchronize()


class _CudaPython(CudaMemory):
    name = "cuda-python"

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._call(runtime.cudaSetDevice(0))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        code, *values = answer
        if int(code) != 0:
            raise EngineError(f"CUDA error {int(code)} ({code.name})")
        return values[0] if values else None

    @contextmanager
    def current(self) -> Iterator[None]:
        # CUDA's runtime keeps the primary context current by itself, once per thread.
        self._call(self._cuda.cudaSetDevice(0))
        yield

    def stream(self) -> tuple[Any, int]:
        stream = self._call(self._cuda.cudaStreamCreate())
        return stream, int(stream)

    def allocate(self, size: int) -> tuple[Any, int]:
        address = int(self._call(self._cuda.cudaMalloc(max(1, size))))
        return _Freed(self._cuda.cudaFree, address), address

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        import ctypes

        count = int(np.prod(shape))
        address = int(self._call(self._cuda.cudaMallocHost(max(1, count * 4))))
        memory = (ctypes.c_float * max(1, count)).from_address(address)
        memory.owner = _Freed(self._cuda.cudaFreeHost, address)  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)[:count].reshape(shape)

    def upload(self, address: int, source: NDArray[np.float32], stream: Any) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        pointer = source.ctypes.data
        self._call(self._cuda.cudaMemcpyAsync(address, pointer, source.nbytes, kind, stream))

    def download(self, target: NDArray[np.float32], address: int, stream: Any) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        pointer = target.ctypes.data
        self._call(self._cuda.cudaMemcpyAsync(pointer, address, target.nbytes, kind, stream))

    def wait(self, stream: Any) -> None:
        self._call(self._cuda.cudaStreamSynchronize(stream))


class _Freed:
    """Frees an address when it is dropped."""

    def __init__(self, free: Any, address: int) -> None:
        self._free, self._address = free, address

    def __del__(self) -> None:
        self._free(self._address)


_lock = threading.Lock()
_opened: CudaMemory | None = None


def cuda_memory() -> CudaMemory:
    """The memory layer of this process, the same for all engines.

    Raises:
        BackendMissingError: neither package is installed, or none can reach a GPU.
    """
    global _opened
    with _lock:
        if _opened is None:
            _opened = _open()
        return _opened


def _open() -> CudaMemory:
    reasons = []
    for kind in (_PyCuda, _CudaPython):
        try:
            return kind()
        except ImportError as error:
            reasons.append(f"{kind.name}: {first_line(error)}")
        except Exception as error:  # both packages have exceptions of their own
            reasons.append(f"{kind.name}: {first_line(error)}")
    raise BackendMissingError(
        f"no access to CUDA memory ({'; '.join(reasons)})",
        hint="pip install pycuda, or pip install cuda-python",
    )

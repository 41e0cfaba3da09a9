"""The CUDA driver's calls on contexts, memory, streams, events, copies and graphs, on plain handles.

All but `primary_context` want a context to be current in the calling thread, see
`perception.runtime.engines.cuda_memory.CudaMemory.current`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from perception.errors import EngineError

_CAPTURE_THREAD_LOCAL = 1  # what other threads do with CUDA meanwhile, as PyTorch may, is no matter
_EVENT_DISABLE_TIMING = 2


@cache
def driver_library(name: str = "libcuda.so.1") -> ctypes.CDLL:
    """The driver's library.

    Raises:
        EngineError: there is none.
    """
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise EngineError(f"no NVIDIA driver ({name} not found)") from error


def check(code: int, call: str) -> None:
    """Turn a driver's status into an error.

    Raises:
        EngineError: it is one.
    """
    if code == 0:
        return
    text = ctypes.c_char_p()
    driver_library().cuGetErrorName(code, ctypes.byref(text))
    name = text.value.decode() if text.value else "unknown"
    raise EngineError(f"{call}: CUDA error {code} ({name})")


def _call(name: str, *arguments: object) -> None:
    check(getattr(driver_library(), name)(*arguments), name)


def _made(name: str, *arguments: object) -> int:
    """The handle or address that a call writes to its first argument."""
    handle = ctypes.c_void_p()
    _call(name, ctypes.byref(handle), *arguments)
    return int(handle.value or 0)


def _pointer(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def primary_context(device: int) -> int:
    """The primary context of a GPU, which CUDA's runtime and PyTorch use too; kept for good.

    Raises:
        EngineError: there is no driver, or no such GPU.
    """
    _call("cuInit", ctypes.c_uint(0))
    number = ctypes.c_int()
    _call("cuDeviceGet", ctypes.byref(number), ctypes.c_int(device))
    return _made("cuDevicePrimaryCtxRetain", number)


def push(context: int) -> None:
    """Make a context this thread's, until `pop`."""
    _call("cuCtxPushCurrent_v2", _pointer(context))


def pop() -> None:
    """Give the thread back the context that it had before `push`."""
    _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def make_stream(flags: int) -> int:
    """A new stream's handle."""
    return _made("cuStreamCreate", ctypes.c_uint(flags))


def free_stream(stream: int) -> None:
    """Destroy a stream, once what is queued on it is done."""
    _call("cuStreamDestroy_v2", _pointer(stream))


def allocate(size: int) -> int:
    """Address of `size` bytes of device memory."""
    address = ctypes.c_uint64()
    _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
    return int(address.value)


def free(address: int) -> None:
    """Free device memory."""
    _call("cuMemFree_v2", ctypes.c_uint64(address))


def allocate_host(size: int) -> int:
    """Address of `size` bytes of page-locked host memory."""
    return _made("cuMemAllocHost_v2", ctypes.c_size_t(size))


def free_host(address: int) -> None:
    """Free page-locked host memory."""
    _call("cuMemFreeHost", _pointer(address))


def upload(address: int, host: int, size: int, stream: int) -> None:
    """Copy from page-locked memory to the device, without waiting; sizes in bytes."""
    _copy("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), _pointer(host), size, stream)


def download(host: int, address: int, size: int, stream: int) -> None:
    """Copy from the device to page-locked memory, without waiting."""
    _copy("cuMemcpyDtoHAsync_v2", _pointer(host), ctypes.c_uint64(address), size, stream)


def copy(target: int, source: int, size: int, stream: int) -> None:
    """Copy within the device, without waiting."""
    addresses = ctypes.c_uint64(target), ctypes.c_uint64(source)
    _copy("cuMemcpyDtoDAsync_v2", *addresses, size, stream)


def clear(address: int, size: int, stream: int) -> None:
    """Set device memory to zero, without waiting."""
    _copy("cuMemsetD8Async", ctypes.c_uint64(address), ctypes.c_ubyte(0), size, stream)


def _copy(call: str, target: object, source: object, size: int, stream: int) -> None:
    _call(call, target, source, ctypes.c_size_t(size), _pointer(stream))


def wait(stream: int) -> None:
    """Wait until all that was queued on the stream is done."""
    _call("cuStreamSynchronize", _pointer(stream))


class Event:
    """A point in a stream that others can wait for."""

    def __init__(self) -> None:
        handle = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(handle), ctypes.c_uint(_EVENT_DISABLE_TIMING))
        self._handle = handle

    def record(self, stream: int) -> None:
        """Put it behind all that is queued on the stream now."""
        _call("cuEventRecord", self._handle, _pointer(stream))

    def hold(self, stream: int) -> None:
        """Let what is queued on the stream from now on wait for it."""
        _call("cuStreamWaitEvent", _pointer(stream), self._handle, ctypes.c_uint(0))

    def wait(self) -> None:
        """Wait for it on the CPU; at once when it was never recorded."""
        _call("cuEventSynchronize", self._handle)


class Graph:
    """Work that was recorded once and is launched with one call.

    Args:
        stream: the stream to record on.
        work: queues the work on it; nothing else may wait for the device in this thread meanwhile.

    Raises:
        EngineError: something in it cannot be recorded.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        _call("cuStreamBeginCapture_v2", _pointer(stream), ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        graph = ctypes.c_void_p()
        try:
            work()
        finally:
            # Ended in any case: a stream that goes on recording would be lost.
            code = driver_library().cuStreamEndCapture(_pointer(stream), ctypes.byref(graph))
        check(code, "cuStreamEndCapture")
        ready = ctypes.c_void_p()
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
        finally:
            driver_library().cuGraphDestroy(graph)
        self._ready = ready

    def launch(self, stream: int) -> None:
        """Queue it on a stream."""
        _call("cuGraphLaunch", self._ready, _pointer(stream))

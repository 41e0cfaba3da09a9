"""What NVIDIA's driver says of the GPUs here, asked without any CUDA package."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from perception.runtime.engines.base import BackendMissingError

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: its number, as CUDA counts.
        name: as the driver calls it.
        compute_capability: such as `8.6`.
        memory_bytes: total memory.
        integrated: it shares the CPU's memory, as on Jetson.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    integrated: bool


@dataclass(frozen=True)
class Driver:
    """The driver's state.

    Attributes:
        cuda: newest CUDA version that it can run, such as `13.0`; empty without a driver.
        gpus: those that can be used.
        problem: why there is none, in a few words; empty when there is one.
    """

    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def examine_driver(library: str = "libcuda.so.1") -> Driver:
    """Ask the driver; a missing or broken one is an answer, not an error.

    Args:
        library: name or path of the driver's library.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Driver(problem="no NVIDIA driver (libcuda.so.1 not found)")
    code = cuda.cuInit(0)
    if code != 0:
        return Driver(problem=f"the NVIDIA driver does not start (CUDA error {code})")
    value = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(value))
    version = f"{value.value // 1000}.{value.value % 1000 // 10}"
    cuda.cuDeviceGetCount(ctypes.byref(value))
    gpus = tuple(_gpu(cuda, index) for index in range(value.value))
    return Driver(version, gpus, "" if gpus else "the NVIDIA driver sees no GPU")


def gpu(index: int, where: str) -> Gpu:
    """A GPU by its number.

    Args:
        index: its number, as CUDA counts.
        where: what wants it, for the message.

    Raises:
        BackendMissingError: there is no driver, or no such GPU.
    """
    found = examine_driver()
    if found.problem:
        raise BackendMissingError(found.problem, where=where)
    if index >= len(found.gpus):
        there = ", ".join(f"{g.index} ({g.name})" for g in found.gpus)
        raise BackendMissingError(f"there is no GPU {index}", where=where, hint=f"here is {there}")
    return found.gpus[index]


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, value = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)

    def attribute(number: int) -> int:
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    memory = ctypes.c_size_t()
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(
        index,
        name.value.decode(errors="replace"),
        f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        memory.value,
        bool(attribute(_INTEGRATED)),
    )

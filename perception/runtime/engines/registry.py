"""The backends by name, the families that `--device` also takes, and what is said of GPUs by number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from perception.errors import ConfigError, names_hint
from perception.plugins import PluginError, Registry
from perception.runtime.engines.backend import Backend, check_backend, check_engine

_LOG = logging.getLogger("anysense.engines")
_ENGINES = "perception.runtime.engines"
_broken: set[str] = set()  # of which it has been said

REFERENCE = "onnxruntime-cpu"
"""The backend that every other one is compared with, in float32."""

BACKENDS: Registry[Backend] = Registry(
    "backends",
    "backend",
    {
        "tensorrt": f"{_ENGINES}.tensorrt:TENSORRT",
        "tensorrt-rtx": f"{_ENGINES}.tensorrt:TENSORRT_RTX",
        "onnxruntime-tensorrt": f"{_ENGINES}.onnxruntime:TENSORRT",
        "onnxruntime-cuda": f"{_ENGINES}.onnxruntime_cuda:CUDA",
        "openvino": f"{_ENGINES}.openvino:NATIVE",
        "openvino-bf16": f"{_ENGINES}.openvino:BFLOAT16",
        "openvino-f16": f"{_ENGINES}.openvino:FLOAT16",
        "openvino-f32": f"{_ENGINES}.openvino:FLOAT32",
        REFERENCE: f"{_ENGINES}.onnxruntime:CPU",
    },
    check_backend,
    {"load": check_engine},
)

FAMILIES = ("auto", "cuda", "cpu")
"""What `--device` takes besides the name of a backend."""


@dataclass(frozen=True)
class Device:
    """What is meant by a device's name.

    Attributes:
        name: a family, or a backend.
        index: number of the GPU.
    """

    name: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.index}" if self.index else self.name


def records() -> Iterator[tuple[str, Backend]]:
    """All backends that can be used at all; one that cannot be imported is passed over with a line."""
    for name in BACKENDS:
        try:
            yield name, BACKENDS[name]
        except PluginError as error:
            if name not in _broken:
                _LOG.warning("%s", error)
                _broken.add(name)


def ranked(kind: Literal["cpu", "gpu"]) -> tuple[str, ...]:
    """The backends that `auto` knows for CPU or GPU, by rank."""
    found = [(b.rank, n) for n, b in records() if b.kind == kind and b.rank is not None]
    return tuple(name for _, name in sorted(found))


def with_plans() -> tuple[str, ...]:
    """The backends that run what was built for them before: where nothing was, they are no choice."""
    return tuple(name for name, backend in records() if backend.build is not None)


def candidates(name: str) -> tuple[str, ...]:
    """The backends to try for a family or a backend's name, in order.

    After those of `auto` comes the fastest on the CPU, see
    `perception.runtime.engines.selection.ranking`.
    """
    families = {
        "auto": lambda: ranked("gpu"),
        "cuda": lambda: (*ranked("gpu"), REFERENCE),
        "cpu": lambda: (REFERENCE,),
    }
    return families[name]() if name in families else (name,)


def device_of(text: str) -> Device:
    """What `auto`, `cpu`, `cuda`, `cuda:1`, a backend's name or `onnxruntime-cuda:1` means.

    Raises:
        ConfigError: there is no such device or backend, or it takes no number.
    """
    name, colon, number = text.partition(":")
    if name not in FAMILIES and name not in BACKENDS:
        name = _aliases().get(name, name)
    if name not in FAMILIES and name not in BACKENDS:
        raise ConfigError(f"unknown device '{text}'", hint=names_hint(name, known_devices()))
    if not colon:
        return Device(name)
    if name != "cuda" and (name in FAMILIES or BACKENDS[name].kind != "gpu"):
        raise ConfigError(
            f"{name} takes no number", where=f"device '{text}'", hint="such as cuda:1"
        )
    if not (number.isascii() and number.isdecimal() and len(number) <= 4):
        raise ConfigError(
            "expected the number of a GPU", where=f"device '{text}'", hint="such as cuda:1"
        )
    return Device(name, int(number))


def known_devices() -> list[str]:
    """All that `--device` takes, but for numbers."""
    return [*FAMILIES, *_aliases(), *BACKENDS]


def _aliases() -> dict[str, str]:
    return {alias: name for name, backend in records() for alias in backend.aliases}

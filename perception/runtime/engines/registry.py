"""Choosing a backend: the first of a device's list that loads the graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from perception.errors import ConfigError, EngineError
from perception.runtime.engines.base import Engine
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine

_LOG = logging.getLogger("anysense.engines")

Loader = Callable[[Path, int | None], Engine]

BACKENDS: dict[str, Loader] = {
    "onnxruntime-cuda": lambda path, threads: OnnxRuntimeEngine(path, "cuda", threads),
    "onnxruntime-cpu": lambda path, threads: OnnxRuntimeEngine(path, "cpu", threads),
}

DEVICES: dict[str, tuple[str, ...]] = {
    "auto": ("onnxruntime-cuda", "onnxruntime-cpu"),
    "cuda": ("onnxruntime-cuda", "onnxruntime-cpu"),
    "cpu": ("onnxruntime-cpu",),
}
"""Backends to try for each device, in order."""


def create_engine(path: Path, device: str = "auto", threads: int | None = None) -> Engine:
    """Load a graph on the first backend of `device` that can.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu`, `cuda`, or the name of a backend.
        threads: CPU threads within an operator, None for all.

    Raises:
        ConfigError: unknown device.
        EngineError: no backend could; the message is that of the last one.
    """
    if device not in DEVICES and device not in BACKENDS:
        raise ConfigError(f"unknown device '{device}'", hint=", ".join([*DEVICES, *BACKENDS]))
    names = DEVICES.get(device, (device,))
    failure: EngineError | None = None
    for name in names:
        try:
            return BACKENDS[name](path, threads)
        except EngineError as error:
            failure = error
            if device != "auto":
                _LOG.warning("%s; trying the next backend", error)
    assert failure is not None
    raise failure

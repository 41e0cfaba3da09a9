"""The backends by name, and the families that `--device` also takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from perception.errors import ConfigError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.base import Engine
from perception.runtime.engines.onnxruntime import GPU_INSTALL, OnnxRuntimeEngine
from perception.runtime.engines.openvino import INSTALL as OPENVINO_INSTALL
from perception.runtime.engines.openvino import OpenVinoEngine
from perception.runtime.engines.plans import PlanKind
from perception.runtime.engines.tensorrt import INSTALL as TENSORRT_INSTALL
from perception.runtime.engines.tensorrt import MODULES as TENSORRT_MODULES
from perception.runtime.engines.tensorrt import TensorRtEngine, fitting_plans

Graph = Path | GraphSource
"""An ONNX graph: of a bundle, or a file that stands alone."""

Loader = Callable[[Graph, int | None], Engine]

REFERENCE = "onnxruntime-cpu"
"""The backend that every other one is compared with, in float32."""


@dataclass(frozen=True)
class Backend:
    """A backend.

    Attributes:
        load: loads a graph, given it and the number of threads (None = all).
        module: what must be importable.
        install: the command that brings it.
        exact: whether it computes in float32.
        check: raises what is wrong with the files for a graph, before anything is loaded.
    """

    load: Loader
    module: str
    install: str
    exact: bool = True
    check: Callable[[Graph], object] = lambda graph: None

    @property
    def installed(self) -> bool:
        """Whether the package is there; its device may still be missing."""
        return find_spec(self.module) is not None


def _onnxruntime(device: str, install: str = GPU_INSTALL) -> Backend:
    return Backend(lambda g, threads: OnnxRuntimeEngine(g, device, threads), "onnxruntime", install)


def _openvino(precision: str, exact: bool = False) -> Backend:
    def load(graph: Graph, threads: int | None) -> Engine:
        return OpenVinoEngine(graph, precision, threads)

    return Backend(load, "openvino", OPENVINO_INSTALL, exact)


def _tensorrt(kind: PlanKind) -> Backend:
    module, install = TENSORRT_MODULES[kind], TENSORRT_INSTALL[kind]
    return Backend(
        lambda graph, threads: TensorRtEngine(graph, kind),
        module,
        install,
        exact=False,
        check=lambda graph: fitting_plans(graph, kind),
    )


BACKENDS: dict[str, Backend] = {
    "tensorrt": _tensorrt("tensorrt"),
    "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
    "onnxruntime-tensorrt": _onnxruntime("tensorrt"),
    "onnxruntime-cuda": _onnxruntime("cuda"),
    "openvino": _openvino("native"),
    "openvino-bf16": _openvino("bf16"),
    "openvino-f16": _openvino("f16"),
    "openvino-f32": _openvino("f32", exact=True),
    "onnxruntime-cpu": _onnxruntime("cpu", "pip install onnxruntime"),
}

ALIASES = {"onnxruntime": "onnxruntime-cpu"}

_ON_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "onnxruntime-cuda")
DEVICES = {"auto": _ON_GPU, "cuda": (*_ON_GPU, REFERENCE), "cpu": (REFERENCE,)}
"""Backends to try for each device, in order.  `auto` goes on with the fastest on the CPU."""

PLAN_BACKENDS = ("tensorrt", "tensorrt-rtx")
"""Those that run plans out of the bundle: where there is none, they are no choice."""

CPU_BACKENDS = ("openvino", "openvino-f32", "onnxruntime-cpu")
"""Those among which `auto` looks for the fastest."""


def canonical(device: str) -> str:
    """A device or backend by the name that the tables use.

    Raises:
        ConfigError: there is no such device or backend.
    """
    name = ALIASES.get(device, device)
    if name not in DEVICES and name not in BACKENDS:
        known = ", ".join([*DEVICES, *ALIASES, *BACKENDS])
        raise ConfigError(f"unknown device '{device}'", hint=known)
    return name

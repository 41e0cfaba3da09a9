"""TensorRT: plans that were built before, run on an NVIDIA GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import EngineError
from perception.runtime.bundle import sha256_of
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    Tensor,
    TensorSpec,
    first_line,
)
from perception.runtime.engines.cuda_driver import Gpu, examine_driver
from perception.runtime.engines.cuda_memory import cuda_memory
from perception.runtime.engines.plans import PlanHeader, PlanKind, plans_for, read_plan

MODULES: dict[PlanKind, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL: dict[PlanKind, str] = {k: f"pip install 'anysense[{k}]'" for k in MODULES}


class TensorRtEngine(Engine):
    """A plan from the bundle's `engines/` folder, on a stream of its own.

    Plans are checked before anything else, so that a damaged one is told even where no GPU is.

    Args:
        path: the ONNX file that the plan was built from.
        kind: which TensorRT.

    Raises:
        BackendMissingError: there is no plan, no package, no GPU, or none that the plans fit.
        EngineError: the newest plan is damaged or stale, or TensorRT refuses it.
    """

    def __init__(self, path: Path, kind: PlanKind) -> None:
        fitting = fitting_plans(path, kind)
        if find_spec(MODULES[kind]) is None:
            raise BackendMissingError(f"{kind} is not installed", hint=INSTALL[kind])
        trt = import_module(MODULES[kind])
        driver = examine_driver()
        if driver.problem:
            raise BackendMissingError(driver.problem, where=kind)
        header, plan = choose_plan(fitting, trt.__version__, driver.gpus[0], path)
        self.backend = f"{kind}-{header.precision}"
        self._memory = cuda_memory()
        self._lock = threading.Lock()
        with self._memory.current():
            self._load(trt, plan, path)

    def _load(self, trt: Any, plan: bytes, path: Path) -> None:
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine: Any = None
        self._context: Any = None
        try:
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            # Without a device some versions hand back an object, others None; a context tells.
            self._context = self._engine.create_execution_context() if self._engine else None
        except Exception as error:  # pybind lets C++ exceptions through
            raise EngineError(
                f"plan cannot be loaded: {first_line(error)}", where=str(path)
            ) from error
        if self._context is None:
            raise EngineError("TensorRT refuses the plan", where=str(path))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {n: self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self.inputs = tuple(self._spec(n) for n in names if modes[n])
        self.outputs = tuple(self._spec(n) for n in names if not modes[n])
        self._stream, self._handle = self._memory.stream()
        self._host: dict[str, Tensor] = {}
        self._device: dict[str, tuple[Any, int]] = {}
        for spec in (*self.inputs, *self.outputs):
            shape = tuple(d or 1 for d in spec.shape)
            self._host[spec.name] = self._memory.pinned(shape)
            self._device[spec.name] = self._memory.allocate(self._host[spec.name].nbytes)
            self._context.set_tensor_address(spec.name, self._device[spec.name][1])

    def _spec(self, name: str) -> TensorSpec:
        return TensorSpec(name, tuple(self._engine.get_tensor_shape(name)))

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with self._lock, self._memory.current():
            try:
                for spec in self.inputs:
                    np.copyto(self._host[spec.name], feeds[spec.name])
                    address = self._device[spec.name][1]
                    self._memory.upload(address, self._host[spec.name], self._stream)
                if not self._context.execute_async_v3(self._handle):
                    raise EngineError(f"{self.backend} failed: TensorRT gave no reason")
                for spec in self.outputs:
                    address = self._device[spec.name][1]
                    self._memory.download(self._host[spec.name], address, self._stream)
                self._memory.wait(self._stream)
            except EngineError:
                raise
            except Exception as error:
                raise EngineError(f"{self.backend} failed: {first_line(error)}") from error
            return {spec.name: self._host[spec.name].copy() for spec in self.outputs}


def fitting_plans(path: Path, kind: PlanKind) -> list[tuple[PlanHeader, bytes]]:
    """Whole plans that were built from a graph as it is now, newest first.

    Args:
        path: the ONNX file.
        kind: which TensorRT.

    Raises:
        BackendMissingError: there is no plan.
        EngineError: one is damaged, or all are stale.
    """
    found = plans_for(path, kind)
    if not found:
        raise BackendMissingError(
            f"no {kind} plan was built",
            where=str(path),
            hint=f"anysense export BUNDLE --engine {kind}",
        )
    read = [read_plan(plan) for plan in found]
    digest = sha256_of(path)
    fitting = [(h, plan) for h, plan in read if h.onnx_sha256 == digest]
    if not fitting:
        raise EngineError(
            "plan was built from another graph",
            where=str(found[0]),
            hint=f"anysense export BUNDLE --engine {kind}",
        )
    return fitting


def choose_plan(
    plans: list[tuple[PlanHeader, bytes]], version: str, gpu: Gpu, path: Path
) -> tuple[PlanHeader, bytes]:
    """The newest plan that this version on this GPU can run."""
    reason = ""
    for header, plan in plans:
        any_gpu = "hardware_compatible" in header.options
        if header.builder != version and "version_compatible" not in header.options:
            reason = f"plan was built by TensorRT {header.builder}, here is {version}"
        elif header.gpu and header.gpu != gpu.name and not any_gpu:
            reason = f"plan was built for {header.gpu}, here is {gpu.name}"
        elif gpu.compute_capability not in header.compute_capabilities and not any_gpu:
            built = ", ".join(header.compute_capabilities)
            reason = f"plan is for compute capability {built}, here is {gpu.compute_capability}"
        else:
            return header, plan
    raise EngineError(reason, where=str(path), hint="build it here with anysense export --engine")

"""TensorRT: plans that were built before, run on an NVIDIA GPU."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines import built_here
from perception.runtime.engines.backend import Backend, Graph
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    TensorSpec,
    UntrustedPlanError,
    first_line,
)
from perception.runtime.engines.cuda_driver import Gpu, gpu
from perception.runtime.engines.cuda_engine import CudaEngine, Slot
from perception.runtime.engines.plans import PlanHeader, plans_for

MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL: dict[str, str] = {k: f"pip install 'anysense[{k}]'" for k in MODULES}


class TensorRtEngine(CudaEngine):
    """A plan from the bundle's `engines/` folder.

    Plans are checked before anything else, so that a damaged one is told even where no GPU is.

    Args:
        graph: the ONNX graph that the plan was built from.
        kind: which TensorRT.
        device: number of the GPU.

    Raises:
        BackendMissingError: there is no plan, no package, no GPU, or none that the plans fit.
        UntrustedPlanError: there are plans, but none that was built here or is to be trusted.
        EngineError: the newest plan is damaged or stale, or TensorRT refuses it.
    """

    def __init__(self, graph: Path | GraphSource, kind: str, device: int = 0) -> None:
        source = GraphSource.of(graph)
        fitting = fitting_plans(source, kind)
        if find_spec(MODULES[kind]) is None:
            raise BackendMissingError(f"{kind} is not installed", hint=INSTALL[kind])
        trt = import_module(MODULES[kind])
        chosen = choose_plan(fitting, trt.__version__, gpu(device, kind), str(source))
        self.backend = f"{kind}-{chosen.header.precision}"
        self._open(device)
        with self._memory.current():
            self._load(trt, chosen, str(source))

    def _load(self, trt: Any, chosen: FittingPlan, where: str) -> None:
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        # A version compatible plan brings a runtime of its own, which is code.  What the file says of
        # itself does not count: what was noted when it was built here does, or what the user says.
        self._runtime.engine_host_code_allowed = chosen.host_code
        self._engine: Any = None
        self._context: Any = None
        # TensorRT for RTX compiles kernels while it runs, and records graphs by itself.
        self._own_graphs = not hasattr(trt, "CudaGraphStrategy")
        try:
            self._engine = self._runtime.deserialize_cuda_engine(chosen.plan)
            # Without a device some versions hand back an object, others None; a context tells.
            self._context = self._make_context(trt) if self._engine else None
        except Exception as error:  # pybind lets C++ exceptions through
            raise EngineError(f"plan cannot be loaded: {first_line(error)}", where=where) from error
        if self._context is None:
            raise EngineError("TensorRT refuses the plan", where=where)
        self._dtype = lambda name: trt.nptype(self._engine.get_tensor_dtype(name))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {n: self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self.inputs = tuple(self._spec(n) for n in names if modes[n])
        self.outputs = tuple(self._spec(n) for n in names if not modes[n])
        shapes = {n: tuple(self._engine.get_tensor_shape(n)) for n in names}
        self._lay_out(shapes)

    def _make_context(self, trt: Any) -> Any:
        if self._own_graphs:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(self._engine.get_tensor_shape(name))
        return TensorSpec(name, shape, np.dtype(self._dtype(name)).name)

    def _bind(self, slot: Slot) -> None:
        """Nothing is kept: addresses belong to the context, of which there is one."""

    def _enqueue(self, slot: Slot) -> None:
        for name, address in self._addresses(slot):
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(self._handle):
            raise EngineError("TensorRT gave no reason")


@dataclass(frozen=True)
class FittingPlan:
    """A plan that was built from the graph that is there, and may be run.

    Attributes:
        header: its header.
        plan: as TensorRT made it.
        host_code: it may run code of its own on the CPU.
    """

    header: PlanHeader
    plan: bytes
    host_code: bool = False


def fitting_plans(graph: Path | GraphSource, kind: str) -> list[FittingPlan]:
    """Whole plans that were built from a graph as it is now and that may be run, newest first.

    Args:
        graph: the ONNX graph.
        kind: which TensorRT.

    Raises:
        BackendMissingError: there is no plan.
        UntrustedPlanError: this machine built none of them, and nobody said that they are trusted.
        EngineError: one is damaged, or all are stale.
    """
    source = GraphSource.of(graph)
    found = plans_for(source, kind)
    if not found:
        raise BackendMissingError(
            f"no {kind} plan was built",
            where=str(source),
            hint=f"anysense export BUNDLE --engine {kind}",
        )
    fresh, fitting = 0, list[FittingPlan]()
    for file in found:
        content = file.content()
        header, plan = file.check(content)
        if header.onnx_sha256 != source.sha256:
            continue
        fresh += 1
        noted, trusted = (
            built_here.look_up(source.sha256, content),
            source.trusts(file.name, content),
        )
        if trusted or noted is not None:
            allowed = trusted or (noted is not None and noted.host_code)
            fitting.append(FittingPlan(header, plan, allowed))
    if not fresh:
        raise EngineError(
            "plan was built from another graph",
            where=str(found[0]),
            hint=f"anysense export BUNDLE --engine {kind}",
        )
    if not fitting:
        raise UntrustedPlanError(
            "plan was not built on this machine, and a plan is a program",
            where=str(found[0]),
            hint=f"build it here with anysense export BUNDLE --engine {kind}, or --trust-plans",
        )
    return fitting


def choose_plan(plans: list[FittingPlan], version: str, here: Gpu, where: str) -> FittingPlan:
    """The newest plan that this version on this GPU can run.

    Raises:
        EngineError: there is none; the message is about the last one.
    """
    reason = ""
    for found in plans:
        header = found.header
        any_gpu = "hardware_compatible" in header.options
        if header.builder != version and "version_compatible" not in header.options:
            reason = f"plan was built by TensorRT {header.builder}, here is {version}"
        elif header.gpu and header.gpu != here.name and not any_gpu:
            reason = f"plan was built for {header.gpu}, here is {here.name}"
        elif here.compute_capability not in header.compute_capabilities and not any_gpu:
            built = ", ".join(header.compute_capabilities)
            reason = f"plan is for compute capability {built}, here is {here.compute_capability}"
        else:
            return found
    raise EngineError(reason, where=where, hint="build it here with anysense export --engine")


def _backend(kind: str, rank: int) -> Backend:
    def load(graph: Graph, threads: int | None, device: int) -> Engine:
        return TensorRtEngine(graph, kind, device)

    return Backend(
        load,
        MODULES[kind],
        INSTALL[kind],
        kind="gpu",
        rank=rank,
        exact=False,
        check=lambda graph: fitting_plans(graph, kind),
        build="export.engine_builder:build_plans",
    )


TENSORRT, TENSORRT_RTX = _backend("tensorrt", 10), _backend("tensorrt-rtx", 20)

"""TensorRT: plans that were built before, run on an NVIDIA GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines import built_here
from perception.runtime.engines import cuda_driver_calls as driver
from perception.runtime.engines.base import (
    BackendMissingError,
    DeviceTensor,
    Engine,
    Feed,
    Tensor,
    TensorSpec,
    UntrustedPlanError,
    first_line,
)
from perception.runtime.engines.buffers import Lease, Place, Pool, lay_out
from perception.runtime.engines.cuda_driver import Gpu, examine_driver
from perception.runtime.engines.cuda_driver_calls import Event, Graph
from perception.runtime.engines.cuda_memory import cuda_memory
from perception.runtime.engines.plans import PlanHeader, PlanKind, plans_for

_LOG = logging.getLogger("anysense.engines")

MODULES: dict[PlanKind, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL: dict[PlanKind, str] = {k: f"pip install 'anysense[{k}]'" for k in MODULES}


@dataclass
class _Slot:
    """Memory of one run: every tensor on the device, and in page-locked memory beside it.

    Attributes:
        host: page-locked memory, laid out as the device's.
        device: owns the device's memory.
        address: where that begins.
        done: behind the last work that used the slot.
        graph: what TensorRT queues for this slot's addresses, once recorded.
        runs: how often it was used.
    """

    host: NDArray[np.uint8]
    device: Any
    address: int
    done: Event
    graph: Graph | None = None
    runs: int = 0


class _OnDevice(DeviceTensor):
    """An output in a slot, which stays taken as long as somebody holds on to this."""

    def __init__(self, engine: TensorRtEngine, lease: Lease[_Slot], place: Place) -> None:
        self.engine, self.lease, self.place = engine, lease, place
        self.shape = place.shape

    @property
    def address(self) -> int:
        """Where it lies."""
        return self.lease.item.address + self.place.offset

    def numpy(self) -> Tensor:
        return self.engine.fetch(self)


class TensorRtEngine(Engine):
    """A plan from the bundle's `engines/` folder, on a stream of its own.

    Plans are checked before anything else, so that a damaged one is told even where no GPU is.

    Outputs of `run_linked` stay on the GPU: the engine that takes them lets its stream wait for an event
    of this one's, and copies within the device.  What TensorRT queues is recorded once as a CUDA graph
    for each slot of memory, and launched with one call after that.

    Args:
        graph: the ONNX graph that the plan was built from.
        kind: which TensorRT.
        device: number of the GPU.

    Raises:
        BackendMissingError: there is no plan, no package, no GPU, or none that the plans fit.
        UntrustedPlanError: there are plans, but none that was built here or is to be trusted.
        EngineError: the newest plan is damaged or stale, or TensorRT refuses it.
    """

    takes_device = True

    def __init__(self, graph: Path | GraphSource, kind: PlanKind, device: int = 0) -> None:
        source = GraphSource.of(graph)
        fitting = fitting_plans(source, kind)
        if find_spec(MODULES[kind]) is None:
            raise BackendMissingError(f"{kind} is not installed", hint=INSTALL[kind])
        trt = import_module(MODULES[kind])
        found = examine_driver()
        if found.problem:
            raise BackendMissingError(found.problem, where=kind)
        chosen = choose_plan(fitting, trt.__version__, found.gpus[device], str(source))
        self.backend = f"{kind}-{chosen.header.precision}"
        self._device = device
        self._memory = cuda_memory(device)
        self._lock = threading.Lock()
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
        self._layout = lay_out({n: (shapes[n], np.dtype(self._dtype(n))) for n in names})
        self._stream, self._handle = self._memory.stream()
        self._pool = Pool(self._make_slot)

    def _make_context(self, trt: Any) -> Any:
        if self._own_graphs:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(self._engine.get_tensor_shape(name))
        return TensorSpec(name, shape, np.dtype(self._dtype(name)).name)

    def _make_slot(self) -> _Slot:
        size = self._layout.size
        device, address = self._memory.allocate(size)
        slot = _Slot(self._memory.pinned(size), device, address, Event())
        # Inputs that are ignored are never written: they shall hold numbers all the same.
        driver.clear(address, size, self._handle)
        return slot

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.infer_some(feeds, ())

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        with self._working():
            lease = self._pool.take()
            slot = lease.item
            self._queue(slot, feeds, ignored)
            for spec in self.outputs:
                place = self._layout.places[spec.name]
                host = slot.host.ctypes.data + place.offset
                driver.download(host, slot.address + place.offset, place.size, self._handle)
            driver.wait(self._handle)
            return {spec.name: self._host(slot, spec.name).copy() for spec in self.outputs}

    def infer_linked(self, feeds: Mapping[str, Tensor]) -> Mapping[str, Feed]:
        with self._working():
            lease = self._pool.take()
            self._queue(lease.item, feeds, ())
            return {
                spec.name: _OnDevice(self, lease, self._layout.places[spec.name])
                for spec in self.outputs
            }

    def fetch(self, tensor: _OnDevice) -> Tensor:
        """Copy an output of this engine to the CPU.

        Raises:
            EngineError: the device failed.
        """
        with self._working():
            slot, place = tensor.lease.item, tensor.place
            host = slot.host.ctypes.data + place.offset
            driver.download(host, tensor.address, place.size, self._handle)
            driver.wait(self._handle)
            part = slot.host[place.offset : place.offset + place.size]
            return part.view(place.dtype).reshape(place.shape).copy()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One run at a time, in this GPU's context; whatever goes wrong is an `EngineError`."""
        with self._lock, self._memory.current():
            try:
                yield
            except EngineError as error:
                raise EngineError(f"{self.backend} failed: {error.message}") from error
            except Exception as error:
                raise EngineError(f"{self.backend} failed: {first_line(error)}") from error

    def _host(self, slot: _Slot, name: str) -> Any:
        return self._layout.view(slot.host, name)

    def _queue(self, slot: _Slot, feeds: Mapping[str, Feed], ignored: Collection[str]) -> None:
        """Queue copies of the inputs and the network, and mark the end."""
        # Page-locked memory is written by the CPU: its last copy to the device must be over.
        slot.done.wait()
        for spec in self.inputs:
            if spec.name in ignored:
                continue
            feed, place = feeds[spec.name], self._layout.places[spec.name]
            address = slot.address + place.offset
            if isinstance(feed, _OnDevice) and feed.engine._device == self._device:
                feed.lease.item.done.hold(self._handle)
                driver.copy(address, feed.address, place.size, self._handle)
                continue
            array = feed.numpy() if isinstance(feed, DeviceTensor) else feed
            np.copyto(self._host(slot, spec.name), array)
            host = slot.host.ctypes.data + place.offset
            driver.upload(address, host, place.size, self._handle)
        self._execute(slot)
        slot.done.record(self._handle)
        slot.runs += 1

    def _execute(self, slot: _Slot) -> None:
        if slot.graph is not None:
            slot.graph.launch(self._handle)
            return
        for name, place in self._layout.places.items():
            self._context.set_tensor_address(name, slot.address + place.offset)
        # The first run of a context prepares things that cannot be recorded.
        if self._own_graphs and slot.runs == 1:
            try:
                slot.graph = Graph(self._handle, self._enqueue)
            except EngineError as error:
                _LOG.info("%s: runs without a CUDA graph: %s", self.backend, error.message)
                self._own_graphs = False
        if slot.graph is not None:
            slot.graph.launch(self._handle)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
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


def fitting_plans(graph: Path | GraphSource, kind: PlanKind) -> list[FittingPlan]:
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
        noted = built_here.look_up(source.sha256, content)
        if source.trust_plans or noted is not None:
            allowed = source.trust_plans or (noted is not None and noted.host_code)
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


def choose_plan(plans: list[FittingPlan], version: str, gpu: Gpu, where: str) -> FittingPlan:
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
        elif header.gpu and header.gpu != gpu.name and not any_gpu:
            reason = f"plan was built for {header.gpu}, here is {gpu.name}"
        elif gpu.compute_capability not in header.compute_capabilities and not any_gpu:
            built = ", ".join(header.compute_capabilities)
            reason = f"plan is for compute capability {built}, here is {gpu.compute_capability}"
        else:
            return found
    raise EngineError(reason, where=where, hint="build it here with anysense export --engine")

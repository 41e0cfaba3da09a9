"""ONNX Runtime on CUDA with memory of our own: features stay on the GPU, and CUDA graphs are recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.backend import Backend, Graph
from perception.runtime.engines.base import BackendMissingError, Engine
from perception.runtime.engines.cuda_engine import CudaEngine, Slot
from perception.runtime.engines.cuda_features import features
from perception.runtime.engines.onnxruntime import (
    GPU_INSTALL,
    OnnxRuntimeEngine,
    check_provider,
    open_session,
    provider_options,
    tensors_of,
)
from perception.runtime.onnx_file import describe

_LOG = logging.getLogger("anysense.engines")


class BoundOnnxRuntimeEngine(CudaEngine):
    """A graph of fixed sizes in a session that runs on our stream, between addresses of ours.

    Args:
        graph: the ONNX graph.
        threads: CPU threads for what is not computed on the GPU; None for all cores.
        number: of the GPU.

    Raises:
        BackendMissingError: the provider is not installed, or finds no such device.
        EngineError: the graph cannot be loaded, or its sizes vary.
        BundleError: the graph is one of a bundle, and is damaged.
    """

    def __init__(self, graph: Path | GraphSource, threads: int | None, number: int = 0) -> None:
        source = GraphSource.of(graph)
        self._start(source.read_bytes, str(source), source, threads, number)

    def companion(self, content: bytes, name: str) -> Engine:
        other = BoundOnnxRuntimeEngine.__new__(BoundOnnxRuntimeEngine)
        other._start(lambda: content, name, self._source, self._threads, self._device)
        return other

    def _start(
        self,
        read: Callable[[], bytes],
        where: str,
        source: GraphSource,
        threads: int | None,
        number: int,
    ) -> None:
        self.backend = "onnxruntime-cuda"
        self._source, self._threads = source, threads
        self._own_graphs = features().graphs
        check_provider("cuda", number, where)
        self._open(number)
        told = provider_options("CUDAExecutionProvider", source, number)
        told["user_compute_stream"] = str(self._handle)
        options = {"CUDAExecutionProvider": told}
        self._open_session = lambda: open_session(read(), where, "cuda", threads, options)
        self._session = self._open_session()
        self.inputs, self.outputs = tensors_of(self._session)
        shapes = {}
        for spec in (*self.inputs, *self.outputs):
            known = tuple(d for d in spec.shape if d is not None)
            if len(known) != len(spec.shape):
                raise EngineError("has sizes that vary", where=where)
            shapes[spec.name] = known
        # The copies of results wait for the stream: a run need not.
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._lay_out(shapes)

    def _bind(self, slot: Slot) -> Any:
        binding, specs = self._session.io_binding(), {s.name: s for s in self.outputs}
        for name, address in self._addresses(slot):
            bind = binding.bind_output if name in specs else binding.bind_input
            place = self._layout.places[name]
            bind(name, "cuda", self._device, place.dtype, place.shape, address)
        return binding

    def _load_anew(self) -> None:
        self._session = self._open_session()

    def _enqueue(self, slot: Slot) -> None:
        self._session.run_with_iobinding(slot.bound, self._run_options)


def _fixed(source: GraphSource) -> bool:
    """Whether the file says the size of every input and output."""
    info = describe(source.read_bytes(), where=str(source), error=EngineError)
    sizes = [tensor.shape for tensor in (*info.inputs, *info.outputs)]
    return all(shape is not None and None not in shape for shape in sizes)


def _load(graph: Graph, threads: int | None, number: int) -> Engine:
    if features().bind and _fixed(GraphSource.of(graph)):
        try:
            return BoundOnnxRuntimeEngine(graph, threads, number)
        except BackendMissingError:
            raise
        except EngineError as error:  # an ONNX Runtime that cannot be told our stream, for one
            _LOG.info("%s; loading it without our memory", error)
    return OnnxRuntimeEngine(graph, "cuda", threads, number)


CUDA = Backend(_load, "onnxruntime", GPU_INSTALL, kind="gpu", rank=40)

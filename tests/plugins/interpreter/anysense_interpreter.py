"""ONNX's reference implementation in NumPy as a backend: slow, and right by definition."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.backend import Backend, Graph
from perception.runtime.engines.base import (
    BackendMissingError,
    Engine,
    Tensor,
    TensorSpec,
    first_line,
)

INSTALL = "pip install onnx"


class InterpreterEngine(Engine):
    """A graph that ONNX's `ReferenceEvaluator` runs, one call after the other."""

    def __init__(self, graph: Graph) -> None:
        source = GraphSource.of(graph)
        try:
            import onnx
            from onnx.reference import ReferenceEvaluator
        except ImportError as error:
            raise BackendMissingError("onnx is not installed", hint=INSTALL) from error
        content = source.read_bytes()  # compared with the bundle's checksums
        try:
            model = onnx.load_model_from_string(content)
            self._evaluator = ReferenceEvaluator(model)
        except Exception as error:  # of onnx or protobuf, which have no base in common
            raise EngineError(
                f"cannot be loaded: {first_line(error)}", where=str(source)
            ) from error
        weights = {weight.name for weight in model.graph.initializer}
        self.backend = "interpreter"
        self.inputs = tuple(_spec(v) for v in model.graph.input if v.name not in weights)
        self.outputs = tuple(_spec(v) for v in model.graph.output)
        self._lock = threading.Lock()

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [spec.name for spec in self.outputs]
        with self._lock:
            values = self._evaluator.run(names, dict(feeds))
        return dict(zip(names, values, strict=True))


def _spec(value) -> TensorSpec:  # an onnx.ValueInfoProto
    from onnx import helper

    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(value.name, shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)


INTERPRETER = Backend(
    load=lambda graph, threads, gpu: InterpreterEngine(graph),
    module="onnx",
    install=INSTALL,
)

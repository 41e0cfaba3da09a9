"""ONNX files of any origin, read with limits and checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from perception.errors import AnySenseError, EngineError
from perception.files.limits import MAX_ARRAY_BYTES, check_bytes
from perception.runtime.bundle import GraphSource
from perception.runtime.engines.base import first_line


def load_model(graph: Path | GraphSource, *, weights: bool = True) -> onnx.ModelProto:
    """Read a graph, with the weights that a bundle keeps in files beside it.

    Args:
        graph: one of a bundle, or a file that stands alone.
        weights: look at them as well; without them only names, types and shapes are to be used.

    Raises:
        EngineError: it is missing, too large, no ONNX graph, damaged, breaks ONNX's rules, or claims sizes
            beyond any memory.
        BundleError: it is one of a bundle, and it or its weights are not what the manifest lists.
    """
    source = GraphSource.of(graph)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(source.read_bytes())
    except DecodeError as problem:
        raise EngineError("is no ONNX graph, or damaged", where=str(source)) from problem
    if not model.HasField("graph") or not model.graph.output:
        raise EngineError("is no ONNX graph", where=str(source))
    for value in (*model.graph.input, *model.graph.output):
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if any(d < 0 for d in dims):
            raise EngineError(f"'{value.name}' has a negative size", where=str(source))
        size = 4 * prod(d or 1 for d in dims)
        check_bytes(size, MAX_ARRAY_BYTES, where=f"{source}: '{value.name}'", error=EngineError)
    if weights:
        with graph_problems(source, "breaks ONNX's rules"):
            for tensor in _tensors(model.graph):
                numpy_helper.to_array(tensor)  # what it claims and what it holds are the same size
            onnx.checker.check_model(model)
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All constants of a graph, those of its nodes' attributes and of graphs within it included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            inner: Iterable[onnx.GraphProto] = (
                [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
            )
            for each in inner:
                yield from _tensors(each)


@contextmanager
def graph_problems(where: object, what: str = "cannot be changed") -> Iterator[None]:
    """Turn whatever a strange graph makes onnx, numpy or ONNX Runtime raise into one line.

    Raises:
        EngineError: begins with `where` and `what`.
    """
    try:
        yield
    except (AnySenseError, OSError):
        raise
    except (
        Exception
    ) as problem:  # onnx and ONNX Runtime have types of their own without a public base
        raise EngineError(f"{what}: {first_line(problem)}", where=str(where)) from problem

"""ONNX files of any origin, read with limits and checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    uses_external_data,
)

from perception.errors import AnySenseError, EngineError
from perception.files.limits import MAX_ARRAY_BYTES, MAX_GRAPH_BYTES, check_bytes
from perception.files.text import read_bytes
from perception.runtime.engines.base import first_line


def load_model(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read a graph, with the weights that lie in files beside it.

    Args:
        path: the file.
        weights: read those weights as well; without them only names, types and shapes are to be used.

    Raises:
        EngineError: it is missing, too large, no ONNX graph, damaged, breaks ONNX's rules, claims sizes
            beyond any memory, or its weights lie outside its folder.
    """
    content = read_bytes(path, limit=MAX_GRAPH_BYTES, error=EngineError)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as problem:
        raise EngineError("is no ONNX graph, or damaged", where=str(path)) from problem
    if not model.HasField("graph") or not model.graph.output:
        raise EngineError("is no ONNX graph", where=str(path))
    for value in (*model.graph.input, *model.graph.output):
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if any(d < 0 for d in dims):
            raise EngineError(f"'{value.name}' has a negative size", where=str(path))
        size = 4 * prod(d or 1 for d in dims)
        check_bytes(size, MAX_ARRAY_BYTES, where=f"{path}: '{value.name}'", error=EngineError)
    tensors = list(_tensors(model.graph))
    if weights:
        for tensor in tensors:
            if uses_external_data(tensor):
                _load_external(tensor, path)
        with graph_problems(path, "breaks ONNX's rules"):
            for tensor in tensors:
                numpy_helper.to_array(tensor)  # what it claims and what it holds are the same size
            onnx.checker.check_model(model)
    return model


def has_external_weights(path: Path) -> bool:
    """Whether some of a graph's weights lie in files beside it."""
    return any(map(uses_external_data, _tensors(load_model(path, weights=False).graph)))


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


def _load_external(tensor: TensorProto, path: Path) -> None:
    info = ExternalDataInfo(tensor)
    parts = PurePosixPath(info.location)
    if not info.location or parts.is_absolute() or ".." in parts.parts or "\\" in info.location:
        raise EngineError(f"'{info.location}' leads outside its folder", where=str(path))
    file = path.parent / info.location
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise EngineError(f"'{info.location}' is a link out of its folder", where=str(path))
    if not file.is_file():
        raise EngineError(f"its weights '{info.location}' are missing", where=str(path))
    length = info.length if info.length else file.stat().st_size
    check_bytes(length, MAX_ARRAY_BYTES, where=str(file), error=EngineError)
    with graph_problems(path, f"its weights '{info.location}' cannot be read"):
        load_external_data_for_tensor(tensor, str(path.parent))


@contextmanager
def graph_problems(where: str | Path, what: str = "cannot be changed") -> Iterator[None]:
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

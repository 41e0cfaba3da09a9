"""Fixing some tensors of a graph to constants, and dropping what that makes superfluous."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

_COMPRESSED = 256  # elements from which on a constant is worth storing without its repetitions


def specialize(model: onnx.ModelProto, values: Mapping[str, Array]) -> None:
    """Put constants in the place of some tensors of a graph with static shapes, in place.

    Whatever depends on them alone is computed now; a choice (`Where`) that they decide becomes the
    branch it takes; what nothing uses any longer goes.

    Args:
        model: nodes in topological order.
        values: by name of a tensor that no node of the graph makes.
    """
    graph = model.graph
    decided = _decided(graph, values)
    frontier = _frontier(graph, decided)
    found = _evaluate(model, values, decided, frontier)
    # Named in `values` and read by a node that is not decided: needed as it is.
    read = {n for i, node in enumerate(graph.node) if i not in decided for n in node.input}
    found |= {name: value for name, value in values.items() if name in read}
    rest = [node for i, node in enumerate(graph.node) if i not in decided]
    del graph.node[:]
    graph.node.extend(_constants(graph, found))
    graph.node.extend(rest)
    _take_branches(model, found)
    drop_unused(graph)


def _decided(graph: onnx.GraphProto, values: Mapping[str, Array]) -> set[int]:
    """Indices of the nodes that depend on `values`, and on nothing else that is not constant.

    What is constant by itself, such as weights in float16 behind a cast, stays as it was stored.
    """
    constant = {t.name for t in graph.initializer} | set(values) | {""}
    touched = set(values)
    decided: set[int] = set()
    for index, node in enumerate(graph.node):
        if not all(n in constant for n in node.input):
            continue
        constant.update(node.output)
        if any(n in touched for n in node.input):
            touched.update(node.output)
            decided.add(index)
    return decided


def _frontier(graph: onnx.GraphProto, decided: set[int]) -> list[str]:
    """Tensors that decided nodes make and others, or the graph's outputs, read."""
    made = {n for i in decided for n in graph.node[i].output}
    read = {n for i, node in enumerate(graph.node) if i not in decided for n in node.input}
    read |= {v.name for v in graph.output}
    return sorted(made & read)


def _evaluate(
    model: onnx.ModelProto, values: Mapping[str, Array], decided: set[int], frontier: list[str]
) -> dict[str, Array]:
    if not frontier:
        return {}
    graph = model.graph
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.graph.name = "decided"
    part.graph.initializer.extend(graph.initializer)
    part.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
    # The other constant nodes come along: decided ones may read weights that are cast or scaled.
    constant = {t.name for t in part.graph.initializer} | {""}
    for node in graph.node:
        if all(n in constant for n in node.input):
            part.graph.node.add().CopyFrom(node)
            constant.update(node.output)
    types = _types(part)
    part.graph.output.extend(
        helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in frontier
    )
    drop_unused(part.graph)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(frontier, session.run(frontier, {}), strict=True))


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}


def _constants(graph: onnx.GraphProto, found: Mapping[str, Array]) -> list[onnx.NodeProto]:
    """Store constants; large ones that repeat along an axis once, with an `Expand`."""
    nodes = []
    for name, value in found.items():
        small = _without_repetition(value)
        if small.size == value.size or value.dtype not in (np.float32, np.float16):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
            continue
        shape = np.array(value.shape, np.int64)
        graph.initializer.append(numpy_helper.from_array(small, f"{name}/once"))
        graph.initializer.append(numpy_helper.from_array(shape, f"{name}/shape"))
        nodes.append(
            helper.make_node(
                "Expand", [f"{name}/once", f"{name}/shape"], [name], name=f"{name}/expand"
            )
        )
    return nodes


def _without_repetition(value: Array) -> Array:
    if value.size < _COMPRESSED:
        return value
    for axis in range(value.ndim):
        first = np.take(value, [0], axis)
        if (value == first).all():
            value = first
    return np.ascontiguousarray(value)


def _take_branches(model: onnx.ModelProto, found: Mapping[str, Array]) -> None:
    """Replace `Where` with a known condition by the branch, where that has the output's shape."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    outputs = {v.name for v in graph.output}
    replaced: dict[str, str] = {}
    for node in list(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
        if node.op_type != "Where" or node.input[0] not in found or node.output[0] in outputs:
            continue
        condition = found[node.input[0]]
        if condition.any() != condition.all():
            continue
        branch = node.input[1] if condition.any() else node.input[2]
        if branch in shapes and shapes[branch] == shapes.get(node.output[0]):
            replaced[node.output[0]] = branch
            graph.node.remove(node)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that lead to no output of the graph."""
    used = {v.name for v in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(n in used for n in node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)

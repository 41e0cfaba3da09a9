"""A float32 graph in float16, with float32 inputs and outputs, for builders that take types literally."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.qdq import unpack_half

_LARGEST = float(np.finfo(np.float16).max)

# Inputs that stay float32 whatever the tensors around them are: Resize's region and scales, and the
# scales of quantization, which fix the type of what is dequantized.
_FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose arithmetic is float16.

    Inputs and outputs keep their names and stay float32.  Constants beyond float16's range become its
    largest value.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    unpack_half(copy)
    graph = copy.graph
    kept = {
        node.input[i]
        for node in graph.node
        for i in _FLOAT_INPUTS.get(node.op_type, ())
        if i < len(node.input)
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(_halved(tensor), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if (
                node.op_type == "Cast"
                and attribute.name == "to"
                and attribute.i == TensorProto.FLOAT
            ):
                attribute.i = TensorProto.FLOAT16
            constant = node.op_type in ("Constant", "ConstantOfShape")
            is_float = attribute.t.data_type == TensorProto.FLOAT
            if constant and is_float and node.output[0] not in kept:
                attribute.t.CopyFrom(numpy_helper.from_array(_halved(attribute.t)))
    _cast_borders(graph)
    del graph.value_info[:]
    return copy


def _halved(tensor: TensorProto) -> np.ndarray:
    values = numpy_helper.to_array(tensor)
    # Infinities stay: they mean something, as in a mask; large numbers are only approximate ones.
    finite = np.isfinite(values)
    clipped = np.where(finite, np.clip(values, -_LARGEST, _LARGEST), values)
    return clipped.astype(np.float16)


def _cast_borders(graph: onnx.GraphProto) -> None:
    entering = {v.name: f"{v.name}_half" for v in graph.input if _is_float(v)}
    leaving = {v.name: f"{v.name}_half" for v in graph.output if _is_float(v)}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = entering.get(name, leaving.get(name, name))
        for i, name in enumerate(node.output):
            node.output[i] = leaving.get(name, name)
    casts_in = [
        helper.make_node("Cast", [n], [h], name=f"{h}_cast", to=TensorProto.FLOAT16)
        for n, h in entering.items()
    ]
    casts_out = [
        helper.make_node("Cast", [h], [n], name=f"{h}_cast", to=TensorProto.FLOAT)
        for n, h in leaving.items()
    ]
    nodes = [*casts_in, *graph.node, *casts_out]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)

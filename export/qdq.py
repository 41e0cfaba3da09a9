"""Explicit quantization: QuantizeLinear/DequantizeLinear pairs around convolutions and matrix products.

Weights are int8 per output channel and activations int8 per tensor, both symmetric (zero point 0),
biases stay float: the form that ONNX Runtime, OpenVINO and TensorRT all fuse into integer kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from perception.runtime.engines.openvino_int8 import LAYERS, MOVED_PAST, ROUNDED_BEFORE

_LEVELS = 127


@dataclass(frozen=True)
class Layer:
    """A node that can be quantized.

    Attributes:
        name: unique within its graph.
        activation: name of the tensor that goes in.
        weight: name of its weights.
    """

    name: str
    activation: str
    weight: str

    @property
    def module(self) -> str:
        """Name of the network's module that it was exported from."""
        return self.weight.removesuffix(".weight").removeprefix("model.")


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The layers of an unpacked model that can be quantized, in order; names nodes without a name."""
    weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for index, node in enumerate(model.graph.node):
        if node.op_type not in LAYERS or node.input[1] not in weights:
            continue
        if len(weights[node.input[1]].dims) < 2 or node.input[0] in weights:
            continue
        if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
            continue
        node.name = node.name or f"{node.op_type.lower()}_{index}"
        if _maker(node.input[0], makers) in ROUNDED_BEFORE:
            continue  # OpenVINO would compute it wrongly
        found.append(Layer(node.name, node.input[0], node.input[1]))
    return found


def _maker(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The operator that a tensor's values come from, moved about or cut off at most; empty for an input."""
    node = makers.get(name)
    while node is not None and node.op_type in MOVED_PAST:
        node = makers.get(node.input[0])
    return "" if node is None else node.op_type


def quantize(
    model: onnx.ModelProto, thresholds: Mapping[str, float], names: Collection[str]
) -> onnx.ModelProto:
    """A copy of an unpacked model with some of its layers quantized.

    Args:
        model: see `export.half_storage.unpack_half`.
        thresholds: by activation tensor, the magnitude that becomes 127.
        names: the layers to quantize, as `layers_of` names them.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    chosen = {layer.name for layer in layers_of(copy)} & set(names)
    initializers = {t.name: t for t in graph.initializer}
    activations: dict[str, str] = {}
    weights: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in chosen:
            source, weight = node.input[0], node.input[1]
            if source not in activations:
                activations[source] = f"{source}_dequantized"
                nodes += _activation_pair(graph, source, thresholds[source])
            if weight not in weights:
                weights[weight] = f"{weight}_dequantized"
                axis = LAYERS[node.op_type]
                nodes.append(_weight_node(graph, initializers[weight], axis))
            node.input[0], node.input[1] = activations[source], weights[weight]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    return copy


def _activation_pair(graph: onnx.GraphProto, source: str, threshold: float) -> list[onnx.NodeProto]:
    scale, zero, middle = f"{source}_scale", f"{source}_zero", f"{source}_quantized"
    step = np.float32(max(threshold, 1e-8) / _LEVELS)
    graph.initializer.append(numpy_helper.from_array(np.array(step), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    return [
        helper.make_node(
            "QuantizeLinear", [source, scale, zero], [middle], name=f"{source}_quantize"
        ),
        helper.make_node(
            "DequantizeLinear",
            [middle, scale, zero],
            [f"{source}_dequantized"],
            name=f"{source}_dequantize",
        ),
    ]


def _weight_node(graph: onnx.GraphProto, tensor: TensorProto, axis: int) -> onnx.NodeProto:
    values = numpy_helper.to_array(tensor)
    whole, steps = quantize_weights(values, axis)
    name = tensor.name
    graph.initializer.append(numpy_helper.from_array(whole, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(steps, f"{name}_scale"))
    graph.initializer.append(
        numpy_helper.from_array(np.zeros(steps.shape, np.int8), f"{name}_zero")
    )
    return helper.make_node(
        "DequantizeLinear",
        [f"{name}_int8", f"{name}_scale", f"{name}_zero"],
        [f"{name}_dequantized"],
        name=f"{name}_dequantize",
        axis=axis,
    )


def quantize_weights(
    values: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights as int8 with one step per output channel.

    Args:
        values: the weights, of any shape.
        axis: that of the output channels.

    Returns:
        int8 of the same shape in -127..127, and (channels,) float32 steps.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values).max(axis=others)
    steps = (np.maximum(peak, 1e-12) / _LEVELS).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    whole = np.clip(np.rint(values / steps.reshape(shape)), -_LEVELS, _LEVELS)
    return whole.astype(np.int8), steps


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)

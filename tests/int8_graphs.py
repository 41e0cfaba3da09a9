"""Graphs with a layer to be quantized behind what OpenVINO may round in the wrong place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Node = onnx.NodeProto
BEFORE: dict[str, list[Node]] = {
    "relu": [helper.make_node("Relu", ["a"], ["x"])],
    "sum": [helper.make_node("Add", ["a", "b"], ["x"])],
    "maxpool": [helper.make_node("MaxPool", ["a"], ["x"], kernel_shape=[2, 2], strides=[2, 2])],
    "concat": [helper.make_node("Concat", ["a", "b"], ["x"], axis=1)],
    "concat, relu": [
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Relu", ["c"], ["x"]),
    ],
    "max": [helper.make_node("ReduceMax", ["a", "axis"], ["x"], keepdims=1)],
    "max, relu": [
        helper.make_node("ReduceMax", ["a", "axis"], ["c"], keepdims=1),
        helper.make_node("Relu", ["c"], ["x"]),
    ],
    "min": [helper.make_node("ReduceMin", ["a", "axis"], ["x"], keepdims=1)],
}
FLOAT = {name for name in BEFORE if name.split(",")[0] in ("concat", "max", "min")}


def graph(name: str) -> onnx.ModelProto:
    """What stands before, a convolution, and another one that is always quantized."""
    rng = np.random.default_rng(0)
    channels = 48 if "concat" in name else 32
    first = rng.normal(0, 0.1, (16, channels, 1, 1)).astype(np.float32)
    second = rng.normal(0, 0.1, (8, 16, 3, 3)).astype(np.float32)
    nodes = [
        *BEFORE[name],
        helper.make_node("Conv", ["x", "first.weight"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "second.weight"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    taken = {name for node in BEFORE[name] for name in node.input}
    inputs = {"a": (1, 32, 24, 24), "b": (1, channels - 32 or 32, 24, 24)}
    weights = {"first.weight": first, "second.weight": second}
    tensors = {**weights, **({"axis": np.array([2])} if "axis" in taken else {})}
    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
            for n, shape in inputs.items()
            if n in taken
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, n) for n, values in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def off(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Relative root mean square."""
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))

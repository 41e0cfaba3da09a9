"""A graph that takes the camera's bytes: normalization and layout inside, a quarter of the data to copy."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.sensors.rgb import RgbSpec


def take_bytes(model: onnx.ModelProto, name: str, spec: RgbSpec) -> None:
    """Let an input be uint8 (1, H, W, 3) in 0..255, R, G, B, on the reference grid; in place.

    What `perception.preprocess` does to such an image after scaling it is done by the graph, on whatever
    runs it.

    Args:
        model: a graph with the float32 input (1, 3, H, W).
        name: the input's.
        spec: its normalization.
    """
    graph = model.graph
    value = next(v for v in graph.input if v.name == name)
    _, channels, height, width = (d.dim_value for d in value.type.tensor_type.shape.dim)
    inner = f"{name}/normalized"
    for node in graph.node:
        node.input[:] = [inner if n == name else n for n in node.input]
    value.CopyFrom(
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, height, width, channels])
    )
    mean, std = (np.array(v, np.float32) for v in (spec.mean, spec.std))
    graph.initializer.append(numpy_helper.from_array(mean, f"{name}/mean"))
    graph.initializer.append(numpy_helper.from_array(1 / std, f"{name}/factor"))
    steps = [
        helper.make_node("Cast", [name], [f"{name}/float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{name}/float", f"{name}/mean"], [f"{name}/centered"]),
        helper.make_node("Mul", [f"{name}/centered", f"{name}/factor"], [f"{name}/scaled"]),
        helper.make_node("Transpose", [f"{name}/scaled"], [inner], perm=[0, 3, 1, 2]),
    ]
    for step in steps:
        step.name = f"{step.output[0]}/{step.op_type.lower()}"
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)

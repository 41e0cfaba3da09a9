"""ONNX graphs that load and never end, or not within a lifetime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOREVER = 2**62

Body = Callable[[str, str], list[onnx.NodeProto]]


def _identity(given: str, found: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", [given], [found])]


def _sine(given: str, found: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Sin", [given], [found])]


def loop(name: str, shape: Sequence[int], body: Body = _sine) -> onnx.GraphProto:
    """The body of a Loop that carries one tensor."""
    info = helper.make_tensor_value_info
    return helper.make_graph(
        [*body("state", "next"), helper.make_node("Identity", ["go"], ["on"])],
        name,
        [
            info("step", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, shape),
        ],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, shape)],
    )


def endless(model: onnx.ModelProto, form: str = "loop") -> onnx.ModelProto:
    """The same graph, whose first output is computed without end.

    Args:
        model: any graph of float32.
        form: `loop` of 2^62 steps; `idle`, the same with next to nothing in it; `while`, which has no
            count but a condition that stays true; `nested` loops; `branch`, the loop within an If;
            `bright`, of as many steps as the input tells: none where it holds nothing above 0.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, output = made.graph, made.graph.output[0]
    shape = [d.dim_value or 1 for d in output.type.tensor_type.shape.dim]
    inner = f"{output.name}_before"
    for node in graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(FOREVER), "forever"),
            numpy_helper.from_array(np.array(True), "always"),
        ]
    )
    body = loop("again", shape, _identity if form == "idle" else _sine)
    if form == "nested":
        within = loop("within", shape)

        def again(given: str, found: str) -> list[onnx.NodeProto]:
            return [helper.make_node("Loop", ["forever", "always", given], [found], body=within)]

        body = loop("outer", shape, again)
    steps = "" if form == "while" else "forever"
    if form == "bright":
        steps = "count"
        graph.initializer.append(numpy_helper.from_array(np.float32([2**40]), "many"))
        graph.node.extend(
            [
                helper.make_node("ReduceMax", [graph.input[0].name], ["most"], keepdims=0),
                helper.make_node("Relu", ["most"], ["above"]),
                helper.make_node("Mul", ["above", "many"], ["steps"]),
                helper.make_node("Cast", ["steps"], ["count_1"], to=TensorProto.INT64),
                helper.make_node("Reshape", ["count_1", "scalar"], ["count"]),
            ]
        )
        graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), "scalar"))
    if form == "branch":
        info = helper.make_tensor_value_info
        ends = [info("done", TensorProto.FLOAT, shape)]
        node = helper.make_node("Loop", [steps, "always", inner], ["done"], body=body)
        other = helper.make_graph(
            [helper.make_node("Identity", [inner], ["done"])], "not", [], ends
        )
        then = helper.make_graph([node], "then", [], ends)
        graph.node.append(
            helper.make_node("If", ["always"], [output.name], then_branch=then, else_branch=other)
        )
    else:
        graph.node.append(
            helper.make_node("Loop", [steps, "always", inner], [output.name], body=body)
        )
    return made


def immense(size: int) -> onnx.ModelProto:
    """One operator, MatMul, of 2 size^3 operations, which nothing can end: `x` (1, 1) to `y` (1, 1)."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("MatMul", ["wide", "wide"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["y"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "immense",
        [info("x", TensorProto.FLOAT, [1, 1])],
        [info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(np.array([size, size]), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FORMS = ("loop", "idle", "while", "nested", "branch")

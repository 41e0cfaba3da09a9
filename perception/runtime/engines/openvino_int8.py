"""Layers in int8 that OpenVINO computes wrongly, found in the graph itself.

OpenVINO (2026.4, CPU) moves the rounding behind a concatenation, a maximum or a minimum to what these take,
and what comes out of the layer behind it is off by 8 to 100 %: measured with graphs of each kind, see
`tests/export/test_openvino_doubts.py`.  `anysense export` keeps such layers in float; its first versions did
not, nor do other exporters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from perception.errors import AnySenseError, EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import doubts_line
from perception.runtime.onnx_file import GraphParts, Node, parts
from perception.runtime.onnx_model import model, node

ROUNDED_BEFORE = frozenset({"Concat", "ReduceMax", "ReduceMin"})
"""Behind these OpenVINO rounds in the wrong place."""

MOVED_PAST = frozenset(
    {"Clip", "Flatten", "Identity", "Relu", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""What rounding is moved past on its way there."""

LAYERS: Mapping[str, int] = MappingProxyType(
    {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}
)
"""What is quantized, by what it takes first; each with the axis of the output channels in its weights (Gemm:
with transB = 1)."""

_QUANTIZES = b"QuantizeLinear"
_WITH_INTEGERS = ("int8", "mixed")


def wrong_layers(
    content: bytes, *, where: str, error: type[AnySenseError] = EngineError
) -> Counter[str]:
    """Layers that take a rounded concatenation, maximum or minimum, counted by the operator before them.

    A graph without any int8 is told by a search in its bytes (0.2 ms a MB), others are walked (some ms).

    Args:
        content: the ONNX graph.
        where: names it in errors.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: it is no ONNX file.
    """
    if _QUANTIZES not in content:
        return Counter()
    return _wrong(parts(content, where=where, error=error))


def told(found: Counter[str]) -> str:
    """What is wrong in words; empty where nothing is."""
    before = ", ".join(sorted(found))
    return f"OpenVINO computes layers in int8 behind {before} wrongly" if found else ""


def doubts_in(bundle: Bundle) -> str:
    """A line about what OpenVINO would compute wrongly of a bundle's encoders and fuser; empty for nothing.

    Raises:
        AnySenseError: a graph is missing or changed, or is none.
    """
    if bundle.manifest.precision not in _WITH_INTEGERS:
        return ""
    graphs = bundle.manifest.graphs
    sources = [bundle.source(g.file) for g in (*graphs.encoders.values(), graphs.fuser)]
    read = {str(s): s.read_bytes() for s in sources}
    return doubts_line({n: told(wrong_layers(c, where=n)) for n, c in read.items()})


def full_range() -> tuple[bytes, NDArray[np.float32], NDArray[np.float32]]:
    """A layer in int8 whose values and weights are as large as they can be.

    Returns:
        The ONNX graph, its input (1, 64, 24, 24), whole numbers, and its output (1, 16, 24, 24), exactly.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 128, (1, 64, 24, 24)).astype(np.float32)
    weight = rng.integers(-127, 128, (16, 64, 1, 1)).astype(np.int8)
    nodes = [
        node("QuantizeLinear", ["x", "one", "zero"], "whole"),
        node("DequantizeLinear", ["whole", "one", "zero"], "rounded"),
        node("DequantizeLinear", ["weight", "ones", "zeros"], "scaled", axis=0),
        node("Conv", ["rounded", "scaled"], "y"),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.int8),
        "weight": weight,
        "ones": np.ones(16, np.float32),
        "zeros": np.zeros(16, np.int8),
    }
    takes, gives = ("float32", [*image.shape]), ("float32", [1, 16, 24, 24])
    sums = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0].astype(np.float64), image)
    return model(nodes, {"x": takes}, {"y": gives}, constants), image, sums.astype(np.float32)


def _wrong(graph: GraphParts) -> Counter[str]:
    makers = {name: node for node in graph.nodes for name in node.outputs}
    rounded = {
        n.outputs[0]: n for n in graph.nodes if n.operator == "DequantizeLinear" and n.outputs
    }
    found: Counter[str] = Counter()
    for layer in graph.nodes:
        back = rounded.get(layer.inputs[0]) if layer.operator in LAYERS and layer.inputs else None
        there = _source(back, makers) if back is not None else None
        if there is None or there.operator != "QuantizeLinear":
            continue  # weights, or what comes in as integers
        source = _moved(there, makers)
        if source is not None and source.operator in ROUNDED_BEFORE:
            # Of maxima of rounded values the largest is rounded already: that is computed rightly.
            before = None if source.operator == "Concat" else _moved(source, makers)
            if before is None or before.operator != "DequantizeLinear":
                found[source.operator] += 1
    return found


def _source(node: Node, makers: Mapping[str, Node]) -> Node | None:
    """What makes the first thing that a node takes; None for an input or a constant of the graph."""
    return makers.get(node.inputs[0]) if node.inputs else None


def _moved(node: Node, makers: Mapping[str, Node]) -> Node | None:
    """The same, past what moves values about or cuts them off."""
    found = _source(node, makers)
    for _ in range(len(makers)):  # a graph that nobody has checked yet may be a circle
        if found is None or found.operator not in MOVED_PAST:
            return found
        found = _source(found, makers)
    return None

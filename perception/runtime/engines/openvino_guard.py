"""What a graph must pass before it is given to OpenVINO.

OpenVINO trusts what it reads: a missing input is a read through a null pointer, a cycle a search without
end, an index beyond the end of a tensor a read or write beyond the end of memory, a division of integers
by zero the end of the process.  A graph of a bundle that somebody else made must not be able to do that,
so these are asked first:

- ONNX Runtime loads it.  That resolves every name, holds each operator against ONNX's own definition of it,
  and infers all types and shapes, in a twentieth of the time that OpenVINO needs to compile.
- It holds no operators but those below, which compute with real numbers.
- Integers are constants where ONNX Runtime has looked at them, as sizes, axes and indices, or stand between
  QuantizeLinear and DequantizeLinear.  Those that are computed, class labels, are given out or cast, and
  those that are given, such as tables of where to look, are only moved about.  Where such are indices, a
  Clip with constants keeps them within the tensor, whose size is known.  So no address depends on a value.

A graph that wants more runs on ONNX Runtime, which looks at every index when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from perception.errors import EngineError
from perception.runtime.engines.onnxruntime import check_loads
from perception.runtime.onnx_file import GraphParts, Node, parts, with_outputs

_NAMES = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose
    DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity
    InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Mean Min
    Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceSum Relu Reshape Resize Round ScatterND Sigmoid Sign Slice Softmax Softplus Softsign Split
    Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Where Xor
"""

OPERATORS = frozenset(_NAMES.split())
"""ONNX's own operators that OpenVINO may be given; of them all models here are made."""

_SECOND = """
    Expand Gather ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Reshape Split Squeeze Unsqueeze
"""
_MUST_BE_CONSTANT: Mapping[str, set[int]] = {
    **{operator: {1} for operator in _SECOND.split()},
    "ConstantOfShape": {0},
    "Resize": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
}
"""Which inputs are sizes, axes and indices."""

_MOVING = frozenset({"Concat", "Identity", "Reshape", "Slice", "Unsqueeze"})
"""What may move integers about."""

_TAKES_INTEGERS: Mapping[str, set[int]] = {
    **_MUST_BE_CONSTANT,
    "Clip": {0, 1, 2},
    "Concat": set(range(64)),
    "Identity": {0},
    "Reshape": {0, 1},
    "ScatterND": {1},
    "Slice": {0, 1, 2, 3, 4},
    "Unsqueeze": {0, 1},
    "Cast": {0},
    "DequantizeLinear": {0, 2},
    "QuantizeLinear": {2},
}

_REAL = frozenset({1, 9, 10, 11, 16})
"""ONNX's numbers of float32, bool, float16, double and bfloat16."""


_UINT8, _INT32, _INT64 = 2, 6, 7

_LARGEST_INDEX = 1 << 24
"""What a backend that computes with float32 inside still counts exactly."""

Shape = tuple[int | None, ...]


def check(content: bytes, *, where: str, trusted: bool = False) -> None:
    """Refuse a graph that OpenVINO might come to grief over.

    Args:
        content: the graph with all its weights.
        where: names it in errors.
        trusted: the user trusts the bundle; only what ONNX Runtime would not load is refused.

    Raises:
        EngineError: it is damaged, breaks ONNX's rules, or wants what OpenVINO does not do safely.
    """
    if trusted:
        check_loads(content, where=where)
        return
    graph = parts(content, where=where, error=EngineError)
    for found in _beyond(graph):
        raise _refusal(found, where)
    reshaped = [(n.inputs[:1], n.outputs[:1]) for n in graph.nodes if n.operator == "Reshape"]
    ends = {name for pair in reshaped for names in pair for name in names}
    bounds = _bounds(graph)
    addressing = [n for n in graph.nodes if set(n.inputs[1:2]) & bounds.keys()]
    addressing = [n for n in addressing if n.operator in ("Gather", "ScatterND")]
    ends |= {name for node in addressing for name in node.inputs}
    shapes = check_loads(with_outputs(content, sorted(ends - graph.outputs)), where=where)
    for node in addressing:
        if not _within(node, bounds[node.inputs[1]], [shapes.get(name) for name in node.inputs]):
            raise _refusal(f"{node.operator} with indices that may lie beyond the end", where)
    # ONNX Runtime compares the counts only when it runs, OpenVINO never.
    counts = [[_count(shapes.get(name)) for names in pair for name in names] for pair in reshaped]
    if any(None in pair or len(set(pair)) != 1 for pair in counts):
        raise _refusal("Reshape to another number of elements", where)


def _bounds(graph: GraphParts) -> dict[str, int]:
    """Integers that a Clip keeps from 0 up to a constant, by name that constant."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.operator == "Clip" and len(node.inputs) == 3:
            low, high = (graph.numbers.get(name) for name in node.inputs[1:])
            if low is not None and high is not None and 0 <= low <= high < _LARGEST_INDEX:
                found.update(dict.fromkeys(node.outputs, high))
        elif node.operator in ("Reshape", "Unsqueeze") and set(node.inputs[:1]) & found.keys():
            found.update(dict.fromkeys(node.outputs, found[node.inputs[0]]))
    return found


def _within(node: Node, bound: int, shapes: list[Shape | None]) -> bool:
    """Whether indices of 0 to `bound` lie in the tensor that Gather or ScatterND takes them for."""
    if any(shape is None or None in shape for shape in shapes):
        return False
    data, indices, *rest = (tuple(shape or ()) for shape in shapes)
    if node.operator == "Gather":
        axis = node.attributes.get("axis", 0)
        return -len(data) <= axis < len(data) and bound < (data[axis] or 0)
    fits = len(rest) == 1 and len(data) > 0 and indices[-1:] == (1,)
    return fits and bound < (data[0] or 0) and rest[0] == (*indices[:-1], *data[1:])


def _count(shape: Shape | None) -> int | None:
    """How many elements a tensor has; None where that is not known."""
    return None if shape is None or None in shape else prod(shape)  # type: ignore[arg-type]


def _refusal(found: str, where: str) -> EngineError:
    return EngineError(
        f"holds {found[:200]!r}, which OpenVINO does not look at closely enough",
        where=where,
        hint="run it on onnxruntime, or say that you trust the bundle (trust_plans)",
    )


def _beyond(graph: GraphParts) -> Iterator[str]:
    """What OpenVINO is not given."""
    yield from sorted(graph.unusual)
    yield from sorted({node.operator for node in graph.nodes} - OPERATORS)
    bounds = _bounds(graph)
    integers = _Integers(graph, bounds)
    yield from integers.refused
    constants = set(graph.constants)
    constants.update(o for n in graph.nodes if n.operator == "Constant" for o in n.outputs)
    for node in graph.nodes:
        for index, name in enumerate(node.inputs):
            if not name:
                continue
            if not _known(node, index, constants, bounds):
                yield f"{node.operator} with sizes, axes or indices that are computed"
            if name in integers.names and index not in _TAKES_INTEGERS.get(node.operator, ()):
                yield f"{node.operator} of integers"


def _known(node: Node, index: int, constants: set[str], bounds: Mapping[str, int]) -> bool:
    """Whether an input of a node is constant, or kept within bounds, where it must be."""
    name = node.inputs[index]
    if node.operator in ("Gather", "ScatterND") and index == 1 and name in bounds:
        return True
    if node.operator == "ScatterND" and index == 1:
        return False
    return name in constants or index not in _MUST_BE_CONSTANT.get(node.operator, ())


class _Integers:
    """Where integers go in a graph, from node to node.

    Args:
        graph: in the order in which it is computed.
        bounds: see `_bounds`.

    Attributes:
        names: tensors that hold them.
        refused: what is done with them that OpenVINO is not given, in the order of the nodes.
    """

    def __init__(self, graph: GraphParts, bounds: Mapping[str, int]) -> None:
        self._given = {**graph.inputs, **graph.constants}
        self._bounds = bounds
        self._moved: set[str] = set()  # of int32 and int64, as they were given
        self.names = {name for name, dtype in self._given.items() if dtype not in _REAL}
        self.refused: list[str] = []
        for node in graph.nodes:
            self._follow(node)

    def _follow(self, node: Node) -> None:
        match node.operator:
            case "Constant":
                if node.attributes.get("value") not in _REAL:
                    self.names.update(node.outputs)
            case "Cast" if node.attributes.get("to") not in _REAL:
                self._cast(node)
            case "Clip" if set(node.inputs) & self.names:
                self.names.update(node.outputs)
                if not set(node.outputs) <= self._bounds.keys():
                    self.refused.append("Clip of integers")
            case operator if operator in _MOVING and set(node.inputs[:1]) & self.names:
                self.names.update(node.outputs)
                if self._as_given(node.inputs[:1]):
                    self._moved.update(node.outputs)
            case "QuantizeLinear" | "ArgMax":
                self.names.update(node.outputs)
            case "MaxPool":
                self.names.update(node.outputs[1:])  # where the largest lie

    def _cast(self, node: Node) -> None:
        to = node.attributes.get("to")
        wide = to == _INT64 and self._as_given(node.inputs)
        if to != _UINT8 and not wide:
            self.refused.append("Cast to integers")
        if wide:
            self._moved.update(node.outputs)
        self.names.update(node.outputs)

    def _as_given(self, names: Sequence[str]) -> bool:
        """Whether the first of these is given as int32 or int64, or one of them is such a one, moved."""
        whole = any(self._given.get(name) in (_INT32, _INT64) for name in names[:1])
        return whole or bool(set(names) & self._moved)

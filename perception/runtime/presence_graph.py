"""A fuser for exactly one subset of inputs, made of the fuser for all: what absent ones add is taken out.

The general graph fuses all inputs at any time, and the exponential for one that is absent costs most (its
result is a denormal number).  Where the presence is known, a `Where` is its branch, and a softmax with one
term left is that term.  Nothing is computed otherwise than before: nodes go, and those that read their
results read what these are equal to, so that outputs are the same to the last bit.

Graphs are read and written as bytes, see `protobuf`; the runtime has no `onnx` package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.runtime.onnx_file import Node, describe, parts
from perception.runtime.protobuf import (
    DamagedError,
    field_of,
    fields_of,
    integer_of,
    message_at,
    messages_of,
    spans_of,
    string_of,
)

Array = NDArray[Any]

ABSENT_SCORE = -1000.0
"""A constant that a missing input has for a score is at most this; scores that are computed are above it
by more than the 104 at which an exponential in float32 is 0."""

_SMALL = 64  # elements up to which a constant is looked at
_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}
_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _INPUT = 1, 5, 11  # of GraphProto


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor.

    Attributes:
        shape: its.
        name: the tensor that it is equal to, in the same shape; empty for one that is known.
        known: its elements, or the one that all of them are.
        absent: it stands for the score of an input that is not there.
    """

    shape: tuple[int, ...]
    name: str = ""
    known: Array | None = None
    absent: bool = False

    @property
    def number(self) -> float | None:
        """What all elements are, where that is known."""
        return (
            float(self.known.flat[0]) if self.known is not None and self.known.size == 1 else None
        )


def for_presence(content: bytes, presence: Mapping[str, Array], *, where: str) -> bytes | None:
    """A fuser for exactly the inputs of a `presence`.

    Args:
        content: the fuser for all, with its weights.
        presence: the value of the graph's input of that name, by its name.
        where: names the graph in errors.

    Returns:
        The graph without what depends on absent inputs, which it does not take any longer; None where
        nothing could be taken out.

    Raises:
        EngineError: it is no ONNX graph, or one that contradicts itself.
    """
    try:
        found = _Graph(content, where)
        return None if found.unusual else found.reading(_equal(found, presence))
    except (DamagedError, ValueError, IndexError) as problem:
        raise EngineError(f"is no graph that holds together: {problem}", where=where) from problem


class _Graph:
    """A model's one graph.

    Attributes:
        nodes: in their order.
        outputs: names.
        values: what is known of inputs and constants, by name.
        unusual: there are things that this file knows nothing of.
    """

    def __init__(self, content: bytes, where: str) -> None:
        self._data = data = memoryview(content)
        about = parts(content, where=where, error=EngineError)
        self.nodes, self.outputs = about.nodes, about.outputs
        self.unusual = bool(about.unusual)
        self.values: dict[str, _Value] = {}
        for tensor in describe(content, where=where, error=EngineError).inputs:
            sizes = tuple(d for d in tensor.shape or (None,) if d is not None)
            if tensor.shape is not None and len(sizes) == len(tensor.shape):
                self.values[tensor.name] = _Value(sizes, tensor.name)
        model = message_at(data, (0, len(data)))
        for tensor_at in messages_of(data, model, _GRAPH, _INITIALIZER):
            name = string_of(data, tensor_at, 8)
            value = _small_constant(data, tensor_at)
            if value is not None and name not in about.inputs:
                self.values[name] = value

    def reading(self, equal: Mapping[str, str]) -> bytes | None:
        """The model without what nobody needs; None where all is needed.

        Args:
            equal: by name of a tensor, that of the one that is read in its place.
        """
        read = [[equal.get(name, name) for name in node.inputs] for node in self.nodes]
        used, kept = set(self.outputs), set()
        for number in reversed(range(len(self.nodes))):
            if used & set(self.nodes[number].outputs):
                kept.add(number)
                used.update(read[number])
        if len(kept) == len(self.nodes):
            return None
        renamed = {n: read[n] if read[n] != list(self.nodes[n].inputs) else None for n in kept}
        out: list[bytes] = []
        data = self._data
        for number, wire, begin, span in fields_of(data, 0, len(data)):
            if number == _GRAPH and wire == 2:
                out.append(field_of(_GRAPH, b"".join(self._graph(span, renamed, used))))
            else:
                out.append(bytes(data[begin : span[1]]))
        return b"".join(out)

    def _graph(
        self, span: tuple[int, int], renamed: Mapping[int, list[str] | None], used: set[str]
    ) -> list[bytes]:
        data, out, at = self._data, [], -1
        for number, wire, begin, inner in fields_of(data, *span):
            whole = bytes(data[begin : inner[1]])
            if wire == 2 and number == _NODE:
                at += 1
                if at not in renamed:
                    continue
                names = renamed[at]
                whole = whole if names is None else field_of(_NODE, _node(data, inner, names))
            elif wire == 2 and number in (_INITIALIZER, _INPUT):
                name = string_of(data, message_at(data, inner), 8 if number == _INITIALIZER else 1)
                if name not in used:
                    continue
            out.append(whole)
        return out


def _node(data: memoryview, span: tuple[int, int], names: Sequence[str]) -> bytes:
    rest = [
        bytes(data[begin : inner[1]])
        for number, _, begin, inner in fields_of(data, *span)
        if number != 1
    ]
    return b"".join((*(field_of(1, name.encode()) for name in names), *rest))


def _small_constant(data: memoryview, tensor: Any) -> _Value | None:
    """A TensorProto of a few elements, as exporters write them: as raw bytes."""
    sizes: list[int] = []
    for wire, span in tensor.get(1, []):
        if wire != 0:  # packed
            return None
        sizes.append(span[0])
    dtype, raw = _DTYPES.get(integer_of(tensor, 2)), spans_of(tensor, 9)
    if dtype is None or len(raw) != 1 or math.prod(sizes) > _SMALL:
        return None
    content = bytes(data[raw[0][0] : raw[0][1]])
    if len(content) != math.prod(sizes) * np.dtype(dtype).itemsize:
        return None
    return _Value(tuple(sizes), known=np.frombuffer(content, dtype).reshape(sizes))


def _equal(graph: _Graph, presence: Mapping[str, Array]) -> dict[str, str]:
    """By name of a tensor, that of another one which it is equal to."""
    values = dict(graph.values)
    values.update({n: _Value(v.shape, known=v) for n, v in presence.items()})
    equal: dict[str, str] = {}
    for node in graph.nodes:
        if len(node.outputs) != 1:
            continue
        name = node.outputs[0]
        found = _result(node, [values.get(n) for n in node.inputs], name)
        if found is None:
            continue
        values[name] = found
        if found.name not in ("", name):
            equal[name] = found.name
    return equal


def _result(node: Node, given: Sequence[_Value | None], name: str) -> _Value | None:
    """What is known of a node's only output, which bears this name."""
    if node.operator in _SHAPED:
        return None if given[0] is None else _Value(given[0].shape, name)
    told = [value for value in given if value is not None]
    if len(told) < len(given):
        return None
    if node.operator in _ARRAYS:
        known = [np.broadcast_to(v.known, v.shape) for v in told if v.known is not None]
        if len(known) < len(told):
            return None
        array = _ARRAYS[node.operator](node, known)
        return _Value(array.shape, known=array)
    if node.operator not in _ELEMENTWISE:
        return None
    shape = np.broadcast_shapes(*(v.shape for v in told))
    found = _ELEMENTWISE[node.operator](*told)
    if found is None or (found.name and found.shape != shape):
        return _Value(shape, name)
    return replace(found, shape=shape)


def _gathered(node: Node, given: list[Array]) -> Array:
    return np.take(given[0], given[1], node.attributes.get("axis", 0))


_ARRAYS: dict[str, Callable[[Node, list[Array]], Array]] = {
    "Gather": _gathered,
    "Greater": lambda node, given: given[0] > given[1],
    "Reshape": lambda node, given: given[0].reshape(given[1].tolist()),
}
"""Of constants, which are computed here."""

_SHAPED = {"Cast", "Clip", "DequantizeLinear", "QuantizeLinear", "Relu", "Softplus"}
"""Their results are as large as what they are given first, and otherwise unknown."""


def _same(number: float) -> _Value:
    return _Value((), known=np.array(number))


def _where(condition: _Value, yes: _Value, no: _Value) -> _Value | None:
    if condition.number is None:
        return None
    taken = yes if condition.number else no
    number = taken.number
    return replace(taken, absent=number is not None and number <= ABSENT_SCORE)


def _max(*given: _Value) -> _Value | None:
    rest = [value for value in given if not value.absent]
    if not rest:
        return max(given, key=lambda value: value.number or 0.0)
    return rest[0] if len(rest) == 1 and rest[0].name else None


def _sub(a: _Value, b: _Value) -> _Value | None:
    if a.name and a.name == b.name:
        return _same(0.0)
    return a if a.absent and b.name else None


def _exp(a: _Value) -> _Value | None:
    if a.absent:
        return _same(0.0)
    return _same(1.0) if a.number == 0 else None


def _mul(a: _Value, b: _Value) -> _Value | None:
    if (a.number == 0 and b.number is not None) or (b.number == 0 and a.number is not None):
        return _same(0.0)
    return b if a.number == 1 else a if b.number == 1 else None


def _add(a: _Value, b: _Value) -> _Value | None:
    return b if a.number == 0 else a if b.number == 0 else None


def _div(a: _Value, b: _Value) -> _Value | None:
    return a if b.number == 1 else None


_ELEMENTWISE: dict[str, Callable[..., _Value | None]] = {
    "Where": _where,
    "Max": _max,
    "Sub": _sub,
    "Exp": _exp,
    "Mul": _mul,
    "Add": _add,
    "Div": _div,
}
"""What comes of values that are known in part; None where a result has to be computed."""

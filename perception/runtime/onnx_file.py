"""ONNX files as bytes: what a graph takes and gives, and what it would read besides itself.

The runtime has no `onnx` package, and a backend given a graph reads on its own what the graph points
to.  So the file is walked here, as Protocol Buffers, before a backend sees it: weights that lie in
other files are brought into the graph through the caller's `read`, which checks them, and what cannot
be brought in is refused.  Field numbers are those of `onnx.proto` (ONNX IR 3 to 14); a test holds them
against the `onnx` package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from perception.errors import AnySenseError, BundleError
from perception.files.limits import MAX_GRAPH_BYTES
from perception.runtime.protobuf import (
    DamagedError,
    Message,
    Span,
    field_of,
    fields_of,
    integer_of,
    key_of,
    message_at,
    messages_of,
    spans_of,
    string_of,
    text_at,
)

NEWEST_IR, NEWEST_OPSET = 14, 28
"""Newest version of the file format, and of ONNX's operators, whose meaning is known here."""

FLOAT32 = 1  # TensorProto.DataType
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    10: "float16",
    11: "float64",
}
_STANDARD_DOMAINS = ("", "ai.onnx")  # names of the domain of ONNX's own operators

# Messages that can hold tensors, and their fields that lead there.
NESTED: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
}
_IR_VERSION, _GRAPH, _OPSETS, _FUNCTIONS = 1, 7, 8, 25  # of ModelProto
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of NodeProto
_ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _WITHIN = 3, 5, {6, 11}  # of AttributeProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15  # of GraphProto
_TENSOR_TYPE, _TENSOR_NAME, _RAW_DATA, _EXTERNAL, _LOCATION = 2, 8, 9, 13, 14  # of TensorProto

_INTEGER_BYTES = {6: 4, 7: 8}  # by data type

_DEEPEST = 100  # as in Protocol Buffers' own readers

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as the graph declares it.

    Attributes:
        name: its name.
        dtype: ONNX's number of the element type, 1 for float32; 0 when it is not a tensor.
        shape: a dimension that varies is None; the whole is None when it is not declared.
    """

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class GraphInfo:
    """What a graph says about itself.

    Attributes:
        inputs, outputs: in their order, without inputs that have a default.
        ir_version: of the file format.
        opset: of ONNX's own operators; 0 when none is named.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ir_version: int
    opset: int


@dataclass(frozen=True)
class Node:
    """An operator in a graph.

    Attributes:
        operator: such as `Conv`; of another domain such as `com.microsoft.Gelu`.
        inputs, outputs: names of tensors, empty where one is left out.
        attributes: by name, the value of an integer, and of a tensor ONNX's number of its type.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int]


@dataclass(frozen=True)
class GraphParts:
    """What a graph is made of.

    Attributes:
        nodes: in their order.
        inputs, constants: ONNX's number of the element type by name.
        outputs: names.
        unusual: what else there is, in words, and not among the nodes.
        numbers: single integers among the constants, whose value nobody can change from outside, by name.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    outputs: frozenset[str]
    constants: Mapping[str, int]
    unusual: frozenset[str]
    numbers: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def _told_as(error: type[AnySenseError], where: str) -> Iterator[None]:
    """Damage that is found in the body as an error that names the file."""
    try:
        yield
    except DamagedError as problem:
        raise error(f"is no ONNX graph and cannot be loaded: {problem}", where=where) from problem


def self_contained(
    content: bytes, read: Read, *, where: str, error: type[AnySenseError] = BundleError
) -> bytes:
    """A graph that holds all its weights itself, so that a backend has nothing else to read.

    Args:
        content: the ONNX file.
        read: gives a file that the graph names, relative to it; raises where it may not be read.
        where: names the file in errors.
        error: the class of what is raised.

    Returns:
        `content`, or where weights lie in other files, the same graph with them in it.

    Raises:
        AnySenseError: of the class `error`: it is no ONNX file, or asks for what may not be read.
    """
    with _told_as(error, where):
        return _Inliner(content, read, where, error).model()


def describe(content: bytes, *, where: str, error: type[AnySenseError] = BundleError) -> GraphInfo:
    """What a graph takes and gives.

    Raises:
        AnySenseError: of the class `error`: it is no ONNX file.
    """
    with _told_as(error, where):
        return _describe(memoryview(content))


def parts(content: bytes, *, where: str, error: type[AnySenseError] = BundleError) -> GraphParts:
    """What a graph is made of.

    Raises:
        AnySenseError: of the class `error`: it is no ONNX file.
    """
    with _told_as(error, where):
        return _parts(memoryview(content))


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """A graph that gives these tensors of its inside too, for a reader that then says what they are."""
    values = [field_of(1, name.encode()) for name in names]
    # A message that follows another of the same field is merged into it.
    return content + field_of(_GRAPH, b"".join(field_of(_OUTPUT, value) for value in values))


def _parts(data: memoryview) -> GraphParts:
    model = message_at(data, (0, len(data)))
    nodes: list[Node] = []
    inputs: dict[str, int] = {}
    outputs: set[str] = set()
    constants: dict[str, int] = {}
    unusual = {"functions of its own"} if _FUNCTIONS in model else set()
    numbers: dict[str, int | None] = {}
    for graph in messages_of(data, model, _GRAPH):
        nodes += [_node(data, node, unusual) for node in messages_of(data, graph, _NODE)]
        inputs.update((value.name, value.dtype) for value in _tensors(data, graph, _INPUT))
        outputs.update(string_of(data, value, 1) for value in messages_of(data, graph, _OUTPUT))
        for tensor in messages_of(data, graph, _INITIALIZER):
            name = string_of(data, tensor, _TENSOR_NAME)
            numbers[name] = None if name in constants else _number(data, tensor)
            constants[name] = integer_of(tensor, _TENSOR_TYPE)
        if _SPARSE in graph:
            unusual.add("sparse weights")
    fixed = {n: v for n, v in numbers.items() if v is not None and n not in inputs}
    return GraphParts(
        tuple(nodes), inputs, frozenset(outputs), constants, frozenset(unusual), fixed
    )


def _number(data: memoryview, tensor: Message) -> int | None:
    """The value of a tensor of one int32 or int64 that lies in it as bytes; None of any other."""
    size = _INTEGER_BYTES.get(integer_of(tensor, _TENSOR_TYPE))
    raw = spans_of(tensor, _RAW_DATA)
    if size is None or len(raw) != 1 or raw[0][1] - raw[0][0] != size or _EXTERNAL in tensor:
        return None
    return int.from_bytes(data[slice(*raw[0])], "little", signed=True)


def _node(data: memoryview, node: Message, unusual: set[str]) -> Node:
    domain = string_of(data, node, _DOMAIN)
    operator = string_of(data, node, _OPERATOR)
    attributes: dict[str, int] = {}
    for attribute in messages_of(data, node, _ATTRIBUTE):
        name = string_of(data, attribute, 1)
        if _WITHIN & attribute.keys() or name in attributes:
            unusual.add("graphs within graphs" if name not in attributes else "doubled attributes")
        tensors = messages_of(data, attribute, _ATTRIBUTE_TENSOR)
        attributes[name] = (
            integer_of(tensors[-1], _TENSOR_TYPE)
            if tensors
            else integer_of(attribute, _ATTRIBUTE_INT)
        )
    return Node(
        operator if domain in _STANDARD_DOMAINS else f"{domain}.{operator}",
        tuple(text_at(data, span) for span in spans_of(node, 1)),
        tuple(text_at(data, span) for span in spans_of(node, 2)),
        attributes,
    )


def _describe(data: memoryview) -> GraphInfo:
    model = message_at(data, (0, len(data)))
    graphs = spans_of(model, _GRAPH)
    if len(graphs) != 1:
        raise DamagedError("it holds no graph" if not graphs else "it holds several graphs")
    opsets = messages_of(data, model, _OPSETS)
    versions = [integer_of(o, 2) for o in opsets if string_of(data, o, 1) in _STANDARD_DOMAINS]
    graph = message_at(data, graphs[0])
    weights = {
        text_at(data, name)
        for tensor in messages_of(data, graph, _INITIALIZER)
        for name in spans_of(tensor, _TENSOR_NAME)
    }
    return GraphInfo(
        tuple(i for i in _tensors(data, graph, _INPUT) if i.name not in weights),
        tuple(_tensors(data, graph, _OUTPUT)),
        integer_of(model, _IR_VERSION),
        max(versions, default=0),
    )


def _tensors(data: memoryview, graph: Message, number: int) -> Iterator[TensorInfo]:
    """ValueInfoProtos: name, and type.tensor_type.{elem_type, shape.dim.dim_value}."""
    for value in messages_of(data, graph, number):
        dtype, shape = 0, None
        for tensor in messages_of(data, value, 2, 1):
            dtype = integer_of(tensor, 1)
            if 2 in tensor:
                dimensions = messages_of(data, tensor, 2, 1)
                shape = tuple(integer_of(d, 1) if 1 in d else None for d in dimensions)
        yield TensorInfo(string_of(data, value, 1), dtype, shape)


@dataclass
class _Inliner:
    """Walks a model and writes those parts anew in which a tensor lies in another file."""

    content: bytes
    read: Read
    where: str
    error: type[AnySenseError]
    added: int = 0
    files: dict[str, bytes] = field(default_factory=dict)

    def model(self) -> bytes:
        data = memoryview(self.content)
        info = _describe(data)
        if info.ir_version > NEWEST_IR or info.opset > NEWEST_OPSET:
            newer = (
                f"ONNX IR version {info.ir_version}, newer than {NEWEST_IR}"
                if info.ir_version > NEWEST_IR
                else f"ONNX opset {info.opset}, newer than {NEWEST_OPSET}"
            )
            raise self.error(
                f"is of {newer}, the newest that this version reads",
                where=self.where,
                hint="upgrade anysense, or export with an older opset",
            )
        changed = self._walk(data, (0, len(data)), "ModelProto", 0)
        return self.content if changed is None else b"".join(changed)

    def _walk(self, data: memoryview, span: Span, kind: str, depth: int) -> list[bytes] | None:
        """The message's new bytes in parts, or None where it can stay as it is."""
        if depth > _DEEPEST:
            raise DamagedError("it is nested too deeply")
        nested = NESTED[kind]
        parts: list[bytes] = []
        copied = span[0]
        for number, wire, begin, inner in fields_of(data, *span):
            if wire != 2:
                continue
            if kind == "NodeProto" and number == _OPERATOR and text_at(data, inner) == "EPContext":
                # An execution provider would load it, from a file of its own choice.
                raise self.error("holds an engine compiled elsewhere (EPContext)", where=self.where)
            if number not in nested:
                continue
            below = nested[number]
            new = (
                self._tensor(data, inner)
                if below == "TensorProto"
                else self._walk(data, inner, below, depth + 1)
            )
            if new is not None:
                parts += [bytes(data[copied:begin]), key_of(number, sum(map(len, new))), *new]
                copied = inner[1]
        return [*parts, bytes(data[copied : span[1]])] if parts else None

    def _tensor(self, data: memoryview, span: Span) -> list[bytes] | None:
        outside = False
        kept: list[bytes] = []
        told: dict[str, str] = {}
        for number, wire, begin, inner in fields_of(data, *span):
            end = inner[1]
            if number == _LOCATION and wire == 0:
                outside = outside or inner[0] != 0
            elif number == _EXTERNAL and wire == 2:
                outside = True
                entry = message_at(data, inner)
                told[string_of(data, entry, 1)] = string_of(data, entry, 2)
            elif number != _RAW_DATA:
                kept.append(bytes(data[begin:end]))
        if not outside:
            return None
        weights = self._weights(told)
        return [*kept, key_of(_RAW_DATA, len(weights)), weights]

    def _weights(self, told: dict[str, str]) -> bytes:
        location = told.get("location", "")
        if location not in self.files:
            self.files[location] = self.read(location)
        whole = self.files[location]
        try:
            offset = int(told.get("offset", "0") or "0")
            length = int(told["length"]) if told.get("length") else len(whole) - offset
        except ValueError as problem:
            raise self.error("says no number for where weights lie", where=self.where) from problem
        if not 0 <= offset <= offset + length <= len(whole):
            raise self.error(f"wants weights beyond the end of {location}", where=self.where)
        self.added += length
        if len(self.content) + self.added > MAX_GRAPH_BYTES:
            raise self.error(
                f"and its weights are more than {MAX_GRAPH_BYTES} bytes", where=self.where
            )
        return whole[offset : offset + length]


def beside(name: str, location: str) -> str:
    """The name of a file that the graph `name` refers to."""
    return str(PurePosixPath(name).parent / location)


def dtype_name(number: int) -> str:
    """numpy's name of ONNX's number of an element type; what has none is called by its number."""
    return _DTYPES.get(number, f"type {number}")


def size_of(shape: tuple[int | None, ...]) -> int:
    """Bytes of a float32 tensor; dimensions that vary count as one."""
    return 4 * math.prod(1 if d is None else d for d in shape)

"""A float32 graph in float16, wholly or in part, with float32 inputs and outputs.

For builders and runtimes that take types literally: what a node computes in is the type of its inputs.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.half_storage import unpack_half

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).tiny)
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_QUANTIZES_HALF = 19  # the first opset whose QuantizeLinear takes float16
_SUFFIX: dict[int, str] = {_FLOAT: "float", _HALF: "half"}

# Inputs that are float32 whatever the others are: the region and scales of Resize.
_FIXED_INPUTS = {"Resize": (1, 2)}

_MOVING = (
    "Cast Clip Concat Constant ConstantOfShape DequantizeLinear Equal Expand Flatten Gather Greater "
    "GreaterOrEqual Identity Less LessOrEqual Max MaxPool Min Neg Not Pad QuantizeLinear Relu Reshape "
    "Shape Slice Split Squeeze Tile Transpose Unsqueeze Where"
)
"""Operators that compute nothing, or nothing that rounds: they follow their neighbors."""


def computing_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that round, and may lose something in float16."""
    return [node.name for node in model.graph.node if node.op_type not in _MOVING.split()]


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy whose arithmetic is float16.

    Inputs and outputs keep their names and stay float32.  Constants beyond float16's range become its
    largest value.

    Args:
        model: a float32 graph; one with weights stored in float16, or quantized, counts as such.
        keep: names of nodes that go on computing in float32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    unpack_half(copy)
    _lift_scales(copy.graph)
    if any(node.op_type == "QuantizeLinear" for node in copy.graph.node):
        for entry in copy.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, _QUANTIZES_HALF)
    _Conversion(copy, frozenset(keep)).run()
    return copy


def simulate_half(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A float32 graph in which some nodes round to float16 whatever goes in and comes out.

    For measuring on CPUs: a float16 graph is no measure there, since where there are no float16 kernels
    ONNX Runtime computes neighboring nodes in float32 with no rounding in between.

    Args:
        model: a float32 graph with named nodes.
        names: the nodes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    unpack_half(copy)
    graph = copy.graph
    inferred = onnx.shape_inference.infer_shapes(copy).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    floats = {  # scalars, such as a sensor's presence, are left as they are
        v.name
        for v in values
        if v.type.tensor_type.elem_type == _FLOAT and len(v.type.tensor_type.shape.dim)
    }
    weights = {t.name: t for t in graph.initializer if t.data_type == _FLOAT}
    wanted, rounded = set(names), dict[str, str]()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in wanted:
            fixed = _FIXED_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                if index in fixed or name not in floats | weights.keys():
                    continue
                if name not in rounded:
                    rounded[name] = f"{name}_rounded"
                    if name in weights:
                        half = numpy_helper.to_array(_halved(weights[name], name))
                        tensor = numpy_helper.from_array(half.astype(np.float32), rounded[name])
                        graph.initializer.append(tensor)
                    else:
                        nodes += _rounding(name, rounded[name])
                node.input[index] = rounded[name]
            made = [(i, n) for i, n in enumerate(node.output) if n in floats]
            for index, name in made:
                node.output[index] = f"{name}_exact"
            nodes.append(node)
            for _, name in made:
                nodes += _rounding(f"{name}_exact", name)
                rounded[name] = name
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _rounding(source: str, target: str) -> list[onnx.NodeProto]:
    # A cast to float16 and straight back is taken out by ONNX Runtime; something must lie between.
    half, kept = f"{target}_as_half", f"{target}_kept_half"
    return [
        helper.make_node("Cast", [source], [half], name=half, to=_HALF),
        helper.make_node("Concat", [half], [kept], name=kept, axis=0),
        helper.make_node("Cast", [kept], [target], name=f"{target}_back", to=_FLOAT),
    ]


def _lift_scales(graph: onnx.GraphProto) -> None:
    """Bring the steps of quantization into float16's range, and quantized weights to the new steps.

    Channels whose weights are next to nothing have steps that would become 0.
    """
    tensors = {t.name: t for t in graph.initializer}
    done: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        name = node.input[1]
        if name in done or name not in tensors or tensors[name].data_type != _FLOAT:
            continue
        done.add(name)
        steps = numpy_helper.to_array(tensors[name])
        lifted = np.maximum(steps, np.float32(_SMALLEST))
        if np.array_equal(lifted, steps):
            continue
        tensors[name].CopyFrom(numpy_helper.from_array(lifted, name))
        weights = tensors.get(node.input[0])
        if weights is None:
            continue
        values = numpy_helper.to_array(weights)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * values.ndim
        if steps.ndim:
            shape[axis] = -1
        smaller = np.rint(values * (steps / lifted).reshape(shape))
        weights.CopyFrom(numpy_helper.from_array(smaller.astype(values.dtype), weights.name))


class _Conversion:
    """One pass over a graph that gives every node its type, with casts where types meet."""

    def __init__(self, model: onnx.ModelProto, keep: frozenset[str]) -> None:
        self.graph, self.keep = model.graph, keep
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        types = {v.name: v.type.tensor_type.elem_type for v in values}
        types |= {t.name: t.data_type for t in self.graph.initializer}
        self.floats = {name for name, kind in types.items() if kind == _FLOAT}
        self.weights = {t.name: t for t in self.graph.initializer if t.data_type == _FLOAT}
        self.now: dict[str, int] = dict.fromkeys(self.floats, _FLOAT)  # type that a tensor has
        self.versions: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.halves: list[TensorProto] = []
        self.kept: set[str] = set()  # what nodes make that stay in float32

    def run(self) -> None:
        for node in self.graph.node:
            self._node(node)
        for value in self.graph.output:
            if self.now.get(value.name) == _HALF:
                self._back_to_float(value.name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.halves)
        used = {n for node in self.nodes for n in node.input}
        used |= {v.name for v in self.graph.output}
        kept = [t for t in self.graph.initializer if t.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        del self.graph.value_info[:]

    def _node(self, node: onnx.NodeProto) -> None:
        # What only moves values follows: a value that needs float32 must not pass through float16.
        follows = node.op_type in _MOVING.split() and not self.kept.isdisjoint(node.input)
        wanted = _FLOAT if node.name in self.keep or follows else _HALF
        if wanted == _FLOAT:
            self.kept.update(node.output)
        fixed = _FIXED_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in self.floats:
                node.input[index] = self._as(name, _FLOAT if index in fixed else wanted)
        makes_float = [name for name in node.output if name in self.floats]
        if makes_float and wanted == _HALF:
            _make_half(node)
        for name in makes_float:
            self.now[name] = wanted
        self.nodes.append(node)

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in a type; casts it once, weights without a cast."""
        if self.now[name] == wanted:
            return name
        key = (name, wanted)
        if key not in self.versions:
            self.versions[key] = version = f"{name}_{_SUFFIX[wanted]}"
            if name in self.weights:
                self.halves.append(_halved(self.weights[name], version))
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [version], name=f"{version}_cast", to=wanted)
                )
        return self.versions[key]

    def _back_to_float(self, name: str) -> None:
        half = f"{name}_{_SUFFIX[_HALF]}"
        for node in self.nodes:
            node.input[:] = [half if n == name else n for n in node.input]
            node.output[:] = [half if n == name else n for n in node.output]
        self.nodes.append(helper.make_node("Cast", [half], [name], name=f"{half}_cast", to=_FLOAT))


def _make_half(node: onnx.NodeProto) -> None:
    """Change what a node states about the type that it makes."""
    if node.op_type == "Cast":
        next(a for a in node.attribute if a.name == "to").i = _HALF
    elif node.op_type == "ConstantOfShape" and not node.attribute:
        zero = numpy_helper.from_array(np.zeros(1, np.float16))
        node.attribute.append(helper.make_attribute("value", zero))
    elif node.op_type in ("Constant", "ConstantOfShape"):
        for attribute in node.attribute:
            if attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))


def _halved(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    # Infinities stay: they mean something, as in a mask; large numbers are only approximate ones.
    finite = np.isfinite(values)
    clipped = np.where(finite, np.clip(values, -_LARGEST, _LARGEST), values)
    return numpy_helper.from_array(clipped.astype(np.float16), name)

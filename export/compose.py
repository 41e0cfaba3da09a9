"""One graph out of a bundle's encoders and fuser: for all sensors, or for exactly some of them.

Made from the graphs themselves and not from PyTorch, so that it works for every bundle, quantized ones
included, and computes what the separate graphs compute.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.half_storage import store_half, unpack_half
from export.onnx_files import load_model
from export.specialize import specialize
from perception.errors import EngineError
from perception.frame import in_order
from perception.runtime.bundle import GraphSource
from perception.runtime.wiring import FUSER, IMAGE, PRESENCE, Wiring, composed


def load_graph(graph: Path | GraphSource) -> onnx.ModelProto:
    """A graph with its weights unpacked to float32, and a name for every node.

    Raises:
        EngineError, BundleError: see `load_model`.
    """
    model = load_model(graph)
    unpack_half(model)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    return model


def compose(
    graphs: Mapping[str, onnx.ModelProto], wiring: Wiring, subset: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Join encoders and fuser to one graph.

    Args:
        graphs: by encoder, and `fuser`, as `load_graph` gives them.
        wiring: how they are joined.
        subset: the inputs that will be there; None for all of them, and an input `presence`
            that says which are.

    Returns:
        A model with the inputs `presence` and those of the bundle, or those of the subset alone, by
        their names, and the fuser's outputs.  Nodes are called `INPUT/NAME` and `fuser/NAME`; an
        encoder that serves several inputs is there for each, with its weights once.  Weights are
        stored as float16 where that is exact.

    Raises:
        EngineError: a subset of a bundle whose height and width may vary.
    """
    fuser = graphs[FUSER]
    chosen = in_order(n for n in wiring.names if subset is None or n in subset)
    model = onnx.ModelProto()
    model.ir_version = max(g.ir_version for g in graphs.values())
    model.opset_import.extend(_opsets(graphs.values()))
    graph = model.graph
    graph.name = "single" if subset is None else "+".join(chosen)
    if subset is None:
        graph.input.extend(v for v in fuser.graph.input if v.name == PRESENCE)
    numbers = _numbers(graphs, wiring)
    graph.input.extend(numbers)
    first: dict[str, str] = {}  # by encoder, the input under whose name its weights are
    made = {v.name for v in numbers}
    for name in chosen:
        encoder = graphs[wiring.encoders[name]].graph
        outputs = {v.name: wiring.feature(name, v.name) for v in encoder.output}
        made.update(outputs.values())
        bare = wiring.tensor(name)  # what an encoder of one tensor calls it
        inputs = {
            v.name: composed(name, IMAGE if v.name == bare else v.name) for v in encoder.input
        }
        for value in encoder.input:
            graph.input.add().CopyFrom(value)
            graph.input[-1].name = inputs[value.name]
        owner = first.setdefault(wiring.encoders[name], name)
        _append(graph, encoder, name, inputs | outputs, owner)
    own = {v.name: v.name for v in (*fuser.graph.input, *fuser.graph.output)}
    _append(graph, fuser.graph, FUSER, own, FUSER)
    graph.output.extend(fuser.graph.output)
    _drop_cast_pairs(graph)
    if subset is not None:
        specialize(model, {**_blanks(fuser.graph, made), PRESENCE: wiring.present(chosen)})
    store_half(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _numbers(graphs: Mapping[str, onnx.ModelProto], wiring: Wiring) -> list[onnx.ValueInfoProto]:
    """What a fuser takes for a task besides features, see `Task.graph_inputs`."""
    features = {PRESENCE}
    for name, encoder in wiring.encoders.items():
        features |= {wiring.feature(name, v.name) for v in graphs[encoder].graph.output}
    rest = [v for v in graphs[FUSER].graph.input if v.name not in features]
    return [v for v in rest if [d.dim_value for d in v.type.tensor_type.shape.dim] == [1]]


def _opsets(models: Iterable[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    versions: dict[str, int] = {}
    for model in models:
        for entry in model.opset_import:
            versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _append(
    target: onnx.GraphProto,
    source: onnx.GraphProto,
    prefix: str,
    border: Mapping[str, str],
    owner: str,
) -> None:
    """Append a graph's nodes and weights.

    Args:
        target, source: the graphs.
        prefix: of its names.
        border: new names of its inputs and outputs.
        owner: prefix of its weights; where that is another one, they are there already.
    """
    constants = [n for n in source.node if n.op_type == "Constant"]
    weights = {t.name for t in source.initializer} | {o for n in constants for o in n.output}

    def renamed(name: str) -> str:
        if name in border or not name:
            return border.get(name, name)
        return f"{owner if name in weights else prefix}/{name}"

    for tensor in source.initializer:
        if owner != prefix and tensor.name not in border:
            continue
        copy = target.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = renamed(tensor.name)
    for node in source.node:
        if owner != prefix and node.op_type == "Constant" and node.output[0] not in border:
            continue
        new = target.node.add()
        new.CopyFrom(node)
        new.name = f"{prefix}/{node.name}"
        new.input[:] = [renamed(n) for n in node.input]
        new.output[:] = [renamed(n) for n in node.output]


def _blanks(fuser: onnx.GraphProto, made: Collection[str]) -> dict[str, np.ndarray]:
    """Zeros for the features that nothing makes."""
    given = {}
    for value in fuser.input:
        if value.name in made or value.name == PRESENCE:
            continue
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if not all(shape):
            raise EngineError(
                "a graph for one subset needs fixed sizes; this bundle was exported with --dynamic",
                where="--subset",
            )
        given[value.name] = np.zeros(shape, np.float32)
    return given


def _drop_cast_pairs(graph: onnx.GraphProto) -> None:
    """float16 to float32 and back, as float16 graphs meet at their float32 borders, is nothing."""
    to_float = {
        n.output[0]: n.input[0]
        for n in graph.node
        if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT
    }
    halves = {
        n.output[0]
        for n in graph.node
        if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16
    }
    if not halves:
        return
    known = onnx.shape_inference.infer_shapes(helper.make_model(graph)).graph.value_info
    halves |= {v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    replaced: dict[str, str] = {}
    for node in list(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
        if node.op_type != "Cast" or node.attribute[0].i != TensorProto.FLOAT16:
            continue
        origin = to_float.get(node.input[0], "")
        if origin in halves:
            replaced[node.output[0]] = origin
            graph.node.remove(node)
    used = {n for node in graph.node for n in node.input} | {v.name for v in graph.output}
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
        graph.node.remove(node)

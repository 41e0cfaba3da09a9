"""One graph out of a bundle's encoders and fuser: for all sensors, or for exactly some of them.

Made from the graphs themselves and not from PyTorch, so that it works for every bundle, quantized ones
included, and computes what the separate graphs compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.half_storage import store_half, unpack_half
from export.onnx_files import load_model
from export.specialize import specialize
from perception.errors import EngineError
from perception.frame import MODALITIES, Modality
from perception.runtime.bundle import GraphSource

FUSER = "fuser"


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
    graphs: Mapping[str, onnx.ModelProto], subset: Sequence[Modality] | None = None
) -> onnx.ModelProto:
    """Join encoders and fuser to one graph.

    Args:
        graphs: by modality, and `fuser`, as `load_graph` gives them.
        subset: the modalities that will be there; None for all of them, and an input `presence`
            that says which are.

    Returns:
        A model with the inputs `presence` and every modality, or those of the subset alone, and the
        fuser's outputs.  Nodes are called `GRAPH/NAME`.  Weights are stored as float16 where that
        is exact.

    Raises:
        EngineError: a subset of a bundle whose height and width may vary.
    """
    fuser = graphs[FUSER]
    chosen = [m for m in MODALITIES if m in graphs and (subset is None or m in subset)]
    model = onnx.ModelProto()
    model.ir_version = max(g.ir_version for g in graphs.values())
    model.opset_import.extend(_opsets(graphs.values()))
    graph = model.graph
    graph.name = "single" if subset is None else "+".join(chosen)
    if subset is None:
        graph.input.extend(v for v in fuser.graph.input if v.name == "presence")
    for modality in chosen:
        graph.input.extend(graphs[modality].graph.input)
    for name in (*chosen, FUSER):
        _append(graph, graphs[name].graph, name)
    graph.output.extend(fuser.graph.output)
    _drop_cast_pairs(graph)
    if subset is not None:
        specialize(model, _absent(fuser.graph, graphs, chosen))
    store_half(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _opsets(models: Iterable[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    versions: dict[str, int] = {}
    for model in models:
        for entry in model.opset_import:
            versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _append(target: onnx.GraphProto, source: onnx.GraphProto, prefix: str) -> None:
    """Append a graph's nodes and weights, with a prefix to all names but those at its border."""
    kept = {v.name for v in (*source.input, *source.output)} | {""}

    def renamed(name: str) -> str:
        return name if name in kept else f"{prefix}/{name}"

    for tensor in source.initializer:
        copy = target.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = renamed(tensor.name)
    for node in source.node:
        new = target.node.add()
        new.CopyFrom(node)
        new.name = f"{prefix}/{node.name}"
        new.input[:] = [renamed(n) for n in node.input]
        new.output[:] = [renamed(n) for n in node.output]


def _absent(
    fuser: onnx.GraphProto, graphs: Mapping[str, onnx.ModelProto], chosen: Sequence[str]
) -> dict[str, np.ndarray]:
    """What the fuser is given for a subset: presence, and zeros for the features of the others."""
    produced = {v.name for m in chosen for v in graphs[m].graph.output}
    given = {"presence": np.array([m in chosen for m in MODALITIES], np.float32)}
    for value in fuser.input:
        if value.name in produced or value.name == "presence":
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

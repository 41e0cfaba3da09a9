"""Writing ONNX files: torch.export to ONNX, padding merged, weights stored in half the space."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.graphs import GraphSpec
from export.half_storage import store_half
from perception.errors import EngineError

OPSET = 18
_DYNAMIC_AXES = {2: "height", 3: "width"}


def write_onnx(
    spec: GraphSpec, path: Path, *, dynamic: bool = False, half_storage: bool = True
) -> None:
    """Export one graph.

    Args:
        spec: what to export.
        path: the file to write.
        dynamic: let height and width vary (multiples of 32); otherwise shapes are static, batch 1.
        half_storage: store weights as float16 with a cast in front; the arithmetic stays float32,
            and runtimes fold the cast away when they load the graph.

    Raises:
        EngineError: the graph cannot be expressed in standard ONNX operators.
    """
    model = _export(spec, dynamic)
    merge_padding(model.graph)
    if half_storage:
        store_half(model.graph)
    onnx.checker.check_model(model, full_check=True)
    foreign = sorted({n.domain for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign:
        raise EngineError(f"graph uses operators of {', '.join(foreign)}", where=spec.file)
    onnx.save(model, path)


def _export(spec: GraphSpec, dynamic: bool) -> onnx.ModelProto:
    shapes = None
    if dynamic:
        shapes = _dynamic_shapes(spec)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            spec.module.eval(),
            tuple(spec.inputs.values()),
            input_names=list(spec.inputs),
            output_names=spec.outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_doc_strings(model)
    return model


def _dynamic_shapes(spec: GraphSpec) -> tuple[object, ...]:
    images = [
        dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC) if t.ndim == 4 else None
        for t in spec.inputs.values()
    ]
    # Arguments after the named one are one *args tuple to torch.export.
    return (images[0], *((tuple(images[1:]),) if images[1:] else ()))


def _drop_doc_strings(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths of the exporting machine."""
    model.doc_string = ""
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.functions[:]


def merge_padding(graph: onnx.GraphProto) -> None:
    """Move constant zero padding in front of a convolution into its `pads` attribute."""
    constants = {t.name: t for t in graph.initializer}
    users: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    pads = {n.output[0]: n for n in graph.node if _is_zero_pad(n, constants)}
    for node in list(graph.node):
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or users[node.input[0]] != 1:
            continue
        amounts = numpy_helper.to_array(constants[pad.input[1]]).tolist()
        if len(amounts) != 8 or any(amounts[i] for i in (0, 1, 4, 5)):
            continue
        own = next((a for a in node.attribute if a.name == "pads"), None)
        old = list(own.ints) if own is not None else [0, 0, 0, 0]
        if own is not None:
            node.attribute.remove(own)
        extra = [amounts[2], amounts[3], amounts[6], amounts[7]]
        merged = [a + b for a, b in zip(old, extra, strict=True)]
        node.attribute.append(helper.make_attribute("pads", merged))
        node.input[0] = pad.input[0]
        graph.node.remove(pad)


def _is_zero_pad(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type != "Pad" or len(node.input) < 2 or node.input[1] not in constants:
        return False
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    value = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return mode == b"constant" and (value is None or not numpy_helper.to_array(value).any())

"""The graph that a matcher's training ends with."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from perception.files.writing import write_bytes
from perception.training.matcher.network import CHANNELS, DescriptorNetwork

OPSET = 18
_SMALL = 64


def write_graph(network: DescriptorNetwork, path: Path) -> None:
    """Write the network as ONNX: `image` (1, 2, H, W), H and W multiples of 32, to `coarse` and `fine`.

    Weights are rounded to float16 and stored so; all is computed in float32.

    Raises:
        DataError: it cannot be written.
    """
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.cpu().eval(),
            (torch.zeros(1, CHANNELS, 96, 128),),
            input_names=["image"],
            output_names=["coarse", "fine"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({2: dynamic, 3: dynamic},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _stored_as_half(model.graph)
    _without_traces(model)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def _stored_as_half(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _SMALL:
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            graph.node.insert(
                0, helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT)
            )


def _without_traces(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths of the exporting machine."""
    graph = model.graph
    graph.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]

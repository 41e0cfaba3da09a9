"""Graphs for other runtimes: a Triton model repository, parameters for Isaac ROS's TensorRT node.

Both run the graph alone.  What is around it, preprocessing by the bundle's contract and decoding of the
outputs, stays with the caller: `perception.preprocess` and `perception.tasks`.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from export.bundle_graphs import subset_suffix
from export.byte_input import take_bytes
from export.onnx_files import graph_problems, load_model
from perception.errors import BundleError, ConfigError, EngineError
from perception.files.folders import writing_folder
from perception.files.writing import write_text, write_yaml, writing
from perception.runtime.bundle import Bundle, GraphSource
from perception.sensors.rgb import RgbSpec

_TRITON_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
}
_CONFIG = "config.pbtxt"
_LONGEST_NAME = 100


def write_triton(
    bundle: Bundle, out: Path, graph_name: str = "single", uint8_rgb: bool = False
) -> Path:
    """Write one model into a Triton model repository; the model's folder appears whole or not at all.

    Args:
        bundle: one that has the graph.
        out: the repository's folder.
        graph_name: `single`, or a subset such as `rgb+depth`.
        uint8_rgb: let the graph take its cameras' bytes, see `take_bytes`.

    Returns:
        The model's folder.

    Raises:
        BundleError: the bundle has no such graph; or the folder is something else's, or cannot be written.
        EngineError: the graph has a tensor of a type that is not written for Triton.
        ConfigError: bytes are asked for, and the graph takes no RGB.
    """
    source = _graph(bundle, graph_name)
    model = load_model(source)
    graph = model.graph
    if uint8_rgb:
        names = [v.name for v in graph.input]
        specs = {n: s.preprocess for n, s in bundle.manifest.inputs.items() if n in names}
        pictures = {n: s for n, s in specs.items() if isinstance(s, RgbSpec)}
        if not pictures:
            raise ConfigError(f"the graph {graph_name} has no RGB", where="--uint8-rgb")
        with graph_problems(source):
            for name, spec in pictures.items():
                take_bytes(model, name, spec)
    folder = out / _model_name(bundle, graph_name)
    if folder.exists() and not (folder / _CONFIG).is_file():
        raise BundleError(
            f"is there and has no {_CONFIG}: not replaced",
            where=str(folder),
            hint="choose another --out",
        )
    lines = [
        f"name: {pbtxt_string(folder.name)}",
        'backend: "onnxruntime"',
        # The graph's first dimension is fixed at 1, so that Triton must not add one.
        "max_batch_size: 0",
        *_triton_tensors("input", graph.input),
        *_triton_tensors("output", graph.output),
        "instance_group [ { count: 1 kind: KIND_AUTO } ]",
    ]
    with writing_folder(folder, error=BundleError) as partial:
        (partial / "1").mkdir()
        onnx.save(model, partial / "1" / "model.onnx")
        write_text(partial / _CONFIG, "\n".join(lines) + "\n")
    return folder


def write_isaac_ros(bundle: Bundle, out: Path, graph_name: str = "single") -> Path:
    """Write the parameter file of `isaac_ros_tensor_rt`'s `TensorRTNode`, and the graph beside it.

    Args:
        bundle: one that has the graph.
        out: folder to write to.
        graph_name: `single`, or a subset such as `rgb+depth`.

    Returns:
        The parameter file.

    Raises:
        BundleError: the bundle has no such graph, or the folder cannot be written.
        ConfigError: the folder's name is no UTF-8.
    """
    source = _graph(bundle, graph_name)
    graph = load_model(source).graph
    name = _model_name(bundle, graph_name)
    model = (out / f"{name}.onnx").resolve()
    try:
        str(model).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            "its name is no UTF-8, as what a parameter file names must be",
            where=str(out),
            hint="choose another --out",
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    with writing(model, error=BundleError) as partial:
        partial.write_bytes(source.read_bytes())
    inputs, outputs = ([v.name for v in values] for values in (graph.input, graph.output))
    content = {
        "/**": {  # whatever the node is called
            "ros__parameters": {
                "model_file_path": str(model),
                "engine_file_path": str(model.with_suffix(".plan")),
                "input_tensor_names": inputs,
                "input_binding_names": inputs,
                "output_tensor_names": outputs,
                "output_binding_names": outputs,
                "force_engine_update": False,
                "verbose": False,
            }
        }
    }
    path = out / f"{name}.tensor_rt.yaml"
    write_yaml(path, content, error=BundleError, width=100)
    return path


def _graph(bundle: Bundle, name: str) -> GraphSource:
    graphs = bundle.manifest.graphs
    found = graphs.single if name == "single" else graphs.subsets.get(name)
    if found is None:
        wanted = name.replace("+", ",")
        raise BundleError(
            f"has no graph {name}",
            where=str(bundle.path),
            hint=f"anysense export BUNDLE --subset {wanted}",
        )
    return bundle.source(found.file)


def _model_name(bundle: Bundle, graph_name: str) -> str:
    """Letters, digits, `_` and inner dots: a bundle's name is text, and this one becomes a path."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", bundle.manifest.name).lstrip(".")[:_LONGEST_NAME]
    name = name or "bundle"
    return name if graph_name == "single" else name + subset_suffix(graph_name.split("+"))


def pbtxt_string(text: str) -> str:
    """A string literal of protobuf's text format, quotes included."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "backslashreplace")
    )
    return f'"{escaped}"'


def _triton_tensors(kind: str, values: list[onnx.ValueInfoProto]) -> list[str]:
    lines = []
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type not in _TRITON_TYPES:
            raise EngineError("is neither float32 nor uint8", where=value.name)
        dims = ", ".join(str(d.dim_value or -1) for d in tensor.shape.dim)
        data_type = _TRITON_TYPES[tensor.elem_type]
        lines.append(
            f"{kind} [ {{ name: {pbtxt_string(value.name)} data_type: {data_type} "
            f"dims: [ {dims} ] }} ]"
        )
    return lines

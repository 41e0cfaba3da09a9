"""Graphs of strangers: junk, damage, claims and links are one line, before anything is made of them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from export import engine_builder
from export.compose import compose, load_graph
from export.engine_builder import BuildOptions
from export.half_graph import computing_nodes, simulate_half, to_half
from export.onnx_files import graph_problems, load_model
from export.qdq import layers_of, quantize
from perception.cli.main import main
from perception.errors import BundleError, EngineError
from perception.files.containers import Folder
from perception.runtime.bundle import Bundle, GraphSource, sha256_of
from perception.runtime.wiring import Wiring

MakeBundle = Callable[..., Path]


@pytest.fixture
def graph(make_bundle: MakeBundle) -> Path:
    return make_bundle() / "encoder_rgb.onnx"


def edited(path: Path, edit: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def beside(path: Path, **entries: str) -> Path:
    """The first weight is said to lie in another file."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return edited(path, edit)


def test_a_good_graph_is_what_onnx_reads(graph: Path) -> None:
    assert load_model(graph) == onnx.load(graph)


@pytest.mark.parametrize("content", [b"", b"\xff" * 300, b"hello world", b"\0" * 64, b"PK\3\4"])
def test_what_is_no_graph(content: bytes, graph: Path) -> None:
    graph.write_bytes(content)
    with pytest.raises(EngineError, match=r"encoder_rgb.onnx: is no ONNX graph"):
        load_model(graph)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.onnx", Path("/dev/zero")):
        with pytest.raises(EngineError):
            load_model(path)
    sparse = tmp_path / "sparse.onnx"
    with sparse.open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(EngineError, match="more than the limit"):
        load_model(sparse)


CLAIMS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a weight of 2^40": lambda m: m.graph.initializer[0].dims.insert(0, 1 << 40),
    "a weight without data": lambda m: m.graph.initializer[0].ClearField("raw_data"),
    "a weight of negative size": lambda m: m.graph.initializer[0].dims.__setitem__(0, -2),
    "a weight of no known type": lambda m: setattr(m.graph.initializer[0], "data_type", 99),
    "an input of 2^62": lambda m: setattr(
        m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 1 << 62
    ),
    "an output of negative size": lambda m: setattr(
        m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", -5
    ),
    "a node without its inputs": lambda m: m.graph.node[0].ClearField("input"),
    "an input that nothing makes": lambda m: m.graph.node[1].input.__setitem__(0, "nothing"),
    "an operator that there is not": lambda m: setattr(m.graph.node[0], "op_type", "NoSuch"),
    "no outputs": lambda m: m.graph.ClearField("output"),
    "no operator set": lambda m: m.ClearField("opset_import"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_that_are_not_true(claim: str, graph: Path) -> None:
    with pytest.raises(EngineError, match="encoder_rgb.onnx"):
        load_model(edited(graph, CLAIMS[claim]))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "..\\w.bin"])
def test_weights_outside_the_folder(location: str, graph: Path) -> None:
    outside = graph.parent.parent / "w.bin"
    outside.write_bytes(bytes(24))
    beside(graph, location=location)
    for source in (graph, listed(graph, **{location: sha256_of(outside)})):
        with pytest.raises((EngineError, BundleError)) as caught:
            load_model(source)
        assert "\n" not in str(caught.value)


def listed(graph: Path, **more: str) -> GraphSource:
    """The graph as one of a bundle, whose manifest lists these files besides."""
    checksums = {graph.name: sha256_of(graph), **more}
    return GraphSource(Folder(graph.parent, BundleError), graph.name, checksums)


def test_weights_beside_the_graph(graph: Path, tmp_path: Path) -> None:
    content = np.arange(6, dtype="<f4").tobytes()
    weights = graph.parent / "w.bin"
    weights.write_bytes(content)
    digest = {"w.bin": sha256_of(weights)}
    beside(graph, location="w.bin", offset="0", length="24")
    with pytest.raises(EngineError, match=r"keeps weights in another file, w\.bin"):
        load_model(graph)  # alone, nothing says that it may be read
    found = onnx.numpy_helper.to_array(load_model(listed(graph, **digest)).graph.initializer[0])
    assert found.reshape(-1).tolist() == [0, 1, 2, 3, 4, 5]
    weights.write_bytes(bytes(24))
    with pytest.raises(BundleError, match="does not match its checksum"):
        load_model(listed(graph, **digest))
    weights.unlink()
    with pytest.raises(BundleError, match=r"w\.bin: file is missing"):
        load_model(listed(graph, **digest))
    (tmp_path / "outside.bin").write_bytes(content)
    weights.symlink_to(tmp_path / "outside.bin")
    with pytest.raises(BundleError, match="is a link"):
        load_model(listed(graph, **digest))
    weights.unlink()
    with weights.open("wb") as file:
        file.truncate(100 << 30)
    beside(graph, location="w.bin")
    with pytest.raises(BundleError, match="more than the limit"):
        load_model(listed(graph, **digest))


@settings(max_examples=60)
@given(st.data())
def test_a_graph_with_changed_bytes_is_a_graph_or_one_line(data: st.DataObject) -> None:
    content = bytearray(_GRAPH)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = Path(_FOLDER.name) / "encoder_rgb.onnx"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with contextlib.suppress(EngineError):
        model = load_graph(path)
        with graph_problems(path):
            names = [layer.name for layer in layers_of(model)]
            quantize(model, {layer.activation: 1.0 for layer in layers_of(model)}, names)
            to_half(model)
            simulate_half(model, computing_nodes(model))
            compose({"rgb": model, "fuser": model}, Wiring.of({"rgb": "rgb"}))


def _example() -> tuple[bytes, object]:
    import tempfile

    weight = onnx.numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    nodes = [
        onnx.helper.make_node("Conv", ["image", "w"], ["a"], name="conv"),
        onnx.helper.make_node("Relu", ["a"], ["f"], name="relu"),
    ]
    values = [
        onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 8])
        for n, c in (("image", 3), ("f", 2))
    ]
    made = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(made, opset_imports=opsets, ir_version=9)
    return model.SerializeToString(), tempfile.TemporaryDirectory()


_GRAPH, _FOLDER = _example()

WAYS = {
    "half": ["--precision", "fp16", "--out", "OUT"],
    "join": ["--subset", "single", "--out", "OUT"],
    "triton": ["--serve", "triton", "--out", "OUT"],
    "report": ["--report", "OUT", "--bench-frames", "1"],
    "openvino": ["--engine", "openvino"],
    "plans": ["--engine", "tensorrt-rtx", "--compute-capability", "8.6", "--build-only"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_export_says_so_in_one_line(
    way: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    model = onnx.load(make_bundle() / "encoder_rgb.onnx")
    model.graph.node[0].ClearField("input")  # OpenVINO crashes on this one
    for number, content in enumerate((b"\xff" * 100, model.SerializeToString())):
        bundle = make_bundle(f"b{number}", encoder=content)
        arguments = [str(tmp_path / "out") if a == "OUT" else a for a in WAYS[way]]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            assert main(["export", str(bundle), *arguments]) == 2
        lines = errors.getvalue().strip().splitlines()
        assert len(lines) == 1 and f"{bundle}{os.sep}encoder_rgb.onnx" in lines[0]
        assert not (tmp_path / "out").exists()


def test_what_onnx_runtime_would_not_load_is_not_given_to_tensorrt(make_bundle: MakeBundle) -> None:
    folder = make_bundle()

    def circle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = model.graph.output[0].name

    edited(folder / "encoder_rgb.onnx", circle)
    bundle = Bundle.open(folder, verify=False)
    source = GraphSource(bundle.files, "encoder_rgb.onnx")
    with pytest.raises(EngineError, match="cannot be loaded"):
        engine_builder._build(None, bundle, source, BuildOptions("tensorrt"), print)

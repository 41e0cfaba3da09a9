"""What is written for Triton and Isaac ROS says of the graph what the graph says of itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from export.bundle_graphs import GraphChoice, with_graphs
from export.serving import _model_name, pbtxt_string, write_isaac_ros, write_triton
from perception.errors import BundleError, ConfigError
from perception.frame import Sample
from perception.preprocess.sample import preprocess_sample
from perception.runtime.bundle import Bundle, sha256_of
from perception.runtime.engines.probe import probe_inputs, relative_error
from perception.runtime.manifest import GraphFile


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def test_the_triton_repository_names_every_tensor_of_its_graph(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = write_triton(bundle, tmp_path)
    text = (folder / "config.pbtxt").read_text()
    session = ort.InferenceSession(folder / "1/model.onnx")
    found = re.findall(
        r'^(input|output) \[ \{ name: "(\w+)" data_type: TYPE_FP32 dims: \[ ([\d, ]+) \] \} \]$',
        text,
        re.MULTILINE,
    )
    wanted = [("input", i) for i in session.get_inputs()]
    wanted += [("output", o) for o in session.get_outputs()]
    assert found == [(kind, v.name, ", ".join(map(str, v.shape))) for kind, v in wanted]
    assert f'name: "{folder.name}"' in text
    assert "max_batch_size: 0" in text


def test_the_isaac_parameters_name_every_tensor(bundle: Bundle, tmp_path: Path) -> None:
    path = write_isaac_ros(bundle, tmp_path)
    content = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    session = ort.InferenceSession(content["model_file_path"])
    assert content["input_binding_names"] == [i.name for i in session.get_inputs()]
    assert content["output_tensor_names"] == [o.name for o in session.get_outputs()]


def test_a_bundle_without_a_single_graph_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    manifest = yaml.safe_load((copy / "bundle.yaml").read_text())
    del manifest["graphs"]["single"]
    (copy / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (copy / "records.yaml").unlink()
    for write in (write_triton, write_isaac_ros):
        with pytest.raises(BundleError, match="--subset single"):
            write(Bundle.open(copy), tmp_path / "out")


@given(st.text() | st.sampled_from(["..", ".", "", "../../x", "/etc/x", 'a"\nbackend: "python"']))
def test_no_name_leads_out_of_the_repository_or_is_read_as_configuration(name: str) -> None:
    # A manifest refuses most of these: here is what is written should one come through.
    bundle = SimpleNamespace(manifest=SimpleNamespace(name=name))
    for graph in ("single", "rgb+depth"):
        found = _model_name(bundle, graph)  # type: ignore[arg-type]
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]*", found) and len(found) < 200


@given(st.text())
def test_any_text_is_one_literal_of_the_text_format(text: str) -> None:
    literal = pbtxt_string(text)
    assert literal[0] == literal[-1] == '"' and literal.isprintable() and literal.isascii()
    inner = re.findall(r"\\[0-7]{3}|[^\\\"]", literal[1:-1])
    assert "".join(inner) == literal[1:-1]
    content = bytes(int(c[1:], 8) if len(c) > 1 else ord(c) for c in inner)
    assert content == text.encode("utf-8", "backslashreplace")


def test_tensors_of_any_name_stay_tensors(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    hostile = 'f" dims: [ 1 ] }\nbackend: "python"\n#'
    bundle = Bundle.open(make_bundle(feature=hostile))
    changed = bundle.manifest.model_copy(
        update={
            "graphs": bundle.manifest.graphs.model_copy(
                update={"single": GraphFile(file="fuser.onnx")}
            )
        }
    )
    bundle = Bundle(bundle.files, changed)
    lines = (write_triton(bundle, tmp_path / "out") / "config.pbtxt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(("input", "output"))] == [
        "name", "backend", "max_batch_size", "instance_group [ { count",
    ]  # fmt: skip
    content = yaml.safe_load(write_isaac_ros(bundle, tmp_path / "out").read_text())
    assert f"rgb.{hostile}" in content["/**"]["ros__parameters"]["input_tensor_names"]


def test_what_is_no_model_is_not_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "mine").write_text("x")
    with pytest.raises(BundleError, match="not replaced"):
        write_triton(Bundle.open(tiny_bundle), tmp_path)
    assert (tmp_path / "tiny" / "mine").read_text() == "x"
    assert write_triton(Bundle.open(tiny_bundle), tmp_path / "a").name == "tiny"
    assert write_triton(Bundle.open(tiny_bundle), tmp_path / "a").name == "tiny"


def test_weights_beside_a_graph_come_along(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_bundle()
    model = onnx.load(folder / "fuser.onnx")
    onnx.save(
        model, folder / "fuser.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    bundle = Bundle.open(folder, verify=False)
    graphs = bundle.manifest.graphs.model_copy(update={"single": GraphFile(file="fuser.onnx")})
    files = {p.name: sha256_of(p) for p in folder.iterdir() if p.name != "bundle.yaml"}
    changed = bundle.manifest.model_copy(update={"graphs": graphs, "files": files})
    bundle = Bundle(bundle.files, changed)
    isaac = write_isaac_ros(bundle, tmp_path / "out").parent / "small.onnx"
    triton = write_triton(bundle, tmp_path / "out") / "1" / "model.onnx"
    for path in (isaac, triton):
        ort.InferenceSession(path.read_bytes())  # with nothing beside it


@pytest.mark.parametrize("graph", ["single", "rgb+depth"])
def test_bytes_in_give_what_preprocessed_floats_give(
    graph: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    add = GraphChoice(single=True, subsets=(("rgb", "depth"),))
    with_graphs(Bundle.open(tiny_bundle), tmp_path / "copy", add, 1)
    copy = Bundle.open(tmp_path / "copy")
    contract = copy.manifest.inputs
    grid = contract.grid
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (grid.height, grid.width, 3), dtype=np.uint8)
    floats = probe_inputs(contract)
    floats["rgb"] = preprocess_sample(Sample("rgb", image), contract["rgb"])["image"]
    outputs = []
    for flag in (True, False):
        folder = write_triton(copy, tmp_path / str(flag), graph, uint8_rgb=flag)
        session = ort.InferenceSession(folder / "1/model.onnx")
        feeds = {i.name: floats.get(i.name) for i in session.get_inputs()}
        if "presence" in feeds:
            feeds["presence"] = np.ones(4, np.float32)
        if flag:
            feeds["rgb"] = image[None]
            dims = f"1, {grid.height}, {grid.width}, 3"
            wanted = f'name: "rgb" data_type: TYPE_UINT8 dims: [ {dims} ]'
            assert wanted in (folder / "config.pbtxt").read_text()
        names = [o.name for o in session.get_outputs()]
        outputs.append(dict(zip(names, session.run(names, feeds), strict=True)))
    assert relative_error(*outputs) < 1e-5


def test_a_graph_without_rgb_takes_no_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    with_graphs(Bundle.open(tiny_bundle), tmp_path / "copy", GraphChoice(subsets=(("depth",),)), 1)
    copy = Bundle.open(tmp_path / "copy")
    with pytest.raises(ConfigError, match="no RGB"):
        write_triton(copy, tmp_path / "out", "depth", uint8_rgb=True)

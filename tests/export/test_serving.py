"""What is written for Triton and Isaac ROS says of the graph what the graph says of itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml

from export.bundle_graphs import GraphChoice, add_graphs
from export.serving import write_isaac_ros, write_triton
from perception.errors import BundleError, ConfigError
from perception.frame import Sample
from perception.preprocess.sample import preprocess_sample
from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs, relative_error


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
    for write in (write_triton, write_isaac_ros):
        with pytest.raises(BundleError, match="--subset single"):
            write(Bundle.open(copy), tmp_path / "out")


@pytest.mark.parametrize("graph", ["single", "rgb+depth"])
def test_bytes_in_give_what_preprocessed_floats_give(
    graph: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    copy = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    add_graphs(copy, GraphChoice(single=True, subsets=(("rgb", "depth"),)), 1)
    contract = copy.manifest.inputs
    grid = contract.grid
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (grid.height, grid.width, 3), dtype=np.uint8)
    floats = probe_inputs(contract)
    floats["rgb"] = preprocess_sample(Sample("rgb", image), contract)
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
    copy = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    add_graphs(copy, GraphChoice(subsets=(("depth",),)), 1)
    with pytest.raises(ConfigError, match="no RGB"):
        write_triton(copy, tmp_path / "out", "depth", uint8_rgb=True)

"""What is written for Triton and Isaac ROS says of the graph what the graph says of itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import onnxruntime as ort
import pytest
import yaml

from export.serving import write_isaac_ros, write_triton
from perception.errors import BundleError
from perception.runtime.bundle import Bundle


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

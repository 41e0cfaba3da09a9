"""A factory of bundles of two small graphs, for faults that no real network has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_bundles import SmallBundles

from perception.runtime.bundle import sha256_of, write_bundle
from perception.runtime.manifest import check_manifest

SIZE = 32
MakeBundle = Callable[..., Path]


def make_graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """A float32 model; shapes by name of the input or output."""

    def values(shapes: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    tensors = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def encoder(gain: float = 1.0, feature: str = "f") -> onnx.ModelProto:
    """1x1 convolution of RGB to two channels, raised by `gain`, a ReLU, and lowered again."""
    weight = np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)
    back = (np.eye(2, dtype=np.float32) / np.float32(gain)).reshape(2, 2, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["raised"], name="raise"),
        helper.make_node("Relu", ["raised"], ["kept"], name="relu"),
        helper.make_node("Conv", ["kept", "back"], [feature], name="lower"),
    ]
    shape = [1, 2, SIZE, SIZE]
    weights = {"w": weight * np.float32(gain), "back": back}
    return make_graph(nodes, {"image": [1, 3, SIZE, SIZE]}, {feature: shape}, weights)


def fuser(feature: str = "f") -> onnx.ModelProto:
    """1x1 convolution to the logits of three classes; presence is read, and changes nothing."""
    feature = f"rgb.{feature}"
    weight = np.random.default_rng(1).normal(size=(3, 2, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [feature, "w"], ["scores"], name="classify"),
        helper.make_node("Gather", ["presence", "first"], ["rgb_there"], name="gather"),
        helper.make_node("Greater", ["rgb_there", "half"], ["there"], name="greater"),
        helper.make_node("Where", ["there", "scores", "scores"], ["seg_logits"], name="where"),
    ]
    weights = {"w": weight, "first": np.array(0), "half": np.array(0.5, np.float32)}
    inputs = {feature: [1, 2, SIZE, SIZE], "presence": [1]}
    return make_graph(nodes, inputs, {"seg_logits": [1, 3, SIZE, SIZE]}, weights)


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    """Makes bundles of named inputs."""
    return SmallBundles(tmp_path)


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Writes a bundle of RGB.

    Takes its folder's name, the `gain` within its encoder, the name of the `feature` between its graphs,
    other models or bytes for its graphs as `encoder` and `fuser`, and fields of its manifest.
    """

    def make(
        folder_name: str = "small", gain: float = 1.0, feature: str = "f", **changed: Any
    ) -> Path:
        folder = tmp_path / folder_name
        folder.mkdir()
        graphs = {
            "encoder_rgb.onnx": changed.pop("encoder", encoder(gain, feature)),
            "fuser.onnx": changed.pop("fuser", fuser(feature)),
        }
        for file, model in graphs.items():
            content = model if isinstance(model, bytes) else model.SerializeToString()
            (folder / file).write_bytes(content)
        content = {
            "schema": 2,
            "name": "small",
            "inputs": {"modalities": ["rgb"], "grid": {"height": SIZE, "width": SIZE}},
            "tasks": {
                "segmentation": {
                    "classes": [{"id": i, "name": f"c{i}", "color": [i, i, i]} for i in range(3)]
                }
            },
            "graphs": {
                "encoders": {"rgb": {"file": "encoder_rgb.onnx"}},
                "fuser": {"file": "fuser.onnx"},
                "presence": ["rgb"],
            },
            "files": {file: sha256_of(folder / file) for file in graphs},
            **changed,
        }
        write_bundle(folder, check_manifest(content, str(folder)))
        return folder

    return make

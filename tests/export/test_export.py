"""Exported graphs: standard operators, static or dynamic, equal to PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import export.parity
from export.bundle_graphs import GraphChoice, write_composed
from export.bundle_writer import random_images
from export.folding import fold_batch_norm, round_weights_to_half
from export.graphs import graph_specs, modular_graphs
from export.half_storage import store_half
from export.onnx_writer import merge_padding, write_onnx
from export.parity import check_parity
from perception.errors import EngineError, ParityError
from perception.frame import subsets_of
from perception.models.anyfuse import AnyFuse
from perception.models.heads import specs_for
from perception.preprocess import GridSpec, PreprocessContract
from perception.runtime.manifest import Graphs
from perception.runtime.wiring import Wiring

CONTRACT = PreprocessContract(modalities=("rgb", "thermal"), grid=GridSpec(height=64, width=96))


@pytest.fixture(scope="module")
def model() -> AnyFuse:
    torch.manual_seed(0)
    model = AnyFuse(
        ("rgb", "thermal"), specs_for(segmentation=5, boxes2d=2), width=0.25, decoder_width=32
    )
    for encoder in model.encoders.values():
        for conv in encoder.score.values():  # type: ignore[union-attr]
            torch.nn.init.normal_(conv.weight, std=0.3)
    folded = fold_batch_norm(model.eval())
    round_weights_to_half(folded)
    assert isinstance(folded, AnyFuse)
    return folded


def _write(model: AnyFuse, folder: Path, **options: bool) -> tuple[dict[str, torch.Tensor], Graphs]:
    images = random_images(CONTRACT)
    for spec in graph_specs(model, images):
        write_onnx(spec, folder / spec.file, **options)
    wiring = Wiring.of(model.encoder_of)
    subsets = () if options.get("dynamic") else tuple(subsets_of(wiring.names))
    choice = GraphChoice(single=True, subsets=subsets)
    return images, write_composed(folder, modular_graphs(wiring), wiring, choice)


def test_all_forms_equal_pytorch_with_nan_in_absent_inputs(model: AnyFuse, tmp_path: Path) -> None:
    rows = check_parity(model, tmp_path, *_write(model, tmp_path))
    assert {(r.form, r.subset) for r in rows} == {
        (f, s)
        for f in ("modular", "single", "own graph")
        for s in ("rgb+thermal", "rgb", "thermal")
    }
    assert max(r.max_abs for r in rows) < 1e-4


def test_graphs_hold_only_standard_operators_and_no_paths(model: AnyFuse, tmp_path: Path) -> None:
    _write(model, tmp_path)
    for path in tmp_path.glob("*.onnx"):
        graph = onnx.load(path)
        assert {n.domain for n in graph.graph.node} <= {"", "ai.onnx"}
        assert not {"If", "Loop", "Scan"} & {n.op_type for n in graph.graph.node}
        assert b"site-packages" not in path.read_bytes()
        assert max(o.version for o in graph.opset_import) >= 17
        assert all(d.dim_value > 0 for i in graph.graph.input for d in i.type.tensor_type.shape.dim)


def test_a_difference_beyond_the_tolerance_is_an_error(
    model: AnyFuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, graphs = _write(model, tmp_path)
    monkeypatch.setattr(export.parity, "TOLERANCE", 0.0)
    with pytest.raises(ParityError, match="differ from PyTorch"):
        check_parity(model, tmp_path, images, graphs)


def test_half_storage_is_smaller_and_changes_nothing(model: AnyFuse, tmp_path: Path) -> None:
    outputs, sizes = [], []
    for half in (True, False):
        folder = tmp_path / str(half)
        folder.mkdir()
        images, _ = _write(model, folder, half_storage=half)
        session = ort.InferenceSession(folder / "encoder_rgb.onnx")
        outputs.append(session.run(None, {"image": images["rgb"].numpy()})[0])
        sizes.append((folder / "encoder_rgb.onnx").stat().st_size)
    assert np.array_equal(*outputs)
    assert sizes[0] < 0.75 * sizes[1]


@pytest.mark.slow
def test_dynamic_graphs_take_other_sizes(model: AnyFuse, tmp_path: Path) -> None:
    _, graphs = _write(model, tmp_path, dynamic=True)
    other = PreprocessContract(modalities=("rgb", "thermal"), grid=GridSpec(height=128, width=64))
    rows = check_parity(model, tmp_path, random_images(other), graphs)
    assert max(r.max_abs for r in rows) < 1e-4


def test_padding_is_merged_into_convolutions() -> None:
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    pads = numpy_helper.from_array(np.array([0, 0, 0, 1, 0, 0, 1, 2]), "p")
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["x", "p"], ["y"]),
            helper.make_node("Conv", ["y", "w"], ["z"], kernel_shape=[3, 3], pads=[0, 1, 0, 0]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 5, 5])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [weight, pads],
    )
    x = np.random.default_rng(0).normal(size=(1, 1, 5, 5)).astype(np.float32)

    def run() -> np.ndarray:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]

    before = run()
    merge_padding(graph)
    assert [n.op_type for n in graph.node] == ["Conv"]
    assert np.array_equal(run(), before)


def test_only_exact_weights_are_stored_in_half() -> None:
    exact = np.linspace(0, 1, 128, dtype=np.float16).astype(np.float32)
    rough = np.linspace(0, 1, 128, dtype=np.float32) / 3
    graph = helper.make_graph(
        [],
        "g",
        [],
        [],
        [numpy_helper.from_array(exact, "exact"), numpy_helper.from_array(rough, "rough")],
    )
    store_half(graph)
    assert {t.name: t.data_type for t in graph.initializer} == {
        "exact_half": TensorProto.FLOAT16,
        "rough": TensorProto.FLOAT,
    }


def test_weights_out_of_float16_range_are_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, 1e6)
    with pytest.raises(EngineError, match="weight"):
        round_weights_to_half(layer)

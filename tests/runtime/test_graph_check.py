"""Manifests that contradict their graphs are refused before any backend sees these."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.errors import BundleError, EngineError
from perception.files.limits import MAX_TENSOR_BYTES
from perception.frame import Sample
from perception.preprocess.contract import PreprocessContract
from perception.runtime.bundle import Bundle
from perception.runtime.graph_check import Signature, check_modular, expected_outputs
from perception.runtime.manifest import BundleManifest
from perception.runtime.pipeline import Pipeline
from perception.tasks.pictures import PicturesSpec
from perception.tasks.specs import TaskSpecs


def test_good_bundles_are_taken(small: Any, rgb: Sample) -> None:
    for index, (modalities, segmentation, detection) in enumerate(
        [(("rgb",), 3, 0), (("rgb", "depth"), 2, 0), (("rgb", "lidar"), 0, 1), (("rgb",), 5, 2)]
    ):
        folder = small(modalities, segmentation, detection, name=f"b{index}")
        result = Pipeline.load(folder, "cpu", threads=1)({"rgb": rgb})
        assert (result.labels is not None) is bool(segmentation)
        assert (result.boxes is not None) is bool(detection)
        if segmentation:
            assert result.labels is not None and result.labels.max() < segmentation


def _shape(tensor: str, index: int, size: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        values = {v.name: v for v in (*model.graph.input, *model.graph.output)}
        values[tensor].type.tensor_type.shape.dim[index].dim_value = size

    return change


def _dtype(tensor: str, kind: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        values = {v.name: v for v in (*model.graph.input, *model.graph.output)}
        values[tensor].type.tensor_type.elem_type = kind

    return change


def _renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = new if name == old else name

    return change


def _extra(place: str, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        getattr(model.graph, place).append(value)

    return change


def _without_inputs(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


ENCODER, FUSER = "encoder_rgb.onnx", "fuser.onnx"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (FUSER, _shape("seg_logits", 1, 2), "gives seg_logits of shape (1, 2, 4, 8)"),
        (FUSER, _shape("seg_logits", 1, 300), "gives seg_logits of shape (1, 300, 4, 8)"),
        (FUSER, _shape("seg_logits", 1, 0), "output seg_logits has the shape (1, 0, 4, 8)"),
        (FUSER, _shape("seg_logits", 0, 2), "gives seg_logits of shape (2, 3, 4, 8)"),
        (FUSER, _shape("seg_logits", 2, -1), "output seg_logits has the shape (1, 3, -1, 8)"),
        (FUSER, _shape("det_cls_8", 1, 3), "gives det_cls_8 of shape (1, 3, 4, 8)"),
        (FUSER, _shape("det_cls_8", 3, 7), "gives det_cls_8 of shape (1, 2, 4, 7)"),
        (FUSER, _shape("det_box_8", 1, 5), "gives det_box_8 of shape (1, 5, 4, 8)"),
        (FUSER, _shape("presence", 0, 3), "takes presence of shape (3), not (4)"),
        (FUSER, _shape("rgb_f", 1, 1 << 62), "its inputs take"),
        (FUSER, _shape("rgb_f", 2, 1 << 30), "its inputs take"),
        (FUSER, _shape("seg_logits", 2, 1 << 30), "its outputs take"),
        (FUSER, _shape("rgb_f", 1, 4), "takes rgb_f of shape (1, 4, 4, 8), not (1, 3, 4, 8)"),
        (FUSER, _dtype("seg_logits", TensorProto.FLOAT16), "output seg_logits is not float32"),
        (FUSER, _dtype("presence", TensorProto.BOOL), "input presence is not float32"),
        (FUSER, _renamed("seg_logits", "logits"), "has no output seg_logits"),
        (FUSER, _renamed("det_box_8", "det_box_16"), "has no output det_box_8"),
        (FUSER, _renamed("presence", "there"), "has no input presence"),
        (FUSER, _renamed("rgb_f", "thermal_f"), "has no input rgb_f"),
        (FUSER, _extra("input", "sonar_f"), "wants sonar_f, which nothing gives"),
        (FUSER, _extra("input", "presence"), "input presence is there twice"),
        (FUSER, _extra("output", "seg_logits"), "output seg_logits is there twice"),
        (ENCODER, _without_inputs, "has no input rgb"),
        (ENCODER, _renamed("rgb", "pixels"), "has no input rgb"),
        (ENCODER, _extra("input", "more"), "wants more, which nothing gives"),
        (ENCODER, _shape("rgb", 1, 4), "takes rgb of shape (1, 4, 32, 64), not (1, 3, 32, 64)"),
        (ENCODER, _shape("rgb", 3, 32), "takes rgb of shape (1, 3, 32, 32)"),
        (ENCODER, _dtype("rgb", TensorProto.UINT8), "input rgb is not float32"),
        (ENCODER, lambda m: m.graph.ClearField("output"), "gives nothing"),
        (ENCODER, _extra("output", "depth_f"), "another graph gives depth_f too"),
        (ENCODER, _extra("output", "presence"), "another graph gives presence too"),
        (ENCODER, _extra("output", "unused"), "has no input unused"),
    ],
)
def test_a_contradiction_is_one_line_that_names_the_graph(
    small: Any, file: str, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    modalities = ("rgb", "depth")
    graphs = {ENCODER: small.encoder("rgb"), FUSER: small.fuser(modalities, 3, 2)}
    change(graphs[file])
    folder = small(modalities, 3, 2, graphs=graphs)
    for call in (Bundle.open, lambda path: Pipeline.load(path, "cpu", threads=1)):
        with pytest.raises(BundleError, match=re.escape(message)) as caught:
            call(folder)
        assert "\n" not in str(caught.value)
        # The second of two graphs that give the same, and the one that lacks what another gives.
        where = {"another graph gives depth_f too": "encoder_depth", "has no input unused": FUSER}
        assert where.get(message, file) in str(caught.value)


def _single(content: dict[str, Any]) -> None:
    content["graphs"]["single"] = {"file": "single.onnx"}


def _subset(content: dict[str, Any]) -> None:
    content["graphs"]["subsets"] = {"rgb": {"file": "subset.onnx"}}


def _composed(small: Any, presence: bool, classes: int = 3) -> onnx.ModelProto:
    weight = np.ones((classes, 3, 1, 1), np.float32)
    inputs: dict[str, Any] = {"rgb": [1, 3, 32, 64]}
    model: onnx.ModelProto = small.model(
        [helper.make_node("Conv", ["rgb", "w"], ["seg_logits"], strides=[8, 8])],
        inputs | ({"presence": [4]} if presence else {}),
        {"seg_logits": [1, classes, 4, 8]},
        {"w": weight},
    )
    return model


def test_single_and_subset_graphs_are_held_to_the_manifest_too(small: Any) -> None:
    def make(name: str, edit: Any, file: str, graph: onnx.ModelProto) -> Path:
        folder: Path = small(graphs={file: graph}, edit=edit, name=name)
        return folder

    Bundle.open(make("a", _single, "single.onnx", _composed(small, True)))
    Bundle.open(make("b", _subset, "subset.onnx", _composed(small, False)))
    for name, edit, file, graph, message in (
        ("c", _single, "single.onnx", _composed(small, False), "has no input presence"),
        ("d", _subset, "subset.onnx", _composed(small, True), "wants presence"),
        ("e", _single, "single.onnx", _composed(small, True, 4), "gives seg_logits of shape"),
        ("f", _subset, "subset.onnx", _composed(small, False, 2), "gives seg_logits of shape"),
    ):
        with pytest.raises(BundleError, match=message):
            Bundle.open(make(name, edit, file, graph))


def _grows_with_sensors(small: Any) -> onnx.ModelProto:
    """Three classes, and one more for every sensor that is there: no file can tell."""
    model: onnx.ModelProto = small.fuser()
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "three" if name == "seg_logits" else name
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["presence"], ["sum"], keepdims=1),
            helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
            helper.make_node("Slice", ["three", "none", "count", "axis"], ["more"]),
            helper.make_node("Concat", ["three", "more"], ["seg_logits"], axis=1),
        ]
    )
    for name, value in (("none", 0), ("axis", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    return model


def test_sizes_that_a_graph_leaves_open_are_looked_at_when_it_has_run(
    small: Any, rgb: Sample
) -> None:
    graphs = {FUSER: _grows_with_sensors(small)}
    fits = small(segmentation=4, graphs=graphs, name="fits")
    assert Pipeline.load(fits, "cpu", threads=1)({"rgb": rgb}).state == "full"
    pipeline = Pipeline.load(small(segmentation=3, graphs=graphs, name="not"), "cpu", threads=1)
    with pytest.raises(EngineError, match=r"seg_logits: gave \(1, 4, 4, 8\)"):
        pipeline({"rgb": rgb})
    assert pipeline.counters["engine_failures"] == 1
    assert not any(name.startswith("frames_") for name in pipeline.counters)


def test_what_a_backend_finds_out_while_loading_is_held_to_the_manifest_too(small: Any) -> None:
    graph = small.fuser(segmentation=4)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    folder = small(segmentation=3, graphs={FUSER: graph})
    Bundle.open(folder)
    with pytest.raises(BundleError, match=r"fuser: gives seg_logits of shape \(1, 4, 4, 8\)"):
        Pipeline.load(folder, "cpu", threads=1)


def test_limits_are_exact() -> None:
    rows = MAX_TENSOR_BYTES // 4
    Signature({"x": (rows,)}, {}, "g").bounded()
    for inputs in ({"x": (rows + 1,)}, {"x": (rows,), "y": (1,)}, {"x": (rows, None, 2)}):
        with pytest.raises(BundleError, match=f"more than the limit of {MAX_TENSOR_BYTES}"):
            Signature(inputs, {}, "g").bounded()
        with pytest.raises(BundleError, match="its outputs take"):
            Signature({}, inputs, "g").bounded()
    Signature({"x": None, "y": (None, None)}, {}, "g").bounded()


def test_what_is_not_known_contradicts_nothing(small: Any) -> None:
    manifest = Bundle.open(small(("rgb",), 3, 2)).manifest
    shapes = expected_outputs(manifest)
    assert shapes == {
        "seg_logits": (1, 3, None, None),
        "det_cls_8": (1, 2, 4, 8),
        "det_box_8": (1, 4, 4, 8),
    }
    encoder = Signature({"rgb": (None, 3, None, None)}, {"f": None}, "e")
    fuser = Signature({"presence": None, "f": (1, 2)}, dict.fromkeys(shapes, None), "f")
    check_modular(manifest, {"rgb": encoder}, fuser)
    with pytest.raises(BundleError, match="takes f of shape"):
        check_modular(manifest, {"rgb": Signature(encoder.inputs, {"f": (1, 3)}, "e")}, fuser)


def _strided(manifest: BundleManifest, stride: int, **tasks: Any) -> BundleManifest:
    assert manifest.tasks.boxes2d is not None
    boxes = manifest.tasks.boxes2d.model_copy(update={"strides": (stride,)})
    update = {"boxes2d": boxes, **tasks}
    return manifest.model_copy(update={"tasks": TaskSpecs({**manifest.tasks.root, **update})})


def test_a_stride_that_does_not_divide_the_grid_leaves_sizes_open(small: Any) -> None:
    manifest = Bundle.open(small(("rgb",), 0, 2)).manifest
    pictures = PicturesSpec(names=("fused",))
    found = expected_outputs(_strided(manifest, 24, pictures=pictures))
    assert found == {
        "det_cls_24": (1, 2, None, None),
        "det_box_24": (1, 4, None, None),
        "image_fused": (1, None, None, None),
    }


@pytest.mark.parametrize(
    ("height", "width", "stride", "exact"),
    [(64, 96, 64, False), (96, 64, 64, False), (64, 128, 64, True), (96, 96, 64, False)],
)
def test_sizes_are_known_when_the_stride_divides_both_sides(
    small: Any, height: int, width: int, stride: int, exact: bool
) -> None:
    manifest = Bundle.open(small(("rgb",), 0, 2)).manifest
    grid = {"height": height, "width": width}
    inputs = PreprocessContract.model_validate({"modalities": ["rgb"], "grid": grid})
    changed = _strided(manifest.model_copy(update={"inputs": inputs}), stride)
    cells = (height // stride, width // stride) if exact else (None, None)
    assert expected_outputs(changed)[f"det_cls_{stride}"] == (1, 2, *cells)

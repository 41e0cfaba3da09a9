"""A bundle that ends in labels gives what the one gives that ends in logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_bundles import GRID, SmallBundles

from export.bundle_graphs import GraphChoice, with_graphs
from export.ends import end_in_labels, ends_in_labels
from export.serving import write_triton
from perception.cli.main import main
from perception.errors import BundleError, EngineError, ParityError
from perception.frame import Frame, Sample, subsets_of
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import NonFiniteError
from perception.runtime.engines.registry import BACKENDS, REFERENCE
from perception.runtime.pipeline import Pipeline

OUTPUTS = {"seg_labels", "seg_confidence", "seg_energy", "seg_peak"}
BOTH = {"left": ("rgb", "camera"), "right": ("rgb", "camera")}
EXACT = [REFERENCE, *(["openvino-f32"] if BACKENDS["openvino"].installed else [])]


def _tempered(content: dict[str, Any]) -> None:
    content["tasks"]["segmentation"]["temperatures"] = {"left": 0.6, "left+right": 2.5}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle of seven classes, boxes and temperatures, and the one of it that ends in labels."""
    source = SmallBundles(tmp_path).named(BOTH, 7, 2, edit=_tempered)
    assert main(["export", str(source), "--ends", "labels", "--out", str(tmp_path / "labels")]) == 0
    return source, tmp_path / "labels"


def _frame(seed: int, size: tuple[int, int] = GRID) -> Frame:
    rng = np.random.default_rng(seed)
    return Frame(
        {
            name: Sample(
                "rgb",
                rng.integers(0, 255, (*size, 3), dtype=np.uint8),
                stamp_ns=seed + 1,
                sensor=name,
            )
            for name in BOTH
        },
        seed + 1,
    )


@pytest.mark.parametrize("backend", EXACT)
def test_every_subset_gives_the_same(pair: tuple[Path, Path], backend: str) -> None:
    source, labels = pair
    old = Pipeline.load(source, REFERENCE, threads=1)
    new = Pipeline.load(labels, backend, threads=1)
    assert {s.name for s in new.engines["fuser"].outputs} >= OUTPUTS
    for pipeline in (old, new):
        pipeline.wanted = pipeline.parts & {"labels", "confidence", "energy", "boxes"}
    for seed, size in enumerate([GRID, (48, 64), (16, 20)]):
        for subset in subsets_of(tuple(BOTH)):
            frame = _frame(seed, size)
            given = Frame({n: frame[n] for n in subset}, frame.stamp_ns)
            old.reset(), new.reset()
            wanted, found = old(given), new(given)
            assert found.labels.dtype == np.uint8 and found.labels.shape == wanted.labels.shape
            assert (found.labels == wanted.labels).mean() >= 0.999
            assert np.allclose(found.confidence, wanted.confidence, atol=1e-5)
            assert np.allclose(found.energy, wanted.energy, rtol=1e-4, atol=1e-4)
            assert np.allclose(found.boxes.xyxy, wanted.boxes.xyxy, atol=1e-2)


def test_temperatures_reach_the_graph(pair: tuple[Path, Path]) -> None:
    """Of one network at two temperatures, the cooler one is surer."""
    pipeline = Pipeline.load(pair[1], REFERENCE, threads=1)
    fuser, seen = pipeline.engines["fuser"], []
    run = fuser.run

    def note(feeds: Any, ignored: Any = ()) -> Any:
        seen.append(float(feeds["inv_temperature"][0]))
        return run(feeds, ignored)

    fuser.run = note  # type: ignore[method-assign]
    frame = _frame(0)
    for subset in (("left",), ("right",), ("left", "right")):
        pipeline.reset()
        pipeline(Frame({n: frame[n] for n in subset}, 1))
    assert np.allclose(seen, [1 / 0.6, 1.0, 1 / 2.5])


def test_parts_that_nobody_wants_are_left_out(pair: tuple[Path, Path]) -> None:
    pipeline = Pipeline.load(pair[1], REFERENCE, threads=1)
    result = pipeline(_frame(0))
    assert result.labels is not None and result.confidence is not None and result.energy is None
    pipeline.wanted = frozenset({"energy"})
    pipeline.reset()
    result = pipeline(_frame(0))
    assert result.labels is None and result.confidence is None and result.energy.shape == GRID


def _poisoned(folder: Path, value: float) -> Path:
    """The bundle's fuser gives one bad logit, of a class that never wins."""
    path = folder / "fuser.onnx"
    model = onnx.load(path)
    for weights in model.graph.initializer:
        if weights.name == "w_seg_logits":
            array = numpy_helper.to_array(weights).copy()
            array[-1, 0, 0, 0] = value
            weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(model, path)
    text = (folder / "bundle.yaml").read_text()
    old = Bundle.open(folder, verify=False).manifest.files["fuser.onnx"]
    (folder / "bundle.yaml").write_text(text.replace(old, SmallBundles.sha256(path)))
    (folder / "records.yaml").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_gives_nan_is_refused(
    pair: tuple[Path, Path], backend: str, value: float
) -> None:
    """The arg-max of NaN would be a class like any other."""
    pipeline = Pipeline.load(_poisoned(pair[1], value), backend, threads=1)
    with pytest.raises(NonFiniteError):
        pipeline(_frame(0))
    assert pipeline.counters["engine_failures"] == 1


def test_what_gives_nan_is_not_exported(tmp_path: Path) -> None:
    folder = _poisoned(SmallBundles(tmp_path).named(BOTH), np.nan)
    assert main(["export", str(folder), "--ends", "labels", "--out", str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()


def test_graphs_of_one_subset_and_of_everything_end_alike(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    source, labels = pair
    whole = tmp_path / "whole"
    choice = GraphChoice(True, True, (("left",),))
    errors = with_graphs(Bundle.open(source), whole, choice, 1, labels=True)
    assert max(errors.values()) <= 1e-3
    assert main(["bundle", "verify", str(whole)]) == 0
    folder = write_triton(Bundle.open(whole), tmp_path / "triton", "left")
    session = ort.InferenceSession(folder / "1/model.onnx")
    types = {o.name: o.type for o in session.get_outputs()}
    assert set(types) >= OUTPUTS and types["seg_labels"] == "tensor(uint8)"
    assert {i.name for i in session.get_inputs()} == {"left", "inv_temperature"}
    assert "data_type: TYPE_UINT8" in (folder / "config.pbtxt").read_text()
    # A bundle with graphs that end in logits loses them: they would end in something else.
    old = tmp_path / "old"
    with_graphs(Bundle.open(source), old, choice, 1)
    assert main(["export", str(old), "--ends", "labels", "--out", str(tmp_path / "new")]) == 0
    manifest = Bundle.open(tmp_path / "new").manifest
    assert manifest.graphs.single is None and not manifest.graphs.subsets
    assert sorted(manifest.files) == sorted(Bundle.open(labels).manifest.files)


def test_the_source_stays_and_what_cannot_be_is_told(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, labels = pair
    assert not ends_in_labels(Bundle.open(source)) and ends_in_labels(Bundle.open(labels))
    for argv, says in (
        ([source, "--ends", "labels"], "what ends in labels is another bundle"),
        ([labels, "--ends", "labels", "--out", tmp_path / "x"], "ends in labels already"),
        ([labels, "--precision", "fp16", "--out", tmp_path / "x"], "ends in labels already"),
    ):
        capsys.readouterr()
        assert main(["export", *map(str, argv)]) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    boxes = SmallBundles(tmp_path).named(BOTH, 0, 2, name="boxes")
    assert main(["export", str(boxes), "--ends", "labels", "--out", str(tmp_path / "x")]) == 2
    assert "has no outputs that can end in labels" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_half_precision_can_end_in_labels(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "half"
    argv = ["export", str(pair[0]), "--precision", "fp16", "--ends", "labels", "--out", str(out)]
    assert main(argv) == 0
    assert ends_in_labels(Bundle.open(out))
    found, wanted = (Pipeline.load(p, REFERENCE, threads=1)(_frame(0)) for p in (out, pair[0]))
    assert (found.labels == wanted.labels).mean() > 0.98
    assert np.allclose(found.confidence, wanted.confidence, atol=0.02)


def _edited(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(folder / "fuser.onnx")
    change(model)
    onnx.save(model, folder / "fuser.onnx")


def test_ends_that_compute_something_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.ends as module

    folder = SmallBundles(tmp_path).named(BOTH)
    genuine = module._append

    def wrong(model: onnx.ModelProto, *rest: Any) -> None:
        genuine(model, *rest)
        for node in model.graph.node:
            if node.op_type == "ArgMax":
                node.op_type = "ArgMin"

    monkeypatch.setattr(module, "_append", wrong)
    with pytest.raises(ParityError, match="labels: not what is decoded of logits"):
        end_in_labels(folder, 1)


def test_operators_that_are_too_old_and_names_that_are_taken_are_told(tmp_path: Path) -> None:
    def old(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 12

    def taken(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Identity", ["fused"], ["seg_peak"]))

    for index, (change, says) in enumerate(((old, "opset 12"), (taken, "seg_peak already"))):
        folder = SmallBundles(tmp_path).named(BOTH, name=f"b{index}")
        _edited(folder, change)
        text = (folder / "bundle.yaml").read_text()
        digest = Bundle.open(folder, verify=False).manifest.files["fuser.onnx"]
        new = SmallBundles.sha256(folder / "fuser.onnx")
        (folder / "bundle.yaml").write_text(text.replace(digest, new))
        with pytest.raises(EngineError, match=says):
            end_in_labels(folder, 1)


def _labels_alone(tmp_path: Path, dtype: int) -> Path:
    """A bundle whose fuser gives labels and confidence alone, without peak and energy."""

    def change(model: onnx.ModelProto) -> None:
        graph, (height, width) = model.graph, (GRID[0] // 8, GRID[1] // 8)
        graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "two"))
        graph.node.extend(
            [
                helper.make_node("Resize", ["seg_logits", "", "two"], ["fine"], mode="linear"),
                helper.make_node("ArgMax", ["fine"], ["index"], axis=1, keepdims=0),
                helper.make_node("Cast", ["index"], ["seg_labels"], to=dtype),
                helper.make_node("Softmax", ["seg_logits"], ["shares"], axis=1),
                helper.make_node("ReduceMax", ["shares", "one"], ["seg_confidence"], keepdims=0),
            ]
        )
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
        del graph.output[:]
        graph.output.extend(
            [
                helper.make_tensor_value_info("seg_labels", dtype, [1, 2 * height, 2 * width]),
                helper.make_tensor_value_info(
                    "seg_confidence", TensorProto.FLOAT, [1, height, width]
                ),
            ]
        )

    from small_bundles import fuser

    graph = fuser(tuple(BOTH), 7, presence=tuple(BOTH), separator=".")
    change(graph)
    return SmallBundles(tmp_path).named(BOTH, 7, graphs={"fuser.onnx": graph}, name=f"d{dtype}")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8])
def test_a_bundle_of_labels_and_confidence_alone_goes_on(tmp_path: Path, dtype: int) -> None:
    pipeline = Pipeline.load(_labels_alone(tmp_path, dtype), REFERENCE, threads=1)
    pipeline.wanted = frozenset({"labels", "confidence", "energy"})
    wanted = Pipeline.load(SmallBundles(tmp_path).named(BOTH, 7), REFERENCE, threads=1)(_frame(0))
    found = pipeline(_frame(0))
    assert found.labels.dtype == np.uint8 and found.energy is None
    assert (found.labels == wanted.labels).mean() > 0.999
    assert np.allclose(found.confidence, wanted.confidence, atol=1e-5)


def test_labels_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="output seg_labels is not uint8 or float32, but int32"):
        Bundle.open(_labels_alone(tmp_path, TensorProto.INT32)).verify()

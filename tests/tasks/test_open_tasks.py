"""A task that another distribution brings: named in bundle.yaml, run, judged, drawn and written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from in_memory import make_recording
from onnx import helper
from small_bundles import GRID, SmallBundles
from small_bundles import fuser as small_fuser

from perception import plugins
from perception.cli.main import main
from perception.data.base import ClassInfo, Truth
from perception.data.folder import FolderWriter, folder_info
from perception.errors import BundleError, EngineError
from perception.evaluation.evaluate import Scorer, evaluate_subsets
from perception.frame import Sample
from perception.plugins import PluginError
from perception.runtime.bundle import Bundle
from perception.runtime.collector import SensorTiming
from perception.runtime.graph_check import expected_outputs
from perception.runtime.interpret import check_outputs
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.runtime.stream import Listener, Stream, StreamSettings
from perception.tasks.registry import TASKS
from perception.viz.overlay import draw_result

INPUTS = {"rgb": ("rgb", "camera"), "depth": ("depth", "depth")}


@pytest.fixture(autouse=True)
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution, installed."""
    info = tmp_path / "site" / "brings_free_space-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-free-space\nVersion: 1.0\n")
    entry = "free_space = free_space:FREE_SPACE"
    (info / "entry_points.txt").write_text(f"[anysense.tasks]\n{entry}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    plugins.plugins.cache_clear()
    yield
    plugins.plugins.cache_clear()
    TASKS._loaded.pop("free_space", None)


def _graph(outputs: tuple[str, ...], **of: Any) -> onnx.ModelProto:
    """The small fuser, which also gives the largest feature of each column, or of it the logistic."""
    graph = small_fuser(tuple(INPUTS), presence=tuple(INPUTS), separator=".", **of)
    axes = onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    graph.graph.initializer.append(axes)
    for name in outputs:
        top = f"{name}_of"
        graph.graph.node.append(helper.make_node("ReduceMax", ["fused", "axes"], [top], keepdims=0))
        kind = "Identity" if name == "free_logits" else "Sigmoid"
        graph.graph.node.append(helper.make_node(kind, [top], [name]))
        shape = [1, GRID[1] // 8]
        graph.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        )
    return graph


def _bundle(folder: Path, *outputs: str, alone: bool = False, **spec: Any) -> Path:
    def edit(content: dict[str, Any]) -> None:
        kept = {} if alone else content["tasks"]
        content["tasks"] = {"free_space": spec, **kept}

    folder.mkdir(exist_ok=True)
    graphs = {"fuser.onnx": _graph(outputs)}
    return SmallBundles(folder).named(INPUTS, graphs=graphs, edit=edit)


def _frame() -> dict[str, Sample]:
    rng = np.random.default_rng(3)
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (*GRID, 3), dtype=np.uint8)),
        "depth": Sample("depth", rng.uniform(1, 9, GRID).astype(np.float32)),
    }


@pytest.mark.parametrize("outputs", [("free_share", "free_sure"), ("free_logits",)])
def test_it_runs_by_whichever_form_the_graph_has(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    pipeline = Pipeline.load(_bundle(tmp_path / "b", *outputs), "onnxruntime-cpu", threads=1)
    assert pipeline.wanted == {"labels", "confidence", "free_space"}
    assert set(outputs) <= set(expected_outputs(pipeline.manifest, outputs))
    result = pipeline(_frame())
    value = result.values["free_space"]
    assert value.shape == (GRID[1],) and 0 < value.min() < value.max() < 1
    assert result.labels is not None
    fused = pipeline._networks.fuse(
        {n: pipeline.encode(s.named(n)) for n, s in _frame().items()}  # type: ignore[misc]
    )
    plain = fused[outputs[0]][0]
    wanted = plain if outputs[0] == "free_share" else 1 / (1 + np.exp(-plain))
    assert np.allclose(value, np.repeat(wanted, 8), atol=1e-6)
    pipeline.wanted = frozenset({"labels"})
    assert [*pipeline(_frame()).values] == ["segmentation"]


def test_both_forms_give_the_same(tmp_path: Path) -> None:
    both = [
        Pipeline.load(_bundle(tmp_path / str(i), *names), "onnxruntime-cpu", threads=1)(_frame())
        for i, names in enumerate([("free_share", "free_sure"), ("free_logits",)])
    ]
    one, other = (result.values["free_space"] for result in both)
    assert np.allclose(one, other, atol=1e-6)


def test_half_a_form_is_refused_with_what_lacks(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "b", "free_share")
    with pytest.raises(BundleError, match="has no output free_sure"):
        Bundle.open(path)
    manifest = Bundle.open(path, verify=False).manifest
    with pytest.raises(EngineError, match="free_sure.*nothing"):
        logits, share = np.zeros((1, 3, 4, 8), np.float32), np.zeros((1, 8), np.float32)
        check_outputs(manifest, {"seg_logits": logits, "free_share": share})


def test_a_bundle_may_have_no_other_task(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "b", "free_logits", alone=True)
    result = Pipeline.load(path, "onnxruntime-cpu", threads=1)(_frame())
    assert [*result.values] == ["free_space"] and result.labels is None


def test_its_spec_is_checked_as_the_file_has_it(tmp_path: Path) -> None:
    for spec, said in (
        ({"gain": "much"}, "tasks.free_space.gain: "),
        ({"gian": 1}, "tasks.free_space.gian: Extra inputs"),
    ):
        with pytest.raises(BundleError, match=said):
            Bundle.open(_bundle(tmp_path / "b", "free_logits", **spec))


def test_without_the_distribution_the_task_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _bundle(tmp_path / "b", "free_logits")
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if "site" not in p[-5:]])
    plugins.plugins.cache_clear()
    with pytest.raises(BundleError, match="tasks.free_space: unknown task 'free_space'"):
        Bundle.open(path)


def test_it_is_judged_by_its_own_meter(tmp_path: Path) -> None:
    pipeline = Pipeline.load(_bundle(tmp_path / "b", "free_logits"), "onnxruntime-cpu", threads=1)
    labels = np.zeros(GRID, np.uint8)
    labels[: GRID[0] // 2] = 1  # the lower half is free
    recording = make_recording(
        ["class 0", "class 1"], sensors=[("rgb", "depth")], truths=[Truth(labels)]
    )
    scores = evaluate_subsets(pipeline, recording, [("rgb", "depth"), ("rgb",)])
    value = pipeline(recording.frame(0)).values["free_space"]
    assert scores["rgb+depth"]["free_agreement"] == pytest.approx(1 - np.abs(value - 0.5).mean())
    assert {"miou", "free_agreement"} <= scores["rgb"].keys()
    assert [*Scorer(pipeline, make_recording(["class 1"])).meters] == ["segmentation"]


def test_it_is_drawn_over_what_came_before(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "b", "free_logits", gain=0.5)
    pipeline = Pipeline.load(path, "onnxruntime-cpu", threads=1)
    frame = _frame()
    result = pipeline(frame)
    picture = draw_result(pipeline.manifest, frame, result, 0.0)  # type: ignore[arg-type]
    green = (picture == (0, 255, 0)).all(-1)
    assert np.array_equal(green.sum(0), np.ceil(result.values["free_space"] * GRID[0]))
    assert green[-1].all() and not green[0].any()
    assert np.array_equal(picture[~green], frame["rgb"].data[~green])


def test_run_writes_it(tmp_path: Path) -> None:
    import cv2

    path, file = _bundle(tmp_path / "b", "free_logits"), tmp_path / "a.png"
    cv2.imwrite(str(file), _frame()["rgb"].data)
    out = tmp_path / "out"
    code = main(["run", "--bundle", str(path), "--rgb", str(file), "--out", str(out)])
    assert code == 0
    said = json.loads((out / "result.json").read_text())
    assert len(said["free_space"]) == GRID[1] and "segmentation" in said
    assert (out / "overlay.png").is_file() and (out / "labels.png").is_file()


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A recording whose lower half is free."""
    info = folder_info(
        size=GRID,
        seg_classes=tuple(ClassInfo(i, f"class {i}", (i, 0, 0)) for i in range(3)),
        det_classes=(),
        name="drive",
        modalities=("rgb", "depth"),
        rate_hz=10.0,
    )
    labels = np.zeros(GRID, np.uint8)
    labels[: GRID[0] // 2] = 1
    with FolderWriter(tmp_path / "drive", info) as out:
        for index in range(12):
            rng = np.random.default_rng(index)
            depth = rng.uniform(1, 9, GRID).astype(np.float32)
            rgb = rng.integers(0, 256, (*GRID, 3), np.uint8)
            out.add(f"{index:02}", stamp_ns=index * 10**8, labels=labels, rgb=rgb, depth=depth)
    return tmp_path / "drive"


def test_commands_know_it(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, scores = _bundle(tmp_path / "b", "free_logits"), tmp_path / "scores.json"
    data = f"folder:{drive}"
    line = ["eval", str(path), "--data", data, "--all-subsets", "--json", str(scores), "--record"]
    assert main(line) == 0
    for row in json.loads(scores.read_text())["subsets"].values():
        assert row["judged"] == 12 and 0.3 < row["free_agreement"] < 1 and "miou" in row
    (kept,) = Bundle.open(path).records.accuracy.values()
    assert {"free_agreement", "miou"} <= kept["subsets"]["rgb+depth"].keys()
    assert main(["bundle", "info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "segmentation: 3 classes: class 0, class 1, class 2" in said and "free_space\n" in said
    out = tmp_path / "demo"
    assert main(["demo", "--data", data, "--bundle", str(path), "--out", str(out)]) == 0
    assert "free_agreement" not in (out / "frames.csv").read_text()
    assert "pixel_accuracy" in (out / "frames.csv").read_text()


class _Heard(Listener):
    def __init__(self) -> None:
        self.results: list[Result] = []
        self.problems: list[Exception] = []

    def result(self, result: Result) -> None:
        self.results.append(result)

    def problem(self, error: Exception) -> None:
        self.problems.append(error)


def test_one_that_fails_costs_a_stream_nothing_but_itself(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "b", "free_logits", gain=-1.0)
    pipeline = Pipeline.load(path, "onnxruntime-cpu", threads=1)
    with pytest.raises(PluginError, match="'free_space' of brings-free-space 1.0: ValueError"):
        pipeline(_frame())
    heard = _Heard()
    settings = StreamSettings({name: SensorTiming() for name in pipeline.sensors})
    with Stream(settings, pipeline=pipeline, listener=heard) as stream:
        for sample in _frame().values():
            stream.push(sample.sensor, sample)
        until = time.monotonic() + 60
        while not any(r.used for r in heard.results) and time.monotonic() < until:
            time.sleep(0.01)
    found = next(r for r in heard.results if r.used)
    assert found.labels is not None and "free_space" not in found.values
    assert "there is no gain below 0" in str(heard.problems[0])

"""INT8 bundles of earlier versions: what OpenVINO computes wrongly is told, and left to ONNX Runtime."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from int8_graphs import BEFORE, FLOAT, graph, off
from small_bundles import GRID, SmallBundles, model

from export import qdq
from perception.cli.main import main
from perception.errors import EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.doctor import examine
from perception.runtime.engines import measured, selection
from perception.runtime.engines.openvino import OpenVinoEngine
from perception.runtime.engines.openvino_int8 import told, wrong_layers
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import BackendRecord, BundleRecords, write_records

openvino = pytest.importorskip("openvino")
node = onnx.helper.make_node
PASSED = BackendRecord(passed=True, lost=0.0, tolerance=1.0, probe_error=10.0, frames=9)


def earlier(made: onnx.ModelProto, thresholds: dict[str, float]) -> bytes:
    """Quantized as the first versions did it: every layer, whatever stands before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qdq, "ROUNDED_BEFORE", frozenset())
        names = [layer.name for layer in qdq.layers_of(made)]
        return bytes(qdq.quantize(made, thresholds, names).SerializeToString())


def on_both(content: bytes, tmp_path: Path) -> float:
    """How far OpenVINO is from ONNX Runtime."""
    (tmp_path / "g.onnx").write_bytes(content)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feeds = {i.name: rng.uniform(0, 2, i.shape).astype(np.float32) for i in session.get_inputs()}
    engine = OpenVinoEngine(tmp_path / "g.onnx", "f32", 1)
    assert engine.doubts == told(wrong_layers(content, where="g"))
    return off(engine.run(feeds)["y"], session.run(None, feeds)[0])


@pytest.mark.parametrize("name", BEFORE)
def test_what_openvino_computes_wrongly_is_found_in_the_graph(name: str, tmp_path: Path) -> None:
    content = earlier(graph(name), {"x": 24.0, "r": 24.0})
    found = wrong_layers(content, where="g")
    operators = {"concat": "Concat", "max": "ReduceMax", "min": "ReduceMin"}
    assert found == ({operators[name.split(",")[0]]: 1} if name in FLOAT else {})
    error = on_both(content, tmp_path)
    assert error > 0.05 if found else error < 0.02
    # And nothing of what is quantized now.
    made = graph(name)
    names = [layer.name for layer in qdq.layers_of(made)]
    now = qdq.quantize(made, {"x": 24.0, "r": 24.0}, names).SerializeToString()
    assert not wrong_layers(now, where="g") and not wrong_layers(
        made.SerializeToString(), where="g"
    )


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin", "Concat"])
def test_extremes_of_what_is_rounded_already_are_right(kind: str, tmp_path: Path) -> None:
    """As other exporters write it: every value is rounded, whatever takes it."""
    made = graph({"ReduceMax": "max", "ReduceMin": "min", "Concat": "concat"}[kind])
    whole = onnx.ModelProto.FromString(earlier(made, {"x": 24.0, "r": 24.0}))
    (first,) = (n for n in whole.graph.node if n.op_type == kind)
    first.input[0] = "a_rounded"
    rounding = [
        node("QuantizeLinear", ["a", "x_scale", "x_zero"], ["a_whole"]),
        node("DequantizeLinear", ["a_whole", "x_scale", "x_zero"], ["a_rounded"]),
    ]
    nodes = [*rounding, *whole.graph.node]
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    content = whole.SerializeToString()
    wrong = kind == "Concat"
    assert bool(wrong_layers(content, where="g")) is wrong
    assert (on_both(content, tmp_path) > 0.05) is wrong


def test_a_circle_or_a_graph_that_ends_in_nothing_is_no_trap() -> None:
    made = model(
        [
            node("Relu", ["b"], ["a"]),
            node("Clip", ["a"], ["b"]),
            node("QuantizeLinear", ["b", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("Conv", ["d", "w"], ["y"]),
            node("Conv", [], ["n"]),
            node("QuantizeLinear", [], ["e"]),
            node("DequantizeLinear", ["e"], ["f"]),
            node("MatMul", ["f"], ["m"]),
        ],
        {"x": [1, 3, 8, 8]},
        {"y": None},
        {},
    )
    assert not wrong_layers(made.SerializeToString(), where="g")
    with pytest.raises(EngineError, match="g: is no ONNX graph"):
        wrong_layers(b"QuantizeLinear, but no graph", where="g")


def _encoder(earlier_version: bool) -> onnx.ModelProto:
    """Two maps beside each other, a layer that takes both, and another one."""
    rng = np.random.default_rng(0)
    height, width = GRID
    shapes = {"u": (16, 3, 8, 8), "v": (16, 3, 8, 8), "first.w": (16, 32, 1, 1), "w": (3, 16, 1, 1)}
    made = model(
        [
            node("Conv", ["image", "u"], ["p"], strides=[8, 8], name="left"),
            node("Conv", ["image", "v"], ["q"], strides=[8, 8], name="right"),
            node("Concat", ["p", "q"], ["x"], axis=1),
            node("Conv", ["x", "first.w"], ["h"], name="first"),
            node("Relu", ["h"], ["r"]),
            node("Conv", ["r", "w"], ["f"], name="second"),
        ],
        {"image": [1, 3, height, width]},
        {"f": [1, 3, height // 8, width // 8]},
        {n: rng.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()},
    )
    thresholds = {"image": 6.0, "x": 12.0, "r": 12.0}
    if earlier_version:
        return onnx.ModelProto.FromString(earlier(made, thresholds))
    return qdq.quantize(made, thresholds, [layer.name for layer in qdq.layers_of(made)])


@pytest.fixture
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of an earlier version, or of the present one where a test says so; OpenVINO has passed once."""

    def say(content: dict[str, Any]) -> None:
        content["precision"] = "int8"

    graphs = {"encoder_rgb.onnx": _encoder(getattr(request, "param", True))}
    small = SmallBundles(tmp_path)
    made = small.named({"rgb": ("rgb", "rgb")}, graphs=graphs, edit=say, name="old8")
    names = ("openvino-f32", "openvino-bf16", "openvino-f16")
    write_records(made, BundleRecords(backends=dict.fromkeys(names, PASSED)))
    return made


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelno == logging.WARNING]


def test_one_line_says_what_where_and_what_to_do(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Pipeline.load(bundle, "openvino-f32", threads=1)
    (line,) = _warnings(caplog)
    assert line == (
        f"{bundle}/encoder_rgb.onnx: OpenVINO computes layers in int8 behind Concat wrongly: run it on "
        "onnxruntime (--device cpu), or quantize it anew with `anysense export`"
    )
    assert pipeline.engines["rgb"].doubts and not pipeline.engines["fuser"].doubts
    caplog.clear()
    Pipeline.load(bundle, "cpu", threads=1)
    assert not _warnings(caplog)


@pytest.mark.parametrize("bundle", [True, False], indirect=True, ids=["earlier", "now"])
def test_auto_prefers_onnxruntime(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_known", {})
    # However fast OpenVINO is.
    monkeypatch.setattr(
        selection, "time_all", lambda e, *_: 1.0 if "openvino" in e["fuser"].backend else 5.0
    )
    opened = Bundle.open(bundle)
    engines = selection.load_engines(opened, "auto", 1)
    again = selection.load_engines(opened, "auto", 1)
    backends = {e.backend for e in (*engines.values(), *again.values())}
    if "earlier" in request.node.name:
        assert backends == {REFERENCE}
        assert all("leaving openvino" in line for line in _warnings(caplog))
        assert len(_warnings(caplog)) in (1, 2)  # of each precision that this CPU has, and once
    else:
        assert all("openvino" in name for name in backends) and not _warnings(caplog)


@pytest.mark.parametrize("bundle", [True, False], indirect=True, ids=["earlier", "now"])
def test_commands_that_show_backends_say_so(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    wrong = "earlier" in request.node.name
    out = tmp_path / "out.json"
    assert main(["bundle", "info", str(bundle), "--json", str(out)]) == 0
    told_by = [json.loads(out.read_text())["doubts"]]
    assert ("on openvino: " in capsys.readouterr().out) is wrong
    command = ["bench", str(bundle), "--backends", "openvino-f32", "--frames", "1", "--warmup", "0"]
    assert main([*command, "--json", str(out)]) == 0
    content = json.loads(out.read_text())["backends"]
    assert content[REFERENCE]["doubts"] == ""
    told_by.append(content["openvino-f32"]["doubts"])
    monkeypatch.setenv("ANYSENSE_BUNDLES", str(bundle.parent))
    assert main(["bundles", "--json", str(out)]) == 0
    told_by += [b["doubts"] for b in json.loads(out.read_text())["bundles"] if b["name"] == "old8"]
    told_by += [c.detail for c in examine() if c.name == "old8"]
    assert len(told_by) == 4
    assert all(("computes layers in int8 behind Concat wrongly" in t) is wrong for t in told_by)


@pytest.mark.parametrize("kernels", ["AVX2", ""])
def test_bench_says_where_integers_overflow(kernels: str, bundle: Path, tmp_path: Path) -> None:
    """With kernels for lesser CPUs than this one, as their makers let one choose."""
    out = tmp_path / "out.json"
    words = [
        "bench",
        str(bundle),
        "--backends",
        "openvino-f32",
        "--frames",
        "1",
        "--json",
        str(out),
    ]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": kernels}
    run = [sys.executable, "-m", "perception.cli.main", *words]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    notes = json.loads(out.read_text())["notes"]
    code = "from perception.runtime.engines.openvino import integers_overflow as f; print(f())"
    asked = [sys.executable, "-c", code]
    there = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    overflow = there.stdout.strip() == "True"
    assert overflow or not kernels or "x86" not in os.uname().machine
    assert len(notes) == overflow
    assert ("overflow" in done.stdout + done.stderr) is overflow

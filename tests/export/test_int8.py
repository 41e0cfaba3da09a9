"""Quantization: integers where it costs little, float where a measurement says so."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper, numpy_helper

from export.calibration_ranges import METHODS, Histogram
from export.half_storage import unpack_half
from export.int8 import Int8Options, Quantizer
from export.qdq import layers_of, quantize, quantize_weights
from perception.cli.main import main
from perception.data import open_recording
from perception.errors import ConfigError, EngineError
from perception.frame import MODALITIES
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline


@settings(max_examples=60, deadline=None)
@given(
    values=npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    axis=st.integers(0, 1),
)
def test_each_weight_is_within_half_a_step_of_its_channel(values: np.ndarray, axis: int) -> None:
    whole, steps = quantize_weights(values, axis)
    shape = [1] * values.ndim
    shape[axis] = -1
    scale = steps.reshape(shape)
    assert whole.dtype == np.int8 and np.abs(whole.astype(int)).max() <= 127
    assert (np.abs(whole * scale - values) <= scale * 0.5001 + 1e-6).all()


def _model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n)
        for n, s in (("w1", (8, 3, 3, 3)), ("w2", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 14, 14])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def test_quantized_graphs_hold_int8_weights_and_stay_close() -> None:
    model = _model()
    layers = layers_of(model)
    assert [x.activation for x in layers] == ["x", "b"]
    x = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)
    wanted = _run(model, x)
    both = quantize(model, {"x": 4.0, "b": 15.0}, [x.name for x in layers])
    kinds = {t.name: t.data_type for t in both.graph.initializer}
    assert kinds["w1_int8"] == kinds["w2_int8"] == TensorProto.INT8
    assert "w1" not in kinds
    zeros = [numpy_helper.to_array(t) for t in both.graph.initializer if t.name.endswith("_zero")]
    assert len(zeros) == 4 and not any(z.any() for z in zeros)  # symmetric, as TensorRT demands
    error = np.abs(_run(both, x) - wanted).max() / np.abs(wanted).max()
    assert 0 < error < 0.05
    one = quantize(model, {"x": 4.0, "b": 15.0}, ["first"])
    assert [n.op_type for n in one.graph.node].count("QuantizeLinear") == 1
    assert "w2" in {t.name for t in one.graph.initializer}
    clipped = quantize(model, {"x": 0.1, "b": 15.0}, ["first"])
    assert np.abs(_run(clipped, x) - wanted).max() > 5 * np.abs(_run(one, x) - wanted).max()
    assert np.array_equal(_run(quantize(model, {}, []), x), wanted)


def test_thresholds_leave_out_outliers_but_not_values() -> None:
    rng = np.random.default_rng(0)
    histogram = Histogram()
    for scale in (0.5, 1.0):  # the range grows on the way
        histogram.add((rng.normal(size=(1, 256, 256)) * scale).astype(np.float32))
    histogram.add(np.array([300.0, np.nan], np.float32))
    found = {m: histogram.threshold(m) for m in METHODS}
    assert found["max"] == 300
    assert 2 < found["percentile"] < 8
    assert all(0.5 < t <= 300 for t in found.values())
    assert histogram.counts.sum() > 40_000
    assert Histogram().threshold("mse") > 0


def test_the_entropy_and_mse_thresholds_cut_a_long_thin_tail() -> None:
    histogram = Histogram()
    rng = np.random.default_rng(0)
    histogram.add(np.array([20.0], np.float32))
    histogram.add(rng.normal(size=200_000).astype(np.float32))
    assert histogram.threshold("entropy") < 10
    # One value in 67,000 that is off by 5 costs as much as rounding all others a little finer.
    assert 10 < histogram.threshold("mse") < 17


@pytest.fixture(scope="module")
def quantized(tiny_bundle: Path, simulated: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("int8") / "bundle"
    options = Int8Options(frames=3, check_frames=1, max_error=0.15, threads=1)
    recording = open_recording("folder", simulated)
    return out, Quantizer(Bundle.open(tiny_bundle), recording, options).run(out)


@pytest.mark.slow
def test_the_bundle_runs_is_smaller_and_says_what_was_done(
    quantized, tiny_bundle: Path, simulated: Path
) -> None:  # type: ignore[no-untyped-def]
    out, report = quantized
    bundle = Bundle.open(out)
    manifest = bundle.manifest
    assert manifest.precision == "int8"
    assert manifest.quantization["layers"] == len(report.layers)
    assert list(manifest.quantization["kept_float"]) == report.kept
    assert manifest.quantization["frames"] == 3
    assert report.error <= 0.15
    assert len(report.kept) < len(report.layers)
    # The layers in float are those whose quantization was measured to cost most.
    cost = report.layers
    rest = set(cost) - set(report.kept)
    if report.kept:
        assert min(cost[n] for n in report.kept) >= max(cost[n] for n in rest)
        assert report.error_all > 0.15
    sizes = [sum(p.stat().st_size for p in f.glob("[ef]*.onnx")) for f in (out, tiny_bundle)]
    assert sizes[0] < sizes[1]
    frame = open_recording("folder", simulated).frame(0)
    result = Pipeline.load(out, "onnxruntime", threads=1)(frame)
    assert result.used == MODALITIES


@pytest.mark.slow
def test_only_the_chosen_layers_are_integers(quantized) -> None:  # type: ignore[no-untyped-def]
    out, report = quantized
    model = onnx.load(out / "encoder_rgb.onnx")
    unpack_half(model)
    integers = sum(
        t.data_type == TensorProto.INT8 and len(t.dims) > 1 for t in model.graph.initializer
    )
    own = [n for n in report.layers if n.startswith("rgb/")]
    assert integers == len(own) - sum(n in report.kept for n in own)


@pytest.mark.slow
def test_no_error_allowed_is_an_error(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = open_recording("folder", simulated)
    options = Int8Options(frames=1, check_frames=1, max_error=1e-9, threads=1)
    quantizer = Quantizer(Bundle.open(tiny_bundle), recording, options)
    # Two layers are enough to see that none is taken.
    some = quantizer.layers()[:2]
    monkeypatch.setattr(quantizer, "layers", lambda: some)
    with pytest.raises(EngineError, match="--max-error"):
        quantizer.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_do_not_fit_are_refused(tiny_bundle: Path, simulated: Path) -> None:
    bundle, recording = Bundle.open(tiny_bundle), open_recording("folder", simulated)
    with pytest.raises(ConfigError, match="14 frames are too few"):
        Quantizer(bundle, recording, Int8Options(frames=14))
    with pytest.raises(ConfigError, match="too few"):
        Quantizer(bundle, recording, Int8Options(frames=0))
    bundle.manifest = bundle.manifest.model_copy(update={"precision": "int8"})
    with pytest.raises(ConfigError, match="is int8 already"):
        Quantizer(bundle, recording, Int8Options(frames=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BUNDLE"], "is a bundle already"),
        (["BUNDLE", "--precision", "int8", "--out", "OUT"], "--calib-data"),
        (["BUNDLE", "--precision", "int8", "--calib-data", "folder:DATA"], "needs --out"),
        (
            ["BUNDLE", "--precision", "int8", "--calib-data", "nothing", "--out", "OUT"],
            "KIND:DIR",
        ),
        (
            ["BUNDLE", "--precision", "int8", "--calib-data", "folder:DATA", "--out", "BUNDLE"],
            "is the source",
        ),
        (["BUNDLE", "--engine", "tensorrt-rtx", "--out", "OUT"], "--out"),
        (["nowhere"], "no such run"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], message: str, tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    filled = {
        "BUNDLE": str(tiny_bundle),
        "OUT": str(tmp_path / "o"),
        "folder:DATA": f"folder:{simulated}",
    }
    command = ["export", *(filled.get(a, a) for a in arguments)]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main(command) == 2
    lines = errors.getvalue().strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.slow
def test_the_commands_quantize_and_compare(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    def anysense(*args: object) -> None:
        command = [sys.executable, "-m", "perception.cli.main", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr

    copy, out = shutil.copytree(tiny_bundle, tmp_path / "copy"), tmp_path / "int8"
    anysense(
        "export", copy, "--precision", "int8", "--calib-data", f"folder:{simulated}",
        "--judge-frames", 1, "--calib-frames", 2, "--max-error", 0.5, "--threads", 1, "--out", out,
    )  # fmt: skip
    anysense("bundle", "verify", out)
    assert set(Bundle.open(out).records.backends) >= {"onnxruntime-cpu"}
    anysense(
        "bench", copy, out, "--device", "onnxruntime", "--frames", 1, "--warmup", 0,
        "--threads", 1, "--json", tmp_path / "b.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "b.json").read_text())
    assert [b["precision"] for b in found["bundles"].values()] == ["fp32", "int8"]
    assert found["speedup"]["rgb"] > 0

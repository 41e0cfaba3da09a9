"""Plans really built by TensorRT for RTX, which needs no GPU to build; and float16 graphs."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.engine_builder import BuildOptions, build_plans
from export.half_graph import simulate_half, to_half
from export.qdq import quantize
from perception.errors import BundleError, ConfigError, EngineError
from perception.runtime.bundle import Bundle, sha256_of
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.plans import FOLDER
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="no TensorRT for RTX")
OPTIONS = BuildOptions("tensorrt-rtx", compute_capabilities=("8.6", "8.9"))


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_float16_graphs_do_what_float32_ones_do(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graphs = bundle.manifest.graphs
    files = {**{m: g.file for m, g in graphs.encoders.items()}, "fuser": graphs.fuser.file}
    engines = []
    for half in (True, False):
        loaded = {}
        for name, file in files.items():
            model = onnx.load(bundle.file(file))
            if half:
                model = to_half(model)
                onnx.checker.check_model(model, full_check=True)
                kinds = {t.data_type for t in model.graph.initializer if np.prod(t.dims) > 8}
                assert TensorProto.FLOAT not in kinds
            onnx.save(model, tmp_path / file)
            loaded[name] = OnnxRuntimeEngine(tmp_path / file, threads=1)
        engines.append(loaded)
    images = probe_inputs(bundle.manifest.inputs)
    wiring = bundle.manifest.wiring
    error = relative_error(*(run_all(e, images, wiring) for e in engines))
    assert 0 < error < 0.02


def test_numbers_beyond_float16_become_its_largest() -> None:
    values = numpy_helper.from_array(np.array([1e9, -1e9, np.inf, 1], np.float32), "c")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [values],
    )
    model = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [65504, -65504, np.inf, 1]


def test_steps_too_small_for_float16_are_lifted_with_their_weights() -> None:
    weight = np.array([[[[1.0]]], [[[1e-6]]]], np.float32)  # the second channel is next to nothing
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[1, 1])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 2, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    half = to_half(quantize(model, {"x": 2.0}, ["conv"]))
    onnx.checker.check_model(half, full_check=True)
    tensors = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    scales = [v for n, v in tensors.items() if "scale" in n]
    assert all(v.dtype == np.float16 and (v > 0).all() for v in scales)
    x = np.full((1, 1, 2, 2), 1.5, np.float32)
    y = ort.InferenceSession(half.SerializeToString()).run(None, {"x": x})[0]
    assert np.allclose(y[0, 0], 1.5, rtol=0.02) and np.abs(y[0, 1]).max() < 1e-3


def test_a_node_can_stay_in_float32() -> None:
    weight = np.array([[[[3e4]]]], np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="large", kernel_shape=[1, 1]),
        helper.make_node("Conv", ["a", "v"], ["y"], name="small", kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(1 / weight, "v")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = np.full((1, 1, 2, 2), 5.0, np.float32)  # 150,000 in between: infinite in float16

    def run(converted: onnx.ModelProto) -> np.ndarray:
        onnx.checker.check_model(converted, full_check=True)
        session = ort.InferenceSession(converted.SerializeToString())
        found: np.ndarray = session.run(None, {"x": x})[0]
        return found

    assert np.allclose(run(to_half(model, ["large", "small"])), 5.0)
    kept = to_half(model, ["large"])
    assert [t.data_type for t in kept.graph.initializer] == [TensorProto.FLOAT, TensorProto.FLOAT16]
    # What float16 does is seen where a graph rounds between its nodes, on any CPU.
    assert not np.isfinite(run(simulate_half(model, ["large", "small"]))).all()
    assert np.array_equal(run(simulate_half(model, [])), run(model))
    third = np.full((1, 1, 2, 2), 1 / 3, np.float32)
    session = ort.InferenceSession(simulate_half(model, ["small"]).SerializeToString())
    found = session.run(None, {"x": third})[0]
    assert 0 < np.abs(found - third).max() < 1e-3


@rtx
@pytest.mark.slow
def test_plans_are_built_kept_and_made_anew_when_damaged(copy: Path) -> None:
    bundle = Bundle.open(copy)
    seen: list[str] = []
    options = BuildOptions("tensorrt-rtx", "fp16", ("8.6", "8.9"), workspace_mib=64)
    first = build_plans(bundle, options, lambda graph, what, share: seen.append(graph))
    assert {p.header.graph for p in first} == set(bundle.manifest.files) - {"single.onnx"}
    assert set(seen) == {p.header.graph for p in first}
    assert all(p.header.compute_capabilities == ("8.6", "8.9") for p in first)
    assert all(p.header.onnx_sha256 == sha256_of(copy / p.header.graph) for p in first)
    assert not any(p.reused for p in first)
    content = bytearray(first[0].path.read_bytes())
    content[-1] ^= 1
    first[0].path.write_bytes(content)
    assert [p.reused for p in build_plans(bundle, options)] == [False, *[True] * (len(first) - 1)]
    other = build_plans(bundle, BuildOptions("tensorrt-rtx", "fp32", ("8.9",)))
    assert {p.path for p in other}.isdisjoint(p.path for p in first)


def _build(folder: Path) -> None:
    build_plans(Bundle.open(folder), OPTIONS)


@rtx
@pytest.mark.slow
def test_two_processes_building_at_once_leave_whole_plans(copy: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build, args=(copy,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [p.exitcode for p in processes] == [0, 0]
    assert all(p.reused for p in build_plans(Bundle.open(copy), OPTIONS))
    assert len(list((copy / FOLDER).glob("*.plan"))) == 5


@rtx
@pytest.mark.slow
def test_a_flipped_byte_in_a_plan_is_one_line_and_the_next_backend_runs(
    copy: Path, simulated: Path, tmp_path: Path
) -> None:
    def anysense(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perception.cli.main", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    build = ("export", copy, "--engine", "tensorrt-rtx", "--compute-capability", "8.6", "8.9")
    done = anysense(*build, "--build-only")
    assert done.returncode == 0, done.stderr
    verified = anysense("bundle", "verify", copy)
    assert verified.returncode == 0 and "5 plans" in verified.stdout
    run = ("run", "--bundle", copy, "--rgb", simulated / "rgb/000000.png", "--out", tmp_path / "o")
    quiet = anysense(*run)
    assert quiet.returncode == 0
    if not examine_driver().gpus:
        assert quiet.stderr == ""
    plan = next((copy / FOLDER).glob("fuser.*.plan"))
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    warned = anysense(*run)
    assert warned.returncode == 0
    lines = warned.stderr.strip().splitlines()
    assert len(lines) == 1 and plan.name in lines[0] and "next backend" in lines[0]
    assert "full" in warned.stdout or "degraded" in warned.stdout
    refused = anysense("bundle", "verify", copy)
    assert refused.returncode == 2 and plan.name in refused.stderr


@rtx
def test_what_cannot_be_built_is_told(copy: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copy)
    with pytest.raises(ConfigError, match="no target '9.0'"):
        build_plans(bundle, BuildOptions("tensorrt-rtx", compute_capabilities=("9.0",)))
    with pytest.raises(ConfigError, match="--dla"):
        build_plans(bundle, BuildOptions("tensorrt-rtx", compute_capabilities=("8.6",), dla=0))
    if not examine_driver().gpus:
        with pytest.raises(EngineError, match="--compute-capability"):
            build_plans(bundle, BuildOptions("tensorrt-rtx"))
    archive = shutil.make_archive(str(tmp_path / "zip"), "zip", copy)
    with pytest.raises(BundleError, match="zip"):
        build_plans(Bundle.open(archive), OPTIONS)
    (copy / "encoder_rgb.onnx").write_bytes(_operator("NoSuchOperator", "nowhere"))
    with pytest.raises(BundleError, match="encoder_rgb.onnx.*checksum"):
        build_plans(bundle, OPTIONS)
    # What ONNX Runtime refuses TensorRT's parser is not given; what that refuses is told, too.
    for operator, domain, said in (
        ("NoSuchOperator", "nowhere", "cannot be loaded"),
        ("QuickGelu", "com.microsoft", "TensorRT cannot take it"),
    ):
        (copy / "encoder_rgb.onnx").write_bytes(_operator(operator, domain))
        files = {**bundle.manifest.files, "encoder_rgb.onnx": sha256_of(copy / "encoder_rgb.onnx")}
        bundle.manifest = bundle.manifest.model_copy(update={"files": files})
        with pytest.raises(EngineError, match=f"encoder_rgb.onnx.*{said}"):
            build_plans(bundle, OPTIONS)


def _operator(name: str, domain: str) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(name, ["rgb"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())

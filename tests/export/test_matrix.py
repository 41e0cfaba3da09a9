"""Every engine, precision and choice of graphs either works or is refused in one clear line."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.bundle_graphs import GraphChoice, add_graphs, parse_choice, with_graphs
from perception.cli.export_arguments import (
    GRAPH_ENGINES,
    PRECISIONS,
    add_arguments,
    check_arguments,
)
from perception.cli.main import main
from perception.errors import ConfigError, EngineError, ParityError
from perception.frame import MODALITIES, subset_name, subsets_of
from perception.runtime.bundle import Bundle
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.plans import all_plans
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all
from perception.runtime.engines.registry import with_plans
from perception.runtime.engines.selection import load_engines

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="no TensorRT for RTX")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
CAPABILITY = ("--compute-capability", "8.6")


def export(*arguments: object) -> tuple[int, str]:
    """Exit status and what went to stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main(["export", *map(str, arguments), "--threads", "1"])
    return status, errors.getvalue().strip()


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def _arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["SOURCE", *given])


ALLOWED = {
    # engine kind, precision asked for -> precisions of sources from which that can be made
    ("graph", None): {None, "fp32", "fp16", "int8", "mixed"},
    ("graph", "fp32"): {None, "fp32"},
    ("graph", "fp16"): {None, "fp32"},
    ("graph", "int8"): {None, "fp32"},
    ("graph", "mixed"): {None, "fp32"},
    ("plan", None): {None, "fp32", "fp16", "int8", "mixed"},
    ("plan", "fp32"): {None, "fp32", "int8", "mixed"},
    ("plan", "fp16"): {None, "fp32", "fp16", "int8", "mixed"},
    ("plan", "int8"): {None, "fp32", "int8", "mixed"},
    ("plan", "mixed"): {None, "fp32", "mixed"},
}


@pytest.mark.parametrize(
    ("engine", "precision"),
    [*itertools.product((*GRAPH_ENGINES, *with_plans()), (None, *PRECISIONS))],
)
def test_the_matrix_is_the_one_that_the_page_states(engine: str, precision: str | None) -> None:
    kind = "plan" if engine.startswith("tensorrt") else "graph"
    for source in (None, "fp32", "fp16", "int8", "mixed"):
        given = ["--engine", engine, "--out", "OUT"]
        given += ["--precision", precision] if precision else []
        if precision in ("int8", "mixed") and source in (None, "fp32"):
            given += ["--calib-data", "folder:DATA"]
        try:
            check_arguments(_arguments(*given), source)
        except ConfigError as error:
            assert source not in ALLOWED[kind, precision], (source, str(error))
            assert "\n" not in str(error)
        else:
            assert source in ALLOWED[kind, precision], source


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--precision", "mixed", "--out", "O"], "--calib-data"),
        (["--precision", "fp16"], "needs --out"),
        (["--layer-error", "0.1"], "--layer-error"),
        (["--dla", "0"], "--dla"),
        (["--timing-cache", "F", "--engine", "openvino"], "--timing-cache"),
        (["--device", "cuda:1"], "onnx graphs are not built for a GPU"),
        (["--device", "cpu", "--engine", "tensorrt"], "plans run on GPUs"),
        (["--device", "npu"], "unknown device 'npu'"),
        (["--device", "cuda:x", "--engine", "tensorrt"], "unknown device"),
        (["--single", "--subset", "rgb"], "give one"),
    ],
)
def test_what_does_not_go_together_is_told(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_arguments(_arguments(*given), "fp32")


def test_subsets_are_read_in_any_order_and_each_once() -> None:
    choice = parse_choice(["depth,rgb", "rgb+depth", "thermal", "single"], MODALITIES)
    assert choice == GraphChoice(False, True, (("rgb", "depth"), ("thermal",)))
    assert parse_choice([], ("rgb",)) == GraphChoice()
    assert len(parse_choice(["all"], MODALITIES).subsets) == 15
    for words, message in (
        (["sonar"], "unknown 'sonar'"),
        (["rgb,"], "unknown ''"),
        (["lidar"], "has no lidar"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_choice(words, ("rgb", "depth"))


def test_a_graph_of_a_subset_computes_what_encoders_and_fuser_compute(copy: Path) -> None:
    out, choice = copy.with_name("out"), parse_choice(["all"], MODALITIES)
    errors = with_graphs(Bundle.open(copy), out, choice, 1)
    assert set(errors) == {"single", *(subset_name(s) for s in subsets_of(MODALITIES))}
    assert max(errors.values()) < 1e-5
    opened = Bundle.open(out)  # verifies all checksums
    assert opened.records.accuracy == Bundle.open(copy).records.accuracy
    assert opened.records.parity == Bundle.open(copy).records.parity
    images = probe_inputs(opened.manifest.inputs)
    engines = load_engines(opened, "onnxruntime", 1)
    for subset in (("rgb",), ("depth", "lidar")):
        path = opened.file(opened.manifest.graphs.subsets[subset_name(subset)].file)
        model = onnx.load(path)
        assert [i.name for i in model.graph.input] == list(subset)  # no presence
        names = {n.name.split("/")[0] for n in model.graph.node}
        assert not names & (set(MODALITIES) - set(subset))
        own = OnnxRuntimeEngine(path, threads=1).run({m: images[m] for m in subset})
        feeds = {s.name: np.zeros(s.shape, np.float32) for s in engines["fuser"].inputs}
        for name in subset:
            for feature, value in engines[name].run({"image": images[name]}).items():
                feeds[f"{name}.{feature}"] = value
        feeds["presence"] = np.array([m in subset for m in MODALITIES], np.float32)
        assert relative_error(own, engines["fuser"].run(feeds)) < 1e-5
    sizes = {f.name: f.stat().st_size for f in out.glob("subset_*.onnx")}
    assert sizes["subset_rgb.onnx"] < 0.8 * sizes["subset_rgb_depth_thermal_lidar.onnx"]


def test_a_graph_that_computes_something_else_is_taken_back(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.bundle_graphs

    monkeypatch.setattr(export.bundle_graphs, "_LIMITS", {"fp32": -1.0})
    with pytest.raises(ParityError, match="rgb differs"):
        with_graphs(Bundle.open(copy), copy.with_name("o"), GraphChoice(subsets=(("rgb",),)), 1)
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]
    assert not Bundle.open(copy).manifest.graphs.subsets


def test_graphs_make_another_bundle(tiny_bundle: Path, copy: Path, tmp_path: Path) -> None:
    before = (copy / "bundle.yaml").read_bytes()
    for given in (["single"], ["single", "depth"], ["all"]):
        done, line = export(copy, "--subset", *given)
        if given == ["single"]:  # it has that, which is held against the separate graphs
            assert (done, line) == (0, "")
        else:
            assert done == 2 and "has no graph" in line and "--out" in line and "\n" not in line
    assert export(copy, "--subset", "depth", "--engine", "openvino")[0] == 2
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in tiny_bundle.iterdir())
    assert (copy / "bundle.yaml").read_bytes() == before
    archive = shutil.make_archive(str(tmp_path / "zip"), "zip", tiny_bundle)
    with_graphs(Bundle.open(archive), tmp_path / "out", GraphChoice(subsets=(("rgb",),)), 1)
    assert list(Bundle.open(tmp_path / "out").manifest.graphs.subsets) == ["rgb"]


def test_float16_bundles_run_and_have_graphs_of_subsets(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert export(copy, "--precision", "fp16", "--subset", "rgb,depth", "--out", out) == (0, "")
    bundle = Bundle.open(out)
    assert bundle.manifest.precision == "fp16"
    images = probe_inputs(bundle.manifest.inputs)
    wiring = bundle.manifest.wiring
    found = run_all(load_engines(bundle, "onnxruntime", 1), images, wiring)
    wanted = run_all(load_engines(Bundle.open(copy), "cpu", 1), images, wiring)
    error = relative_error(found, wanted)
    assert 0 < error < 0.02
    model = onnx.load(out / "subset_rgb_depth.onnx")
    casts = [n for n in model.graph.node if n.op_type == "Cast"]
    borders = len(model.graph.input) + len(model.graph.output)
    assert len(casts) == borders  # none where the graphs met
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {TensorProto.FLOAT}
    status, line = export(out, "--precision", "int8", "--calib-data", "folder:x", "--out", "y")
    assert status == 2 and "is fp16 already" in line and "\n" not in line


@pytest.fixture(scope="module")
def quantized(
    tiny_bundle: Path, simulated: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """INT8 and mixed bundles of the tiny one, each made by the command with a choice of graphs."""
    folder = tmp_path_factory.mktemp("quantized")
    calibration = ["--calib-data", f"folder:{simulated}", "--calib-frames", "2"]
    common = [*calibration, "--judge-frames", "0", "--subset", "single", "depth"]
    for precision, limits in (
        ("int8", ["--max-error", "0.3"]),
        ("mixed", ["--max-error", "0.3", "--layer-error", "0.004", "--calib-method", "entropy"]),
    ):
        out = folder / precision
        given = ["--precision", precision, *limits, *common, "--out", out]
        assert export(tiny_bundle, *given) == (0, "")
    return {p: folder / p for p in ("int8", "mixed")}


@pytest.mark.slow
def test_single_graphs_of_quantized_bundles_are_quantized(quantized: dict[str, Path]) -> None:
    for precision, folder in quantized.items():
        manifest = Bundle.open(folder).manifest
        assert manifest.precision == precision
        for file in ("single.onnx", "subset_depth.onnx"):
            kinds = [n.op_type for n in onnx.load(folder / file).graph.node]
            assert kinds.count("QuantizeLinear") > 5, file
    kept = {
        p: set(Bundle.open(f).manifest.quantization["kept_float"]) for p, f in quantized.items()
    }
    # Mixed is the stricter of the two: what loses much by itself is float in any case.
    assert len(kept["mixed"]) > len(kept["int8"])
    assert min(Bundle.open(quantized["mixed"]).manifest.quantization["kept_float"].values()) > 0.004


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8", "mixed"])
def test_openvino_loads_what_was_chosen(
    precision: str, copy: Path, quantized: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, given = quantized.get(precision, copy), ["--subset", "single", "depth"]
    if precision == "fp32":
        given += ["--out", copy.with_name("out")]
    assert export(source, "--engine", "openvino", *given) == (0, "")
    assert "single.onnx, subset_depth.onnx load on openvino" in capsys.readouterr().out


@pytest.mark.slow
@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "mixed"])
@pytest.mark.parametrize("subset", ["single", "rgb,depth"])
def test_plans_of_every_precision_are_built(
    precision: str, subset: str, copy: Path, quantized: dict[str, Path], simulated: Path
) -> None:
    source = quantized["int8"] if precision == "int8" else copy
    given = ["--engine", "tensorrt-rtx", "--precision", precision, "--subset", subset]
    if precision == "mixed":
        given += ["--calib-data", f"folder:{simulated}", "--max-error", "0.2"]
    if subset != "single" or precision == "int8":
        given += ["--out", copy.with_name("out")]
    assert export(source, *given, *CAPABILITY, "--build-only") == (0, ""), precision
    source = copy.with_name("out") if "--out" in given else source
    stem = "single" if subset == "single" else "subset_rgb_depth"
    plans = [p.header() for p in all_plans(Bundle.open(source)) if f"/{stem}." in p.name]
    # Where no layer needs float32, mixed is float16 by another name.
    assert precision in {p.precision for p in plans}
    assert main(["bundle", "verify", str(source)]) == 0


def test_without_a_gpu_full_tensorrt_is_refused_in_one_line(copy: Path) -> None:
    if examine_driver().gpus:
        pytest.skip("an NVIDIA GPU is here")
    for precision in ("fp32", "fp16"):
        status, line = export(copy, "--engine", "tensorrt", "--precision", precision)
        assert status == 2 and "\n" not in line and "tensorrt" in line.lower()


def test_runs_and_names_of_bundles_are_sources(tiny_bundle: Path, tmp_path: Path) -> None:
    run = tiny_bundle.parent / "tiny.safetensors"
    if not run.is_file():
        pytest.skip("the bundle was made elsewhere")
    out = tmp_path / "out"
    assert export(run, "--subset", "thermal", "--out", out) == (0, "")
    bundle = Bundle.open(out)
    assert list(bundle.manifest.graphs.subsets) == ["thermal"]
    assert bundle.records.parity["own graph thermal"] < 1e-4
    status, line = export("no-such-bundle", "--engine", "openvino")
    assert status == 2 and "no-such-bundle" in line and "\n" not in line


@pytest.mark.parametrize("kind", ["triton", "isaac-ros"])
def test_any_bundle_can_be_served_as_single_or_subset(
    kind: str, copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "served"
    given = ["--serve", kind, "--subset", "single", "rgb,depth", "--out", out]
    assert export(copy, *given) == (0, "")
    names = {p.name.split(".")[0] for p in out.iterdir()}
    assert names == {"tiny", "tiny_rgb_depth"}
    if kind == "triton":
        text = (out / "tiny_rgb_depth/config.pbtxt").read_text()
        assert "presence" not in text and 'name: "rgb"' in text
    assert not (copy / "subset_rgb_depth.onnx").exists()  # the bundle stays as it is
    status, line = export(copy, "--serve", kind, "--subset", "modular", "--out", out)
    assert status == 2 and "one graph" in line


def test_sizes_that_vary_have_no_graph_for_a_subset(copy: Path) -> None:
    path = copy / "fuser.onnx"
    model = onnx.load(path)
    for value in model.graph.input[1:]:
        value.type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(EngineError, match="--dynamic"):
        add_graphs(copy, GraphChoice(subsets=(("rgb",),)), 1)

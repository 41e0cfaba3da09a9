"""What native libraries write to stderr while a GPU provider is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines import onnxruntime as engine
from perception.runtime.engines.base import BackendMissingError
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.quiet import silenced


def test_both_native_and_python_output_are_dropped_inside_and_come_outside(
    capfd: pytest.CaptureFixture[str],
) -> None:
    os.write(2, b"before ")
    with silenced():
        os.write(2, b"native")
        sys.stdout.write("banner")
    os.write(2, b"after")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "before after")


def test_an_error_inside_puts_everything_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), silenced():
        raise ZeroDivisionError
    os.write(2, b"still here")
    sys.stdout.write("and here")
    assert capfd.readouterr() == ("and here", "still here")


def test_a_process_without_stderr_is_no_error() -> None:
    script = (
        "import os, sys\n"
        "from perception.runtime.engines.quiet import silenced\n"
        "os.close(2)\n"
        "with silenced():\n"
        "    pass\n"
        "os.write(1, b'good')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"good")


@pytest.mark.parametrize("noise", ["raises", "falls back"])
def test_a_provider_that_does_not_start_says_nothing_but_its_error(
    small: Any, noise: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As ONNX Runtime for GPUs does it where CUDA's or TensorRT's libraries are missing."""
    genuine = ort.InferenceSession

    def session(content: bytes, options: object, **more: Any) -> ort.InferenceSession:
        assert more["enable_fallback"] == 0
        os.write(2, b"[E:onnxruntime:Default] Failed to load library libonnxruntime_providers.so")
        if noise == "raises":
            raise RuntimeError("Please install TensorRT libraries")
        return genuine(content, options, providers=["CPUExecutionProvider"])

    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(ort, "InferenceSession", session)
    engine._starts.cache_clear()
    try:
        for _ in range(2):
            with pytest.raises(BackendMissingError, match="CUDAExecutionProvider did not start"):
                OnnxRuntimeEngine(small() / "fuser.onnx", "cuda")
    finally:
        engine._starts.cache_clear()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="this ONNX Runtime is for CPUs",
)
def test_the_real_one_is_quiet(capfd: pytest.CaptureFixture[str], small: Any) -> None:
    for device in ("cuda", "tensorrt"):
        try:
            OnnxRuntimeEngine(small() / "fuser.onnx", device)
        except BackendMissingError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_tf32_is_a_choice_for_cuda_alone(small: Any) -> None:
    source = GraphSource.of(small() / "fuser.onnx")
    assert engine.provider_options("CUDAExecutionProvider", source)["use_tf32"] == "1"
    exact = GraphSource(source.files, source.name, tf32=False)
    assert engine.provider_options("CUDAExecutionProvider", exact)["use_tf32"] == "0"
    assert engine.provider_options("CPUExecutionProvider", exact) == {}


def test_engines_that_onnx_runtime_builds_are_kept_by_content_not_by_name(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its TensorRT provider names them by the graph's names, which two bundles share."""
    monkeypatch.setenv("ANYSENSE_CACHE", str(tmp_path / "cache"))
    one, other = small(name="one"), small(graphs={"fuser.onnx": small.fuser(seed=5)}, name="other")
    sources = [GraphSource.of(folder / "fuser.onnx") for folder in (one, other, one)]
    places = [engine.provider_options("TensorrtExecutionProvider", s) for s in sources]
    assert places[0] == places[2] != places[1]
    assert all(str(tmp_path / "cache") in p["trt_engine_cache_path"] for p in places)
    for name in ("ANYSENSE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert engine.provider_options("TensorrtExecutionProvider", sources[0]) == {"device_id": "0"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "ir_version", 14), "ONNX IR version 14"),
        (lambda m: setattr(m.opset_import[0], "version", 28), "ONNX opset 28"),
    ],
)
def test_what_only_this_onnx_runtime_does_not_know_is_said_shortly(
    small: Any, change: Any, message: str
) -> None:
    graph = small.fuser()
    change(graph)
    path = small(graphs={"fuser.onnx": graph}) / "fuser.onnx"
    try:
        OnnxRuntimeEngine(path)
    except EngineError as error:
        text = str(error)
        assert "\n" not in text and "onnxruntime_src" not in text and len(text) < 300
        assert message in text and "pip install -U onnxruntime" in text

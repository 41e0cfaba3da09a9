"""Backends by name and number, ours and those of other distributions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from backends import register

from perception import plugins
from perception.cli.arguments import backend_names
from perception.cli.main import main
from perception.errors import ConfigError, EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines import measured, registry, selection
from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import BackendMissingError, Engine, Tensor
from perception.runtime.engines.cuda_driver import Driver, Gpu, examine_driver, gpu
from perception.runtime.engines.onnxruntime import provider_options
from perception.runtime.engines.registry import (
    BACKENDS,
    FAMILIES,
    REFERENCE,
    candidates,
    device_of,
    ranked,
    with_plans,
)
from perception.runtime.engines.selection import load_engines
from perception.runtime.pipeline import Pipeline

PLUGIN = '''
from perception.runtime.engines import BACKENDS, Backend, Engine

class Wrapped(Engine):
    """The reference under another name, which notes what it was loaded with."""
    loaded = []
    def __init__(self, graph, threads, device):
        self.inner = BACKENDS["onnxruntime-cpu"].load(graph, threads, 0)
        self.backend = "abacus"
        self.inputs, self.outputs = self.inner.inputs, self.inner.outputs
        self.loaded.append((threads, device))
    def infer(self, feeds):
        return self.inner.infer(feeds)

ABACUS = Backend(Wrapped, "numpy", "pip install abacus", kind="{kind}", rank={rank}, exact=True)
BROKEN = "no backend"
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Puts a distribution that brings backends onto the path."""

    def bring(kind: str = "gpu", rank: object = None, name: str = "abacus") -> None:
        (tmp_path / "abacus_backend.py").write_text(
            PLUGIN.replace("{kind}", kind).replace("{rank}", str(rank))
        )
        info = tmp_path / "abacus_backend-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: abacus-backend\nVersion: 1.0\n"
        )
        attribute = "ABACUS" if name == "abacus" else "BROKEN"
        (info / "entry_points.txt").write_text(
            f"[anysense.backends]\n{name} = abacus_backend:{attribute}\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        plugins.plugins.cache_clear()

    monkeypatch.setattr(BACKENDS, "_loaded", dict(BACKENDS._loaded))
    monkeypatch.setattr(registry, "_broken", set())
    yield bring
    monkeypatch.undo()
    sys.modules.pop("abacus_backend", None)
    plugins.plugins.cache_clear()


def _loaded() -> list[tuple[int | None, int]]:
    found: list[tuple[int | None, int]] = sys.modules["abacus_backend"].Wrapped.loaded
    return found


def test_another_distributions_backend_is_taken_by_name_and_number(
    tiny_bundle: Path, install, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    install("gpu")
    pipeline = Pipeline.load(tiny_bundle, "abacus:3", threads=1)
    assert pipeline.backend == "abacus"
    assert set(_loaded()) == {(1, 3)}
    _loaded().clear()
    pipeline.use_device("abacus", 1)
    assert set(_loaded()) == {(1, 0)}
    _loaded().clear()
    command = ["bench", str(tiny_bundle), "--device", "abacus:2", "--threads", "1", "--frames", "1"]
    assert main(command) == 0
    assert set(_loaded()) == {(1, 2)}
    assert "abacus" not in candidates("auto")  # it has no rank
    assert "abacus" in registry.known_devices() and backend_names("abacus:1") == ["abacus:1"]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_auto_knows_a_backend_that_says_so(
    kind: str,
    tiny_bundle: Path,
    install,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_known", {})
    install(kind, rank=1)
    assert ranked(kind)[0] == "abacus"  # type: ignore[arg-type]
    times = {"abacus": 1.0}
    monkeypatch.setattr(selection, "time_all", lambda e, *_: times.get(e["fuser"].backend, 5.0))
    assert load_engines(Bundle.open(tiny_bundle), "auto", 1)["fuser"].backend == "abacus"
    if kind == "gpu":
        assert load_engines(Bundle.open(tiny_bundle), "cuda:1", 1)["fuser"].backend == "abacus"
        assert _loaded()[-1] == (1, 1)


def test_one_that_cannot_be_imported_spoils_nothing_but_itself(
    tiny_bundle: Path,
    install,  # type: ignore[no-untyped-def]
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(name="junk")
    for _ in range(2):
        assert "junk" not in candidates("cuda")
    (said,) = caplog.records  # once
    assert "backend 'junk' of abacus-backend 1.0: TypeError: is str, not a Backend" in (
        said.getMessage()
    )
    with pytest.raises(ConfigError, match=r"'junk' of abacus-backend 1\.0.*not a Backend"):
        Pipeline.load(tiny_bundle, "junk")
    assert Pipeline.load(tiny_bundle, "cpu", threads=1).backend == REFERENCE


def test_numbers_are_for_gpus(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [str(device_of(t)) for t in ("cuda:1", "tensorrt:0", "onnxruntime", "auto")] == [
        "cuda:1",
        "tensorrt",
        REFERENCE,
        "auto",
    ]
    for text in ("cpu:0", "auto:1", "onnxruntime:1", "openvino:0"):
        with pytest.raises(ConfigError, match="takes no number"):
            device_of(text)
    for text in ("cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "cuda:²", "cuda:99999", "tensorrt: 1"):
        with pytest.raises(ConfigError, match="number of a GPU"):
            device_of(text)
    for text in ("", ":", "gpu:1", "[red]", "CPU"):
        with pytest.raises(ConfigError, match="unknown device"):
            device_of(text)
    assert main(["bench", str(tiny_bundle), "--device", "openvino:1"]) == 2
    assert "takes no number" in capsys.readouterr().err


def test_the_number_reaches_the_engines(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    source = Bundle.open(tiny_bundle).source("fuser.onnx")
    for provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        assert provider_options(provider, source, 3)["device_id"] == "3"
    assert provider_options("CPUExecutionProvider", source, 3) == {}
    two = tuple(Gpu(i, f"GPU {i}", "9.0", 1, False) for i in range(2))
    monkeypatch.setattr(
        "perception.runtime.engines.cuda_driver.examine_driver", lambda: Driver("13.0", two)
    )
    assert gpu(1, "x") == two[1]
    with pytest.raises(BackendMissingError, match="no GPU 2.*0 .GPU 0., 1 .GPU 1."):
        gpu(2, "x")


def test_without_a_gpu_a_number_is_no_traceback(tiny_bundle: Path) -> None:
    if examine_driver().gpus:
        pytest.skip("there is one")
    for device in ("tensorrt:1", "onnxruntime-cuda:1"):
        with pytest.raises(EngineError):
            load_engines(Bundle.open(tiny_bundle), device)
    assert load_engines(Bundle.open(tiny_bundle), "cuda:1", 1)["rgb"].backend == REFERENCE


def test_the_lists_are_those_of_the_records() -> None:
    assert with_plans() == ("tensorrt", "tensorrt-rtx")
    assert ranked("cpu") == ("openvino", "openvino-f32", REFERENCE)
    for name in BACKENDS:
        backend = BACKENDS[name]
        assert backend.module and backend.install and name not in FAMILIES
        if backend.build is not None:
            assert callable(backend.builder())
        else:
            with pytest.raises(EngineError, match="nothing is built"):
                backend.builder()


@pytest.mark.parametrize("wrong", ["a b", "X", "x:1", "", "x,y"])
def test_a_backend_has_a_plain_name(wrong: str) -> None:
    with pytest.raises(ValueError, match="small letters"):
        registry.check_backend(wrong, BACKENDS[REFERENCE])


def test_a_backend_replaced_in_a_test_is_ours_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Zero(Engine):
        def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"y": np.zeros(1, np.float32)}

    genuine = BACKENDS[REFERENCE]
    with monkeypatch.context() as patch:
        register(patch, REFERENCE, Backend(lambda g, t, d: Zero(), "numpy", ""))
        assert BACKENDS[REFERENCE] is not genuine
    assert BACKENDS[REFERENCE] is genuine

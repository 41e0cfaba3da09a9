"""What every backend must keep to, on really exported graphs; and what happens when one does not."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from backends import register

from perception.data import open_recording
from perception.errors import ConfigError, EngineError
from perception.frame import KINDS, Frame, subset_name, subsets_of
from perception.runtime.bundle import Bundle
from perception.runtime.bundle import record as add_records
from perception.runtime.engines import cuda_engine, measured, registry, selection
from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import BackendMissingError, Engine, Tensor
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.cuda_features import VARIABLE
from perception.runtime.engines.fallback import FallbackEngine
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all
from perception.runtime.engines.registry import BACKENDS, REFERENCE, with_plans
from perception.runtime.engines.selection import load_engines
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import BackendRecord
from perception.runtime.wiring import Wiring

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")

# Relative error against ONNX Runtime: rounding, and what bfloat16's 8 bits do to this tiny network.
# TensorFloat-32 has 10 bits: 1.6e-4 was measured on an H200 (and below 1e-4 without it).
LIMITS = {True: 1e-4, False: 0.2}
TF32_LIMITS = dict.fromkeys(("onnxruntime-cuda", "onnxruntime-tensorrt"), 1e-3)


def _parameters() -> list[object]:
    found: list[object] = []
    for name, backend in registry.records():
        if name in ("openvino-bf16", "openvino-f16"):  # one is native
            continue
        absent = pytest.mark.skipif(not backend.installed, reason=f"no {backend.module}")
        found.append(
            pytest.param(name, marks=(pytest.mark.gpu,) * (backend.kind == "gpu") + (absent,))
        )
    return found


@pytest.fixture(scope="module", params=_parameters())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def home(tiny_bundle: Path, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, with plans built in a copy of it for the backends that run these."""
    if backend not in with_plans():
        return tiny_bundle
    if not examine_driver().gpus:
        pytest.skip("no NVIDIA GPU")
    from export.engine_builder import BuildOptions, build_plans

    copy = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("plans") / "bundle"))
    try:
        build_plans(Bundle.open(copy), BuildOptions(backend))  # type: ignore[arg-type]
    except BackendMissingError as error:  # no TensorRT, or one that has no target for this GPU
        pytest.skip(str(error))
    return copy


@pytest.fixture(scope="module")
def engines(home: Path, backend: str) -> dict[str, Engine]:
    try:
        return load_engines(Bundle.open(home), backend, threads=1)
    except BackendMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, Engine]:
    return load_engines(bundle, REFERENCE, threads=1)


@pytest.fixture(scope="module")
def images(bundle: Bundle) -> dict[str, Tensor]:
    return probe_inputs(bundle.manifest.inputs)


@pytest.fixture(scope="module")
def wiring(bundle: Bundle) -> Wiring:
    return bundle.manifest.wiring


@pytest.fixture(scope="module")
def frames(simulated: Path) -> list[Frame]:
    recording = open_recording("folder", simulated)
    return [recording.frame(i) for i in range(4)]


def _tensors(
    engines: Mapping[str, Engine], images: Mapping[str, Tensor], wiring: Wiring
) -> dict[str, Tensor]:
    feeds: dict[str, Tensor] = {"presence": wiring.present(images)}
    for sensor, image in images.items():
        given = engines[sensor].run({wiring.tensor(sensor): image})
        feeds.update(wiring.features(sensor, given))
    return feeds


def test_it_says_what_it_is(engines: dict[str, Engine], backend: str) -> None:
    names = {e.backend for e in engines.values()}
    assert len(names) == 1
    assert names.pop().startswith(backend)


def test_tensors_have_the_names_and_shapes_of_the_graph(
    wiring: Wiring,
    engines: dict[str, Engine],
    reference: dict[str, Engine],
    images: dict[str, Tensor],
) -> None:
    for graph, engine in engines.items():
        assert {s.name: s.shape for s in engine.inputs} == {
            s.name: s.shape for s in reference[graph].inputs
        }
        assert [s.name for s in engine.outputs] == [s.name for s in reference[graph].outputs]
    for engine, feeds in (
        (engines["rgb"], {wiring.tensor("rgb"): images["rgb"]}),
        (engines["fuser"], _tensors(engines, images, wiring)),
    ):
        found = engine.run(feeds)
        assert [(n, v.dtype, v.shape) for n, v in found.items()] == [
            (s.name, np.dtype(np.float32), s.shape) for s in engine.outputs
        ]
        assert all(v.flags.c_contiguous for v in found.values())


def test_every_subset_equals_the_reference_with_nan_in_absent_inputs(
    wiring: Wiring,
    engines: dict[str, Engine],
    reference: dict[str, Engine],
    images: dict[str, Tensor],
    backend: str,
) -> None:
    tensors, wanted_tensors = _tensors(engines, images, wiring), _tensors(reference, images, wiring)
    for subset in subsets_of(KINDS):
        presence = wiring.present(subset)

        def gated(own: dict[str, Tensor], subset=subset, presence=presence):  # type: ignore[no-untyped-def]
            absent = {
                n: np.full_like(v, np.nan)
                for n, v in own.items()
                if re.split("[._]", n)[0] not in (*subset, "presence")
            }
            return {**own, **absent, "presence": presence}

        found = engines["fuser"].run(gated(tensors))
        wanted = reference["fuser"].run(gated(wanted_tensors))
        limit = TF32_LIMITS.get(backend, LIMITS[BACKENDS[backend].exact])
        assert relative_error(found, wanted) < limit, subset_name(subset)


@pytest.mark.gpu
def test_without_tf32_cuda_rounds_as_the_cpu_does(
    bundle: Bundle, reference: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    wiring = bundle.manifest.wiring
    try:
        exact = load_engines(bundle, "onnxruntime-cuda", threads=1, tf32=False)
    except BackendMissingError as error:
        pytest.skip(str(error))
    assert (
        relative_error(run_all(exact, images, wiring), run_all(reference, images, wiring))
        < LIMITS[True]
    )


@pytest.mark.gpu
def test_what_a_gpu_cannot_record_it_runs_without(
    bundle: Bundle,
    reference: dict[str, Engine],
    images: dict[str, Tensor],
    wiring: Wiring,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The first run of a session asks for memory, so that nothing of it can be recorded."""
    monkeypatch.setattr(cuda_engine, "RECORDED_AT", 0)
    monkeypatch.setenv(VARIABLE, "bind,graphs")
    try:
        engines = load_engines(bundle, "onnxruntime-cuda", threads=1)
    except BackendMissingError as error:
        pytest.skip(str(error))
    wanted = run_all(reference, images, wiring)
    for _ in range(4):
        assert relative_error(run_all(engines, images, wiring), wanted) < 1e-3
    assert capfd.readouterr().err == ""


def test_linked_engines_compute_what_separate_ones_do(
    wiring: Wiring, engines: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    wanted = engines["fuser"].run(_tensors(engines, images, wiring))
    for _ in range(
        5
    ):  # a GPU backend records a graph in its third run, and launches it from then on
        feeds: dict[str, object] = {"presence": wiring.present(images)}
        for sensor, image in images.items():
            given = engines[sensor].run_linked({wiring.tensor(sensor): image})
            feeds.update(wiring.features(sensor, given))
        # What the next frame brings must not reach the features of this one.
        for sensor, image in images.items():
            engines[sensor].run_linked({wiring.tensor(sensor): -image})
        found = engines["fuser"].run(feeds)  # type: ignore[arg-type]
        assert relative_error(found, wanted) < 1e-3


def test_ignored_inputs_change_nothing(
    wiring: Wiring, engines: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    feeds = _tensors(engines, images, wiring)
    feeds["presence"] = wiring.present(("rgb", "thermal", "lidar"))
    absent = [n for n in feeds if n.startswith(("depth.", "depth_"))]
    wanted = engines["fuser"].run(feeds)
    found = engines["fuser"].run(feeds, absent)
    assert relative_error(found, wanted) < 1e-5


def test_results_are_the_callers_to_keep(
    wiring: Wiring, engines: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    engine, image = engines["rgb"], images["rgb"]
    first = engine.run({wiring.tensor("rgb"): image})
    kept = {n: v.copy() for n, v in first.items()}
    engine.run({wiring.tensor("rgb"): -image})
    assert all(np.array_equal(first[n], kept[n]) for n in kept)
    for value in first.values():
        value[:] = 0
    again = engine.run({wiring.tensor("rgb"): image})
    assert all(np.array_equal(again[n], kept[n]) for n in kept)


def test_inputs_are_left_as_they_are_and_may_be_views(
    wiring: Wiring, engines: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    image = images["rgb"].copy()
    image.flags.writeable = False
    wanted = engines["rgb"].run({wiring.tensor("rgb"): image})
    view = np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    got = engines["rgb"].run({wiring.tensor("rgb"): view})
    assert all(np.array_equal(got[n], wanted[n]) for n in wanted)
    assert np.array_equal(image, images["rgb"])


def test_threads_get_their_own_results(
    wiring: Wiring, engines: dict[str, Engine], images: dict[str, Tensor]
) -> None:
    inputs = [images["rgb"] * factor for factor in (0.5, 1.0, 2.0)]
    wanted = [engines["rgb"].run({wiring.tensor("rgb"): x}) for x in inputs]
    failures: list[str] = []

    def work(index: int) -> None:
        for _ in range(10):
            found = engines["rgb"].run({wiring.tensor("rgb"): inputs[index]})
            if not all(np.array_equal(found[n], wanted[index][n]) for n in found):
                failures.append(f"thread {index}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "rgb: input is missing"),
        ({"rgb": np.zeros((1, 3, 96, 100), np.float32)}, "rgb: input is (1, 3, 96, 100), not"),
        ({"rgb": np.zeros((3, 96, 128), np.float32)}, "rgb: input is"),
        ({"rgb": np.zeros((1, 3, 96, 128))}, "rgb: input is float64, not float32"),
        ({"rgb": [[1.0]]}, "rgb: input is list, not float32"),
        (
            {"rgb": np.zeros((1, 3, 96, 128), np.float32), "sonar": np.zeros(1, np.float32)},
            "sonar: the graph has no such input",
        ),
    ],
)
def test_wrong_input_is_an_engine_error_in_one_line(
    wiring: Wiring, engines: dict[str, Engine], feeds: dict[str, Tensor], message: str
) -> None:
    own = wiring.tensor("rgb")  # "rgb" stands for it
    feeds, message = (
        {own if n == "rgb" else n: v for n, v in feeds.items()},
        message.replace("rgb:", f"{own}:"),
    )
    with pytest.raises(EngineError) as caught:
        engines["rgb"].run(feeds)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_graph_is_an_engine_error_in_one_line(
    backend: str, engines: dict[str, Engine], tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(EngineError) as caught:
        BACKENDS[backend].load(path, 1, 0)
    assert "broken.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_result_says_which_backend_ran(
    home: Path, frames: list[Frame], backend: str, engines: dict[str, Engine]
) -> None:
    result = Pipeline.load(home, backend, threads=1)(frames[0])
    assert result.backend == engines["fuser"].backend
    assert result.used == KINDS


class _Dying(Engine):
    """A real engine that stops working after some runs, as a GPU that falls off the bus."""

    def __init__(self, path: Path, lives: int) -> None:
        self._inner = BACKENDS[REFERENCE].load(path, 1, 0)
        self.backend = "dying"
        self.inputs, self.outputs = self._inner.inputs, self._inner.outputs
        self._lives = lives

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._lives -= 1
        if self._lives < 0:
            raise EngineError("device lost")
        return self._inner.infer(feeds)


def test_the_next_backend_takes_over_when_one_fails(
    wiring: Wiring, bundle: Bundle, images: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle.file("encoder_rgb.onnx")
    engine = FallbackEngine(_Dying(path, lives=1), [REFERENCE], path, 1)
    wanted = engine.run({wiring.tensor("rgb"): images["rgb"]})
    assert engine.backend == "dying"
    with caplog.at_level(logging.WARNING):
        got = engine.run({wiring.tensor("rgb"): images["rgb"]})
    assert engine.backend == REFERENCE
    assert all(np.array_equal(got[n], wanted[n]) for n in wanted)
    assert [r.getMessage() for r in caplog.records] == [
        f"encoder_rgb.onnx: device lost; going on with {REFERENCE}"
    ]


def test_wrong_input_does_not_use_up_a_backend(bundle: Bundle) -> None:
    path = bundle.file("encoder_rgb.onnx")
    engine = FallbackEngine(_Dying(path, lives=1), [REFERENCE], path, 1)
    with pytest.raises(EngineError, match="missing"):
        engine.run({})
    assert engine.backend == "dying"


def test_without_a_reserve_the_failure_comes_out(
    wiring: Wiring, bundle: Bundle, images: dict[str, Tensor]
) -> None:
    path = bundle.file("encoder_rgb.onnx")
    engine = FallbackEngine(_Dying(path, lives=0), [], path, 1)
    with pytest.raises(EngineError, match="device lost"):
        engine.run({wiring.tensor("rgb"): images["rgb"]})


def test_a_pipeline_goes_on_and_says_so_when_an_engine_fails(
    tiny_bundle: Path, frames: list[Frame]
) -> None:
    pipeline = Pipeline.load(tiny_bundle, REFERENCE, threads=1)
    path = pipeline.bundle.file("encoder_depth.onnx")
    pipeline.engines["depth"] = FallbackEngine(_Dying(path, lives=1), [REFERENCE], path, 1)
    assert pipeline(frames[0]).backend == f"{REFERENCE}+dying"
    result = pipeline(frames[1])
    assert result.used == KINDS
    assert result.backend == REFERENCE


def test_a_device_passes_over_backends_that_cannot_load(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path, threads: int | None, device: int) -> Engine:
        raise EngineError("driver too old", where=path.name)

    register(monkeypatch, "broken", Backend(broken, "numpy", "nothing", kind="gpu"))
    monkeypatch.setattr(registry, "ranked", lambda kind: ("broken",))
    monkeypatch.setattr(selection, "ranked", lambda kind: (REFERENCE,))
    for device in ("cuda", "auto"):
        caplog.clear()
        assert load_engines(bundle, device, 1)["rgb"].backend == REFERENCE
        assert [r.getMessage() for r in caplog.records] == [
            "encoder_rgb.onnx: driver too old; trying the next backend"
        ]
    with pytest.raises(EngineError, match="driver too old"):
        load_engines(bundle, "broken", 1)


def test_unknown_devices_are_named(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="'npu'.*openvino"):
        load_engines(bundle, "npu")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "_known", {})
    return tmp_path / "cache"


def _with_record(tiny_bundle: Path, folder: Path, **changes: object) -> Bundle:
    """A copy of the bundle that records its native OpenVINO precision's true probe error."""
    copy = Path(shutil.copytree(tiny_bundle, folder / "copy"))
    opened = Bundle.open(copy)
    images = probe_inputs(opened.manifest.inputs)
    wiring = opened.manifest.wiring
    wanted = run_all(load_engines(opened, REFERENCE, 1), images, wiring)
    native = load_engines(opened, "openvino", 1)
    error = relative_error(run_all(native, images, wiring), wanted)
    if native["fuser"].backend == "openvino-f32":
        pytest.skip("this CPU has no precision below float32")
    values = {"passed": True, "lost": 0.1, "tolerance": 1.0, "probe_error": error, "frames": 10}
    measured_before = BackendRecord.model_validate({**values, **changes})
    add_records(copy, backends={native["fuser"].backend: measured_before})
    return Bundle.open(copy)


def _ranking(bundle: Bundle) -> list[str]:
    return selection.ranking(bundle, selection.sources(bundle), 1)


@needs_openvino
def test_auto_takes_lower_precision_only_with_a_record_that_passed(
    tiny_bundle: Path, tmp_path: Path, forget: Path
) -> None:
    assert set(_ranking(Bundle.open(tiny_bundle))) == {"openvino-f32", REFERENCE}
    for index, (changes, allowed) in enumerate(
        [({}, True), ({"passed": False}, False), ({"probe_error": 1e-6}, False)]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        found = _ranking(_with_record(tiny_bundle, folder, **changes))
        assert ("openvino" in found) is allowed, changes


@needs_openvino
def test_auto_takes_the_fastest_and_keeps_the_others_in_reserve(
    bundle: Bundle, forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"onnxruntime-cpu": 5.0, "openvino-f32": 3.0}
    monkeypatch.setattr(selection, "time_all", lambda engines, *_: times[engines["fuser"].backend])
    assert load_engines(bundle, "auto", 1)["rgb"].backend == "openvino-f32"
    measured._known.clear()
    (forget / "backends.json").unlink()
    times["openvino-f32"] = 9.0
    assert load_engines(bundle, "auto", 1)["rgb"].backend == REFERENCE


@needs_openvino
def test_what_was_measured_is_remembered_and_damage_to_it_forgiven(
    bundle: Bundle, forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _ranking(bundle)
    monkeypatch.setattr(measured, "_known", {})

    def never(*_: object) -> float:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(selection, "time_all", never)
        assert _ranking(bundle) == wanted
    for damage in ("{", "[]", '{"a": 3}'):
        (forget / "backends.json").write_text(damage)
        monkeypatch.setattr(measured, "_known", {})
        assert set(_ranking(bundle)) == set(wanted)


@needs_openvino
def test_a_backend_that_computes_something_else_is_left_out(
    bundle: Bundle, forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = BACKENDS["openvino-f32"]

    class Off(Engine):
        def __init__(self, path: Path) -> None:
            self._inner = genuine.load(path, 1, 0)
            self.backend = self._inner.backend
            self.inputs, self.outputs = self._inner.inputs, self._inner.outputs

        def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {n: v + np.float32(0.5) for n, v in self._inner.infer(feeds).items()}

    broken = Backend(lambda path, *_: Off(path), "openvino", "", rank=20)
    register(monkeypatch, "openvino-f32", broken)
    assert _ranking(bundle) == [REFERENCE]

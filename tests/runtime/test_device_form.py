"""Labels made where the fuser ran, copied alone, are those that the CPU makes of logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from perception.errors import ConfigError, EngineError
from perception.frame import Sample
from perception.runtime.bundle import Bundle
from perception.runtime.engines import onnxruntime as backend
from perception.runtime.engines.base import DeviceTensor, Engine, Feed, Tensor, on_host
from perception.runtime.engines.cuda_features import VARIABLE, CudaFeatures, features
from perception.runtime.engines.registry import BACKENDS, REFERENCE
from perception.runtime.pipeline import Pipeline


class _Far(DeviceTensor):
    """An array of the CPU's that is counted when it is copied."""

    copied: ClassVar[list[str]] = []

    def __init__(self, name: str, value: Tensor) -> None:
        self.name, self.value, self.shape = name, value, value.shape

    def numpy(self) -> Tensor:
        self.copied.append(self.name)
        return self.value.copy()


class _Device(Engine):
    """A real engine on a device of the test's: outputs stay there, and other graphs run there."""

    takes_device = True

    def __init__(self, inner: Engine, spoil: bool = False) -> None:
        self.inner, self.backend = inner, "device"
        self.inputs, self.outputs, self.spoil = inner.inputs, inner.outputs, spoil
        self.fail: EngineError | None = None

    @property
    def links(self) -> bool:
        return True

    def companion(self, content: bytes, name: str) -> Engine:
        if self.fail is not None:
            raise self.fail
        session = backend.open_session(content, name, "cpu", 1, {})
        other = object.__new__(backend.OnnxRuntimeEngine)
        other._session, other.backend = session, "companion"
        other.inputs, other.outputs = backend.tensors_of(session)
        other._names = [o.name for o in other.outputs]
        return _Device(other)

    def _near(self, feeds: Mapping[str, Feed]) -> dict[str, Tensor]:
        found = self.inner.infer(
            {n: v.value if isinstance(v, _Far) else v for n, v in feeds.items()}  # type: ignore[misc]
        )
        if self.spoil:
            found["seg_logits"] = found["seg_logits"].copy()
            found["seg_logits"][0, 0, 0, 0] = np.nan
        return found

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._near(feeds)

    def infer_some(self, feeds: Mapping[str, Feed], ignored: Collection[str]) -> dict[str, Tensor]:
        return self._near(feeds)

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str]
    ) -> Mapping[str, Feed]:
        return {n: _Far(n, v) for n, v in self._near(feeds).items()}


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv(VARIABLE, "labels")
    _Far.copied.clear()

    def load(folder: Path, spoil: bool = False, fail: EngineError | None = None) -> Pipeline:
        pipeline = Pipeline.load(folder, REFERENCE, threads=1)
        fuser = _Device(pipeline.engines["fuser"], spoil)
        fuser.fail = fail
        encoders = {n: e for n, e in pipeline.engines.items() if n != "fuser"}
        if features().bytes:
            encoders = {n: _Device(e) for n, e in encoders.items()}
        pipeline._networks.use(encoders, fuser)
        return pipeline

    return load


def _scene(height: int, width: int, seed: int = 0) -> dict[str, Sample]:
    """Smooth surfaces and edges, as pictures have them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 24 + 1, width // 24 + 1, 3))
    picture = np.kron(coarse, np.ones((24, 24, 1)))[:height, :width].astype(np.uint8)
    depth = np.linspace(1, 6, height * width, dtype=np.float32).reshape(height, width)
    return {"rgb": Sample("rgb", picture, 1), "depth": Sample("depth", depth, 1)}


@pytest.mark.parametrize("size", [(480, 640), (360, 640), (500, 400), (96, 128)])
@pytest.mark.parametrize("names", [("rgb", "depth"), ("depth",)])
def test_labels_and_confidence_are_those_of_the_cpu(
    on_device,
    size: tuple[int, int],
    names: tuple[str, ...],  # type: ignore[no-untyped-def]
) -> None:
    folder = Path(__file__).parents[2] / "bundles" / "indoor-rgbd"
    frame = {n: s for n, s in _scene(*size).items() if n in names}
    wanted = Pipeline.load(folder, REFERENCE, threads=1)(frame)
    found = on_device(folder)(frame)
    assert found.labels.shape == wanted.labels.shape == size  # type: ignore[union-attr]
    assert found.labels.dtype == np.uint8 and found.confidence.dtype == np.float32  # type: ignore[union-attr]
    assert (found.labels == wanted.labels).mean() >= 0.999
    assert np.abs(found.confidence - wanted.confidence).max() <= 1 / 255  # type: ignore[operator]
    assert not _Far.copied  # but what the graph made of them


@pytest.mark.parametrize("size", [(480, 640), (360, 500)])
def test_a_camera_s_bytes_are_normalized_on_the_device(
    on_device,  # type: ignore[no-untyped-def]
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(__file__).parents[2] / "bundles" / "indoor-rgbd"
    wanted = Pipeline.load(folder, REFERENCE, threads=1)(_scene(*size))
    monkeypatch.setenv(VARIABLE, "bytes")
    pipeline = on_device(folder)
    pipeline.warm_up()
    taken: list[np.dtype[np.generic]] = []
    _, engine = pipeline._networks._inputs._made["rgb"]
    linked = engine.run_linked

    def note(feeds: Mapping[str, Tensor]) -> Mapping[str, Feed]:
        taken.extend(value.dtype for value in feeds.values())
        found: Mapping[str, Feed] = linked(feeds)
        return found

    monkeypatch.setattr(engine, "run_linked", note)
    found = pipeline(_scene(*size))
    assert taken == [np.uint8] and set(pipeline._networks._inputs._made) == {"rgb"}
    assert np.array_equal(found.labels, wanted.labels)  # type: ignore[arg-type]

    def lost(feeds: Mapping[str, Tensor]) -> Mapping[str, Feed]:
        raise EngineError("device lost")

    monkeypatch.setattr(engine, "run_linked", lost)
    pipeline.reset()
    assert np.array_equal(pipeline(_scene(*size)).labels, wanted.labels)  # type: ignore[arg-type]


def test_only_what_somebody_wants_is_copied(on_device, tiny_bundle: Path) -> None:  # type: ignore[no-untyped-def]
    pipeline = on_device(tiny_bundle)
    frame = _scene(96, 128)
    pipeline.wanted = frozenset({"labels"})
    assert pipeline(frame).labels is not None
    assert not any(name.startswith("det") for name in _Far.copied)
    pipeline.wanted = frozenset({"boxes"})
    _Far.copied.clear()
    pipeline.reset()
    assert pipeline(frame).boxes is not None
    assert _Far.copied and all(name.startswith("det") for name in _Far.copied)


def test_a_logit_that_is_not_finite_is_still_a_failure(on_device, tiny_bundle: Path) -> None:  # type: ignore[no-untyped-def]
    pipeline = on_device(tiny_bundle, spoil=True)
    with pytest.raises(EngineError, match="NaN or infinity"):
        pipeline(_scene(96, 128))
    assert pipeline.counters["engine_failures"] == 1


def test_where_the_graph_cannot_be_loaded_logits_are_copied(on_device, tiny_bundle: Path) -> None:  # type: ignore[no-untyped-def]
    wanted = Pipeline.load(tiny_bundle, REFERENCE, threads=1)(_scene(96, 128))
    found = on_device(tiny_bundle, fail=EngineError("no room"))(_scene(96, 128))
    assert np.array_equal(found.labels, wanted.labels)  # type: ignore[arg-type]
    assert "seg_logits" in _Far.copied


def test_without_the_setting_nothing_is_made(tiny_bundle: Path, on_device, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv(VARIABLE, "")
    pipeline = on_device(tiny_bundle)
    assert not pipeline._networks._forms.usable
    assert pipeline(_scene(96, 128)).labels is not None


def test_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert features() == CudaFeatures(bind=True, graphs=True, bytes=True, labels=True)
    monkeypatch.setenv(VARIABLE, " bind, graphs,")
    assert features() == CudaFeatures(bind=True, graphs=True, bytes=False, labels=False)
    monkeypatch.setenv(VARIABLE, "warp")
    with pytest.raises(ConfigError, match=r"ANYSENSE_CUDA: 'warp'.*bind, graphs, bytes, labels"):
        features()


def test_an_engine_of_the_cpu_has_no_companion(tiny_bundle: Path) -> None:
    engine = BACKENDS[REFERENCE].load(Bundle.open(tiny_bundle).source("fuser.onnx"), 1, 0)
    assert not engine.links and engine.companion(b"", "x") is None
    assert on_host({"x": _Far("x", np.zeros(1, np.float32))})["x"].shape == (1,)

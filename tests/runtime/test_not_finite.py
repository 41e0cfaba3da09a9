"""NaN and infinity in a network's outputs: an engine failure, counted, and never in a result."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from backends import register
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from perception.errors import EngineError
from perception.frame import Sample
from perception.runtime.engines import registry
from perception.runtime.engines.backend import Backend
from perception.runtime.engines.base import (
    DeviceTensor,
    Engine,
    Feed,
    NonFiniteError,
    Tensor,
    not_finite,
    on_host,
)
from perception.runtime.engines.fallback import FallbackEngine
from perception.runtime.engines.registry import BACKENDS, REFERENCE
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result


@given(
    size=st.integers(1, 3000),
    at=st.integers(0, 2999),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0]),
    seed=st.integers(0, 99),
)
def test_one_bad_value_anywhere_is_found_and_large_ones_are_none(
    size: int, at: int, value: float, seed: int
) -> None:
    array = np.random.default_rng(seed).normal(size=size).astype(np.float32) * np.float32(2e38)
    array[at % size] = value
    expected = [] if np.isfinite(array).all() else ["x"]
    shaped = np.stack([array, array])
    assert not_finite({"x": shaped, "good": np.zeros((1, 2, 3), np.float32)}) == expected
    assert not_finite({"x": shaped[:, ::-1]}) == expected
    assert not_finite({"x": np.array([np.inf, -np.inf], np.float32)}) == ["x"]


def _poisoned(model: onnx.ModelProto, tensor: str, value: float) -> onnx.ModelProto:
    """The graph, whose weight `tensor` holds one bad number."""
    for weights in model.graph.initializer:
        if weights.name == tensor:
            array = numpy_helper.to_array(weights).copy()
            array.reshape(-1)[0] = value
            weights.CopyFrom(numpy_helper.from_array(array, tensor))
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["w_seg_logits", "w_det_cls_8", "w_det_box_8"])
def test_no_result_is_made_of_bad_outputs(
    small: Any, rgb: Sample, tensor: str, value: float
) -> None:
    bad = _poisoned(small.fuser(("rgb",), 3, 2), tensor, value)
    folder = small(("rgb",), 3, 2, graphs={"fuser.onnx": bad})
    pipeline = Pipeline.load(folder, "cpu", threads=1)
    for count in (1, 2):
        with pytest.raises(NonFiniteError, match=tensor.removeprefix("w_")) as caught:
            pipeline({"rgb": rgb})
        assert "\n" not in str(caught.value)
        assert pipeline.counters["engine_failures"] == count
    encoded = {"rgb": pipeline.encode(rgb)}
    about = Result(present=("rgb",), stamp_ns=1, samples={"rgb": rgb}, source_ns={"rgb": 1})
    with pytest.raises(EngineError, match="NaN or infinity"):
        pipeline.fuse(encoded, about)
    assert not any(name.startswith("frames_") for name in pipeline.counters)


def test_bad_features_are_their_encoders_failure(small: Any, rgb: Sample) -> None:
    bad = _poisoned(small.encoder("rgb"), "w", np.nan)
    pipeline = Pipeline.load(small(graphs={"encoder_rgb.onnx": bad}), "cpu", threads=1)
    with pytest.raises(NonFiniteError, match="rgb_f: onnxruntime-cpu gave NaN or infinity"):
        pipeline({"rgb": rgb})
    assert pipeline.counters["engine_failures"] == 1
    assert pipeline.engines["fuser"].runs == 0


def test_a_held_result_outlives_a_bad_one(small: Any, rgb: Sample) -> None:
    """What was good goes on being held; what is bad is not what is held."""
    pipeline = Pipeline.load(small(), "cpu", threads=1)
    good = pipeline({"rgb": rgb})
    pipeline.engines["fuser"] = Broken(pipeline.engines["fuser"])
    later = Sample("rgb", rgb.data[::-1].copy(), stamp_ns=rgb.stamp_ns + 10)
    with pytest.raises(EngineError):
        pipeline({"rgb": later})
    held = pipeline.fuse({}, Result(stamp_ns=rgb.stamp_ns + 20))
    assert held.state == "hold" and held.stamp_ns == good.stamp_ns
    assert np.array_equal(held.labels, good.labels)  # type: ignore[arg-type]


class Broken(Engine):
    """A real engine whose outputs go bad, as those of a GPU that overheats."""

    def __init__(self, inner: Engine, after: int = 0) -> None:
        self.inner, self.left = inner, after
        self.backend = "broken"
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.left -= 1
        found = self.inner.infer(feeds)
        return {n: v if self.left >= 0 else v * np.float32(np.nan) for n, v in found.items()}


def test_the_next_backend_takes_over(
    small: Any, rgb: Sample, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small()
    wanted = Pipeline.load(folder, REFERENCE, threads=1)({"rgb": rgb})
    genuine = BACKENDS[REFERENCE]
    broken = Backend(
        lambda g, t, d: Broken(genuine.load(g, t, d), after=1), "numpy", "", kind="gpu"
    )
    register(monkeypatch, "broken", broken)
    monkeypatch.setattr(registry, "ranked", lambda kind: ("broken",))
    pipeline = Pipeline.load(folder, "cuda", threads=1)
    with caplog.at_level(logging.WARNING):
        first, second = (pipeline({"rgb": rgb}) for _ in range(2))
    assert (first.backend, second.backend) == ("broken", REFERENCE)
    assert np.array_equal(second.confidence, wanted.confidence)  # type: ignore[arg-type]
    assert pipeline.counters["engine_failures"] == 0  # none that anybody met
    lines = [r.getMessage() for r in caplog.records]
    assert lines == [
        "encoder_rgb.onnx: rgb_f: broken gave NaN or infinity; going on with onnxruntime-cpu",
        "fuser.onnx: seg_logits: broken gave NaN or infinity; going on with onnxruntime-cpu",
    ]


class _Far(DeviceTensor):
    def __init__(self, value: Tensor) -> None:
        self.value, self.shape = value, value.shape

    def numpy(self) -> Tensor:
        return self.value


class BrokenFar(Broken):
    """The same, with outputs that stay where nobody looks at them."""

    takes_device = True

    def infer_linked(
        self, feeds: Mapping[str, Feed], ignored: Collection[str]
    ) -> Mapping[str, Feed]:
        return {n: _Far(v) for n, v in self.infer(on_host(feeds)).items()}


def test_features_on_a_device_are_blamed_on_the_encoder_that_made_them(
    small: Any, rgb: Sample
) -> None:
    depth = Sample("depth", np.full(rgb.data.shape[:2], 3, np.float32), stamp_ns=1)
    folder = small(("rgb", "depth"))
    pipeline = Pipeline.load(folder, REFERENCE, threads=1)
    wanted = pipeline({"rgb": rgb, "depth": depth})
    sources = {n: pipeline.bundle.source(f"encoder_{n}.onnx") for n in ("rgb", "depth")}
    sources["fuser"] = pipeline.bundle.source("fuser.onnx")
    for name, engine in list(pipeline.engines.items()):
        inner = BrokenFar(engine) if name == "rgb" else BrokenFar(engine, after=99)
        pipeline.engines[name] = FallbackEngine(inner, [REFERENCE], sources[name], 1)
    pipeline.reset()
    with pytest.raises(NonFiniteError) as caught:
        pipeline({"rgb": rgb, "depth": depth})
    assert caught.value.feeds == ("rgb_f",)
    assert pipeline.counters["engine_failures"] == 1
    backends = {n: e.backend for n, e in pipeline.engines.items()}
    assert backends == {"rgb": REFERENCE, "depth": "broken", "fuser": "broken"}
    pipeline.reset()
    found = pipeline({"rgb": rgb, "depth": depth})
    assert found.state == "full"
    assert np.array_equal(found.labels, wanted.labels)  # type: ignore[arg-type]
    absent = pipeline({"depth": depth})
    assert absent.state == "degraded"


def test_absent_inputs_may_hold_nan(small: Any, rgb: Sample, tmp_path: Path) -> None:
    folder = small(("rgb", "depth"))
    fuser = BACKENDS[REFERENCE].load(folder / "fuser.onnx", 1, 0)
    feeds = {s.name: np.ones(s.shape, np.float32) for s in fuser.inputs}  # type: ignore[arg-type]
    feeds["presence"] = np.array([1, 0, 0, 0], np.float32)
    wanted = fuser.run(feeds)["seg_logits"]
    feeds["depth_f"] = np.full_like(feeds["depth_f"], np.nan)
    for engine in (fuser, FallbackEngine(fuser, [REFERENCE], folder / "fuser.onnx", 1)):
        assert np.array_equal(engine.run(feeds, ["depth_f"])["seg_logits"], wanted)


def test_a_picture_of_bad_values_is_none_either(small: Any, rgb: Sample) -> None:
    graph = small.fuser()
    graph.graph.node.append(helper.make_node("Conv", ["fused", "w_image"], ["image_fused"]))
    weights = np.ones((3, 3, 1, 1), np.float32)
    weights[0, 0] = np.inf
    graph.graph.initializer.append(numpy_helper.from_array(weights, "w_image"))
    graph.graph.output.append(
        helper.make_tensor_value_info("image_fused", onnx.TensorProto.FLOAT, [1, 3, 4, 8])
    )

    def edit(content: dict[str, Any]) -> None:
        content["images"] = ["fused"]

    pipeline = Pipeline.load(small(graphs={"fuser.onnx": graph}, edit=edit), "cpu", threads=1)
    with pytest.raises(EngineError, match="image_fused"):
        pipeline({"rgb": rgb})

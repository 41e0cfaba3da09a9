"""A graph that runs beside itself, and tensors of the type that the graph says."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_bundles import GRID, encoder

from perception.errors import EngineError
from perception.runtime.engines.base import Engine, Tensor, TensorSpec
from perception.runtime.engines.fallback import FallbackEngine
from perception.runtime.engines.registry import BACKENDS, REFERENCE

BACKEND = [
    REFERENCE,
    pytest.param(
        "openvino-f32",
        marks=pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO"),
    ),
]


def _image(seed: int) -> Tensor:
    return np.random.default_rng(seed).normal(size=(1, 3, *GRID)).astype(np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    onnx.save(encoder("rgb"), path)
    return path


@pytest.fixture(params=BACKEND)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("fallback", [False, True])
def test_contexts_give_the_same_and_run_at_once(graph: Path, backend: str, fallback: bool) -> None:
    engine = BACKENDS[backend].load(graph, 1, 0)
    if fallback:
        engine = FallbackEngine(engine, [REFERENCE], graph, 1)
    contexts = [engine, engine.context(), engine.context().context()]
    images = [_image(seed) for seed in range(len(contexts))]
    wanted = [engine.run({"rgb": image}) for image in images]
    for context in contexts:
        assert (context.inputs, context.outputs) == (engine.inputs, engine.outputs)
        assert context.backend == engine.backend
        got = context.run({"rgb": images[0]})
        assert all(np.array_equal(got[n], wanted[0][n]) for n in wanted[0])
    start = threading.Barrier(len(contexts))

    def work(index: int) -> bool:
        start.wait(30)
        found = [contexts[index].run({"rgb": images[index]}) for _ in range(50)]
        return all(np.array_equal(f[n], wanted[index][n]) for f in found for n in f)

    with ThreadPoolExecutor(len(contexts)) as threads:
        assert all(threads.map(work, range(len(contexts))))


class Waiting(Engine):
    """A real engine whose first context waits, each with a request of its own."""

    def __init__(self, inner: Engine, go: threading.Event | None) -> None:
        self.inner, self.backend, self.go = inner, inner.backend, go
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def context(self) -> Engine:
        return Waiting(self.inner.context(), None)

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.go is not None:
            assert self.go.wait(30)
        return self.inner.infer(feeds)


def test_one_that_hangs_does_not_keep_the_other(graph: Path, backend: str) -> None:
    go = threading.Event()
    first = FallbackEngine(Waiting(BACKENDS[backend].load(graph, 1, 0), go), [], graph, 1)
    second = first.context()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(first.run, {"rgb": _image(0)})
        found = second.run({"rgb": _image(0)})
        assert not waiting.done()
        go.set()
        late = waiting.result(30)
    assert all(np.array_equal(found[n], late[n]) for n in late)


class Dead(Engine):
    """An engine whose device is gone, in every context."""

    def __init__(self, inner: Engine) -> None:
        self.backend, self.inputs, self.outputs = "dead", inner.inputs, inner.outputs

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise EngineError("device lost")


def test_each_context_goes_over_to_the_reserve(graph: Path) -> None:
    engine = BACKENDS[REFERENCE].load(graph, 1, 0)
    wanted = engine.run({"rgb": _image(1)})
    first = FallbackEngine(Dead(engine), [REFERENCE], graph, 1)
    second = first.context()
    for context in (first, second):
        got = context.run({"rgb": _image(1)})
        assert context.backend == REFERENCE
        assert all(np.array_equal(got[n], wanted[n]) for n in wanted)


_TYPES = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


@pytest.mark.parametrize("dtype", list(_TYPES))
def test_inputs_are_of_the_type_that_the_graph_says(
    tmp_path: Path, backend: str, dtype: str
) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "cast",
        [value("x", _TYPES[dtype], [2, 3])],
        [value("y", TensorProto.FLOAT, [2, 3])],
    )
    path = tmp_path / "cast.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    engine = BACKENDS[backend].load(path, 1, 0)
    assert engine.inputs == (TensorSpec("x", (2, 3), dtype),)
    assert engine.outputs == (TensorSpec("y", (2, 3), "float32"),)
    array: Any = np.arange(6).reshape(2, 3)
    found = engine.run({"x": array.astype(dtype)})["y"]
    assert found.dtype == np.float32 and np.array_equal(found, array)
    for wrong in ("float32", "int8", "bool", "float64"):
        with pytest.raises(EngineError, match=f"^x: input is {wrong}, not {dtype}$"):
            engine.run({"x": array.astype(wrong)})

"""Every backend on the CPU knows a graph's tensors by the names that the graph declares."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perception.errors import EngineError
from perception.runtime.engines.base import Engine
from perception.runtime.engines.registry import BACKENDS, ranked

SHAPE = [1, 2]
WEIGHT = np.array([[5.0, -7.0]], np.float32)

# Operator, inputs, output of each node; names of the graph's inputs and outputs.
Nodes = list[tuple[str, list[str], str]]
CASES: dict[str, tuple[Nodes, list[str], list[str]]] = {
    "identity": ([("Identity", ["a"], "y")], ["a"], ["y"]),
    "nothing between": ([("Relu", ["a"], "y")], ["a"], ["a", "y"]),
    "does nothing": ([("Dropout", ["a"], "y")], ["a"], ["y"]),
    "each does nothing": (
        [("Dropout", ["a"], "y"), ("Dropout", ["b"], "z")],
        ["b", "a"],
        ["y", "z"],
    ),
    "three names": (
        [("Relu", ["a"], "r"), ("Identity", ["r"], "z"), ("Identity", ["r"], "b")],
        ["a"],
        ["z", "r", "b"],
    ),
    "chain": (
        [("Identity", ["a"], "p"), ("Identity", ["p"], "q"), ("Neg", ["q"], "y")],
        ["a"],
        ["q", "y", "p"],
    ),
    "crossed": ([("Identity", ["a"], "y"), ("Identity", ["b"], "x")], ["b", "a"], ["y", "x"]),
    "unused": ([("Relu", ["b"], "y")], ["a", "b", "c"], ["y"]),
    "a weight": ([("Relu", ["a"], "y"), ("Identity", ["w"], "k")], ["a"], ["k", "y"]),
    "the same twice": ([("Relu", ["a"], "y"), ("Relu", ["a"], "b")], ["a"], ["y", "b"]),
}


@pytest.fixture(params=ranked("cpu"))
def backend(request: pytest.FixtureRequest) -> str:
    if "openvino" in request.param and find_spec("openvino") is None:
        pytest.skip("no OpenVINO")
    return str(request.param)


def _file(folder: Path, nodes: Nodes, inputs: list[str], outputs: list[str]) -> Path:
    graph = helper.make_graph(
        [helper.make_node(kind, used, [gives]) for kind, used, gives in nodes],
        "names",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in outputs],
        [numpy_helper.from_array(WEIGHT, "w")] if any("w" in used for _, used, _ in nodes) else [],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "graph.onnx")
    return folder / "graph.onnx"


def _expected(
    nodes: Nodes, outputs: list[str], feeds: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    does = {
        "Identity": lambda v: v,
        "Dropout": lambda v: v,
        "Neg": np.negative,
        "Relu": lambda v: np.maximum(v, 0),
    }
    known = {**feeds, "w": WEIGHT}
    for kind, used, gives in nodes:
        known[gives] = does[kind](known[used[0]])
    return {name: known[name] for name in outputs}


def _hold_to(engine: Engine, nodes: Nodes, inputs: list[str], outputs: list[str]) -> None:
    assert [(s.name, list(s.shape)) for s in engine.inputs] == [(n, SHAPE) for n in inputs]
    assert [(s.name, list(s.shape)) for s in engine.outputs] == [(n, SHAPE) for n in outputs]
    feeds = {n: np.array([[i - 1.5, 2.0 + i]], np.float32) for i, n in enumerate(inputs)}
    wanted = {n: v.copy() for n, v in _expected(nodes, outputs, feeds).items()}
    found = engine.run(feeds)
    assert list(found) == outputs
    for value in feeds.values():
        value[:] = 100  # what came out is the caller's to keep, whatever becomes of what went in
    for name in outputs:
        assert np.array_equal(found[name], wanted[name]), name
    with pytest.raises(EngineError, match="no such input"):
        engine.run({**feeds, "more": np.zeros(SHAPE, np.float32)})


@pytest.mark.parametrize("case", CASES)
def test_names_are_those_that_the_graph_declares(backend: str, case: str, tmp_path: Path) -> None:
    nodes, inputs, outputs = CASES[case]
    engine = BACKENDS[backend].load(_file(tmp_path, nodes, inputs, outputs), 1, 0)
    _hold_to(engine, nodes, inputs, outputs)


@st.composite
def _graphs(draw: st.DrawFn) -> tuple[Nodes, list[str], list[str]]:
    inputs = draw(st.permutations(["a", "b", "c"]))[: draw(st.integers(1, 3))]
    known, nodes = list(inputs), []
    for index in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["Identity", "Identity", "Relu", "Neg"]))
        nodes.append((kind, [draw(st.sampled_from(known))], f"t{index}"))
        known.append(f"t{index}")
    produced = [gives for _, _, gives in nodes]
    return nodes, inputs, draw(st.lists(st.sampled_from(produced), min_size=1, unique=True))


@given(graph=_graphs())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_chains_of_names(
    backend: str, graph: tuple[Nodes, list[str], list[str]], tmp_path: Path
) -> None:
    engine = BACKENDS[backend].load(_file(tmp_path, *graph), 1, 0)
    _hold_to(engine, *graph)

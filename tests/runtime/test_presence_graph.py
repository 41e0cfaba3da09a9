"""A fuser for one subset gives what the general one gives, without what absent inputs add to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perception.errors import EngineError
from perception.frame import subset_name, subsets_of
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.presence_graph import for_presence

NAMES = ("a", "b", "c")
SHAPE = (1, 2, 3, 4)


def _run(content: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    own = {i.name: feeds[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, own), strict=True))


def _feeds(content: bytes, presence: np.ndarray, absent: tuple[str, ...], seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    found = {}
    for value in onnx.load_from_string(content).graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        found[value.name] = rng.normal(size=shape).astype(np.float32)
        if value.name.startswith(absent):
            found[value.name].fill(np.nan)
    return {**found, "presence": presence}


def _same(general: bytes, own: bytes, feeds: dict[str, np.ndarray]) -> None:
    onnx.checker.check_model(onnx.load_from_string(own), full_check=True)
    wanted, found = _run(general, feeds), _run(own, feeds)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.isfinite(value).all() and np.array_equal(found[name], value), name


def _check_bundle(path: Path) -> None:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    content = bundle.source(manifest.graphs.fuser.file).read_bytes()
    sizes = {}
    for subset in subsets_of(manifest.inputs.names):
        presence = manifest.wiring.present(subset)
        own = for_presence(content, {"presence": presence}, where="fuser")
        assert own is not None
        absent = tuple(n for n in manifest.inputs.names if n not in subset)
        graph = onnx.load_from_string(own).graph
        taken = {value.name for value in graph.input}
        assert not any(name.startswith(absent or ("?",)) for name in taken)
        assert "presence" not in taken
        read = {name for node in graph.node if node.op_type == "Where" for name in node.input}
        assert not read & taken  # boxes have some of their own
        _same(content, own, _feeds(content, presence, absent or ("?",)))
        sizes[subset_name(subset)] = len(graph.node)
    assert sizes[subset_name(manifest.inputs.names)] == max(sizes.values())


def test_each_subset_of_an_exported_fuser(tiny_bundle: Path) -> None:
    _check_bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["sim-stereo", "indoor-rgbd"])
def test_each_subset_of_a_bundle_that_comes_along(name: str) -> None:
    _check_bundle(find_bundle(name))


def _fusion(way: str, order: int, low: float, wide: bool, typed: bool) -> bytes:
    """A made-up fusion of `NAMES`: softmax or mean, its sums taken from either side."""
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()

    def add(operator: str, *given: str, to: str = "", **attributes: object) -> str:
        name = to or f"t{len(nodes)}"
        nodes.append(helper.make_node(operator, list(given), [name], name, **attributes))
        made.add(name)
        return name

    def joined(operator: str, terms: list[str]) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = add(operator, *((total, term) if order % 2 else (term, total)))
        return total

    there, features, scores = [], [], []
    for number, name in enumerate(NAMES):
        flag = add("Greater", add("Gather", "presence", f"i{number}", axis=0), "half")
        there.append(add("Reshape", flag, "ones"))
        features.append(add("Where", there[-1], f"{name}_f", "zero"))
        scores.append(add("Where", there[-1], f"{name}_s", "low"))
    if way == "softmax":
        best = joined("Max", scores)
        weights = [add("Exp", add("Sub", score, best)) for score in scores]
        terms = [
            add("Mul", *((w, f) if order & 2 else (f, w)))
            for w, f in zip(weights, features, strict=True)
        ]
        fused = add("Div", joined("Add", terms), joined("Add", weights))
    else:
        counts = [add("Where", flag, "one", "zero") for flag in there]
        fused = add("Div", joined("Add", features), joined("Add", counts))
    add("Conv", add("Relu", add("Add", fused, "one")), "w", to="out")
    if order & 4:  # an output that is a feature itself, and one that is fused
        add("Identity", fused, to="fused")
    shape = SHAPE if wide else (1, 1, *SHAPE[2:])
    constants = {
        **{f"i{n}": np.array(n, np.int64) for n in range(len(NAMES))},
        "half": np.array(0.5, np.float32),
        "ones": np.ones(4, np.int64),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "low": np.array(low, np.float32),
        "w": np.random.default_rng(1).normal(size=(2, 2, 1, 1)).astype(np.float32),
    }
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "fusion",
        [
            tensor("presence", TensorProto.FLOAT, [len(NAMES)]),
            *(tensor(f"{n}_f", TensorProto.FLOAT, SHAPE) for n in NAMES),
            *(tensor(f"{n}_s", TensorProto.FLOAT, shape) for n in NAMES),
        ],
        [tensor("out", TensorProto.FLOAT, SHAPE)]
        + [tensor("fused", TensorProto.FLOAT, SHAPE)] * bool(order & 4),
        [
            numpy_helper.from_array(v, n)
            if not typed
            else helper.make_tensor(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape, v.ravel())
            for n, v in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from(["softmax", "mean"]),
    order=st.integers(0, 7),
    low=st.sampled_from([-1e4, -3e38, -8.0, -1.0, 0.0, 2.0]),
    wide=st.booleans(),
    typed=st.booleans(),
    there=st.sets(st.sampled_from(NAMES), min_size=1),
    seed=st.integers(0, 99),
)
def test_made_up_fusions(
    way: str, order: int, low: float, wide: bool, typed: bool, there: set[str], seed: int
) -> None:
    """Also where the constant of an absent score is one that a score may fall below."""
    content = _fusion(way, order, low, wide, typed)
    presence = np.array([name in there for name in NAMES], np.float32)
    own = for_presence(content, {"presence": presence}, where="fuser")
    if own is not None:
        absent = tuple(f"{n}_" for n in NAMES if n not in there) or ("?",)
        _same(content, own, _feeds(content, presence, absent, seed))
    assert typed or own is not None  # of constants only those in raw bytes are read


def test_a_graph_in_which_presence_decides_nothing_stays() -> None:
    content = _fusion("softmax", 0, -1e4, True, False)
    assert for_presence(content, {}, where="fuser") is None


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_graph_is_refused_or_left(data: st.DataObject) -> None:
    content = bytearray(_fusion("softmax", 5, -1e4, True, False))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    try:
        for_presence(bytes(content), {"presence": np.ones(3, np.float32)}, where="fuser")
    except EngineError as error:
        assert "\n" not in str(error)

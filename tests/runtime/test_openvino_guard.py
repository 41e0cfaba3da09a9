"""Graphs over which OpenVINO itself comes to grief: a segmentation fault, a hang, a read beyond memory."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.errors import EngineError
from perception.runtime.bundle import GraphSource
from perception.runtime.engines import openvino_guard
from perception.runtime.engines.onnxruntime import check_loads

SHAPE = [1, 4, 8, 8]
FAR = np.array([[[0], [2**40]]], np.int64)
HALF = np.array(0.5, np.float32)
ONE = np.array([1], np.int64)


def _graph(
    *nodes: onnx.NodeProto, opset: int = 18, domain: str = "", **weights: np.ndarray
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "bad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    content = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return bytes(content)


def _node(kind: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [to], **attributes)


WEIGHT = np.ones((3, 4, 1, 1), np.float32)
BAD = {
    "no input": _graph(_node("Conv", "w"), w=WEIGHT),
    "no weight": _graph(_node("Conv", "x")),
    "a choice without a second": _graph(
        _node("Greater", "x", "w", to="c"), _node("Where", "c", "x"), w=WEIGHT[0, 0]
    ),
    "a circle": _graph(
        _node("Add", "x", "b", to="a"), _node("Relu", "a", to="b"), _node("Neg", "b")
    ),
    "itself": _graph(_node("Add", "x", "y")),
    "stride 0": _graph(_node("Conv", "x", "w", strides=[0, 8]), w=WEIGHT),
    "nowhere": _graph(_node("Relu", "nowhere")),
    "an unknown operator": _graph(_node("Nonsense", "x")),
    "an index beyond the end": _graph(_node("GatherND", "x", "i", batch_dims=1), i=FAR),
}


def _number() -> list[onnx.NodeProto]:
    """A number of the picture as an integer, `k`: it may be anything."""
    return [
        _node("ReduceMax", "x", to="m", keepdims=0),
        _node("Reshape", "m", "one", to="m1"),
        helper.make_node("Cast", ["m1"], ["k"], to=TensorProto.INT64),
    ]


BAD |= {
    "a computed axis": _graph(
        *_number(), _node("Slice", "x", "one", "two", "k"), one=ONE, two=2 * ONE
    ),
    "a computed index": _graph(*_number(), _node("Gather", "x", "k", axis=1), one=ONE),
    "a computed size": _graph(*_number(), _node("Expand", "one_f", "k"), one=ONE, one_f=WEIGHT),
    "too large a shape": _graph(_node("Reshape", "x", "s"), s=np.array([1, 0, 2**19], np.int64)),
    "too large a shape within": _graph(
        _node("Reshape", "x", "s", to="t"),
        _node("ReduceMax", "t", "one"),
        s=np.array([1, 0, 2**26], np.int64),
        one=ONE,
    ),
    "a division of bytes": _graph(
        _node("QuantizeLinear", "x", "half", to="q"),
        _node("Div", "q", "q", to="d"),
        _node("DequantizeLinear", "d", "half"),
        half=HALF,
    ),
    "a division of constants": _graph(
        _node("Div", "one", "zero", to="d"), _node("Reshape", "x", "d"), one=ONE, zero=0 * ONE
    ),
}
SOUND = _graph(_node("Conv", "x", "w"), w=WEIGHT)


def _looked_up(low: int | None, high: int | None, *, axis: int = 1) -> bytes:
    """Indices that are given are kept between two numbers, or those that are given, too, and gathered."""
    bounds = {"low": low, "high": high}
    weights = {n: np.array(v, np.int64) for n, v in bounds.items() if v is not None}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    inputs.append(helper.make_tensor_value_info("k", TensorProto.INT32, [2, 1, 3]))
    inputs += [
        helper.make_tensor_value_info(n, TensorProto.INT64, [])
        for n, v in bounds.items()
        if v is None
    ]
    nodes = [
        _node("Slice", "k", "zero", "one", "one", to="k1"),
        helper.make_node("Cast", ["k1"], ["k2"], to=TensorProto.INT64),
        _node("Clip", "k2", "low", "high", to="k3"),
        _node("Reshape", "k3", "all", to="k4"),
        _node("Gather", "x", "k4", axis=axis),
    ]
    weights |= {"zero": 0 * ONE, "one": ONE, "all": -ONE}
    return _made(nodes, inputs, weights)


def _scattered(high: int, depth: int = 1, updates: int = 8) -> bytes:
    """Rows of a map are put where indices that are given say, kept within a number."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, updates]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [3, depth]),
    ]
    nodes = [
        _node("ConstantOfShape", "size", to="canvas"),
        _node("Clip", "k", "low", "high", to="k1"),
        _node("ScatterND", "canvas", "k1", "x"),
    ]
    size = np.array([5, 8], np.int64)
    weights = {"low": np.array(0), "high": np.array(high), "size": size}
    return _made(nodes, inputs, weights)


def _made(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], weights: dict[str, np.ndarray]
) -> bytes:
    end = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    held = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, end, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_indices_that_are_given_are_taken_where_constants_keep_them_within() -> None:
    for content in (_looked_up(0, 3), _looked_up(1, 7, axis=-1), _scattered(4)):
        openvino_guard.check(content, where="a.onnx")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (_looked_up(0, 4), "Gather with indices that may lie beyond the end"),
        (_looked_up(-1, 3), "Clip of integers"),
        (_looked_up(3, 1), "Clip of integers"),
        (_looked_up(0, None), "Clip of integers"),
        (_looked_up(None, 3), "Clip of integers"),
        (_looked_up(0, 3, axis=4), "cannot be loaded|beyond the end"),
        (_scattered(5), "ScatterND with indices that may lie beyond the end"),
        (_scattered(4, depth=2), "ScatterND with indices|cannot be loaded"),
        (_scattered(4, updates=9), "ScatterND with indices|cannot be loaded"),
    ],
)
def test_indices_that_may_lie_beyond_the_end_are_refused(content: bytes, word: str) -> None:
    with pytest.raises(EngineError, match=word):
        openvino_guard.check(content, where="a.onnx")


def test_a_bound_that_a_caller_may_change_is_none() -> None:
    """A constant that is an input as well is a default: it may be anything."""
    model = onnx.load_model_from_string(_looked_up(0, 3))
    model.graph.input.append(helper.make_tensor_value_info("high", TensorProto.INT64, []))
    with pytest.raises(EngineError, match="Clip of integers"):
        openvino_guard.check(model.SerializeToString(), where="a.onnx")


def test_indices_without_a_clip_or_of_numbers_are_refused() -> None:
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE),
        helper.make_tensor_value_info("k", TensorProto.INT64, [3]),
    ]
    bare = _made([_node("Gather", "x", "k", axis=1)], given, {})
    with pytest.raises(EngineError, match="Gather with sizes, axes or indices"):
        openvino_guard.check(bare, where="a.onnx")
    bounds = {"low": np.array(0), "high": np.array(3), "one": ONE}
    ends = [_node("Clip", "k", "low", "high", to="k3"), _node("Gather", "x", "k3", axis=1)]
    computed = _graph(*_number(), *ends, **bounds)
    with pytest.raises(EngineError, match="Cast to integers"):  # NaN is no index
        openvino_guard.check(computed, where="a.onnx")


def _load_each(folder: Path) -> None:
    """In a process of its own: load and run every graph on OpenVINO, and say what came of it."""
    from perception.runtime.engines.openvino import OpenVinoEngine

    said = {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            OpenVinoEngine(path, "f32", 1).run({"x": np.ones(SHAPE, np.float32)})
            said[path.stem] = "ran"
        except EngineError as error:
            said[path.stem] = str(error)
    sys.stdout.write(json.dumps(said))


@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
def test_what_openvino_would_crash_over_is_refused(tmp_path: Path) -> None:
    for name, content in {**BAD, "sound": SOUND}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    done = subprocess.run(
        [sys.executable, __file__, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said.pop("sound") == "ran"
    assert said.keys() == BAD.keys()
    for name, text in said.items():
        assert text != "ran" and "\n" not in text, name
    assert "GatherND" in said["an index beyond the end"]


def test_operators_are_found_wherever_they_hide() -> None:
    inner = helper.make_graph(
        [_node("ScatterND", "x", "i", "u", to="t")],
        "inner",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, SHAPE)],
    )
    branch = _graph(_node("If", "c", then_branch=inner, else_branch=inner), c=np.array(True))
    foreign = _graph(helper.make_node("Relu", ["x"], ["y"], domain="far.away"), domain="far.away")
    function = onnx.load_model_from_string(SOUND)
    opsets = [helper.make_opsetid("", 18)]
    function.functions.append(
        helper.make_function(
            "far.away", "F", ["x"], ["y"], [_node("GatherND", "x", "x")], opsets, ["k"]
        )
    )
    for content, word in (
        (branch, "graphs within graphs"),
        (foreign, "far.away.Relu"),
        (function.SerializeToString(), "functions of its own"),
    ):
        with pytest.raises(EngineError, match=word):
            openvino_guard.check(content, where="a.onnx")


def test_of_a_trusted_bundle_any_operator_is_taken_but_no_damage(tmp_path: Path) -> None:
    fine = np.zeros((1, 2, 1), np.int64)
    gathers = _graph(_node("GatherND", "x", "i", batch_dims=1), i=fine)
    with pytest.raises(EngineError, match="GatherND"):
        openvino_guard.check(gathers, where="a.onnx")
    openvino_guard.check(gathers, where="a.onnx", trusted=True)
    for name in ("no input", "a circle", "an unknown operator"):
        with pytest.raises(EngineError, match="cannot be loaded"):
            openvino_guard.check(BAD[name], where="a.onnx", trusted=True)
    assert not GraphSource.of(tmp_path / "a.onnx").trust_plans


def test_the_other_name_of_the_standard_domain_hides_nothing() -> None:
    content = _graph(helper.make_node("GatherND", ["x", "i"], ["y"], domain="ai.onnx"), i=FAR)
    with pytest.raises(EngineError, match="'GatherND'"):
        openvino_guard.check(content, where="a.onnx")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a computed axis", "Cast to integers"),
        ("too large a shape", "Reshape to another number of elements"),
        ("a division of bytes", "Div of integers"),
        ("a division of constants", "Div of integers"),
    ],
)
def test_it_says_what_is_not_taken(name: str, word: str) -> None:
    with pytest.raises(EngineError, match=word):
        openvino_guard.check(BAD[name], where="a.onnx")


def test_computed_labels_are_given_out_and_no_address() -> None:
    labels = [
        _node("ArgMax", "x", to="i", axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["b"], to=TensorProto.UINT8),
    ]
    back = helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)
    openvino_guard.check(_graph(*labels, back), where="a.onnx")
    for name, nodes in {
        "Add of integers": [_node("Add", "i", "i", to="s")],
        "Gather with sizes, axes or indices": [_node("Gather", "x", "i", to="s")],
        "Expand with sizes, axes or indices": [_node("Expand", "x", "i", to="s")],
    }.items():
        with pytest.raises(EngineError, match=name):
            openvino_guard.check(_graph(*labels, *nodes, back), where="a.onnx")


def test_integers_as_weights_and_sizes_are_taken() -> None:
    for content in (
        _graph(_node("Reshape", "x", "s"), s=np.array([4, -1], np.int64)),
        _graph(_node("Reshape", "x", "s"), s=np.array([0, 0, 64, 1], np.int64)),
        _graph(_node("Reshape", "x", "s", to="t"), _node("Relu", "t"), s=np.array([256], np.int64)),
        _graph(_node("Slice", "x", "a", "b", "c"), a=ONE, b=2 * ONE, c=ONE),
        _graph(
            helper.make_node("Cast", ["k"], ["w"], to=TensorProto.FLOAT),
            _node("Conv", "x", "w"),
            k=WEIGHT.astype(np.int64),
        ),
        _graph(
            _node("QuantizeLinear", "x", "s", "z", to="q"),
            _node("DequantizeLinear", "q", "s", "z"),
            s=HALF,
            z=np.array(3, np.uint8),
        ),
        _graph(
            helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(4 * ONE)),
            _node("Gather", "x", "s"),
        ),
    ):
        openvino_guard.check(content, where="a.onnx")


def test_every_graph_of_the_bundles_here_passes() -> None:
    paths = sorted(Path("bundles").glob("*/*.onnx"))
    assert paths
    for path in paths:
        openvino_guard.check(path.read_bytes(), where=str(path))


def test_the_reason_is_one_line() -> None:
    with pytest.raises(EngineError) as caught:
        check_loads(b"\x08\x09" * 40, where="a.onnx")
    assert str(caught.value).startswith("a.onnx: cannot be loaded") and "\n" not in str(
        caught.value
    )


if __name__ == "__main__":
    _load_each(Path(sys.argv[1]))


@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
def test_extreme_indices_are_kept_within_on_openvino_as_on_onnxruntime(tmp_path: Path) -> None:
    from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
    from perception.runtime.engines.openvino import OpenVinoEngine

    ends = [-(2**31), -1, 0, 2, 3, 2**31 - 1]
    rng = np.random.default_rng(0)
    cases = {
        "look": (_looked_up(0, 3), np.array(ends, np.int32).reshape(2, 1, 3), SHAPE),
        # OpenVINO counts with 32 bits: of larger numbers the lower ones come to the Clip.
        "put": (_scattered(4), np.array([[-(2**31)], [2], [2**31 - 1]]), [3, 8]),
    }
    for name, (content, index, shape) in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        feeds = {"x": rng.normal(size=shape).astype(np.float32), "k": index}
        wanted = OnnxRuntimeEngine(path, "cpu", 1).run(feeds)["y"]
        found = OpenVinoEngine(path, "f32", 1).run(feeds)["y"]
        np.testing.assert_array_equal(found, wanted)

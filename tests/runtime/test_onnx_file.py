"""Graphs as bytes: nothing that a backend would read besides them stays in them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perception.errors import BundleError
from perception.runtime.onnx_file import (
    NESTED,
    NEWEST_IR,
    NEWEST_OPSET,
    TensorInfo,
    beside,
    describe,
    parts,
    self_contained,
    size_of,
    with_outputs,
)


def test_every_place_for_a_tensor_is_known() -> None:
    """The table of fields against onnx's own description of the format."""
    found: dict[str, dict[int, str]] = {}
    leads: set[str] = {"TensorProto"}

    def visit(message) -> None:  # type: ignore[no-untyped-def]
        if message.name in found:
            return
        found[message.name] = {}
        for inner in message.fields:
            if inner.message_type is not None:
                found[message.name][inner.number] = inner.message_type.name
                visit(inner.message_type)

    visit(onnx.ModelProto.DESCRIPTOR)
    while True:
        more = {m for m, inner in found.items() if set(inner.values()) & leads} | leads
        if more == leads:
            break
        leads = more
    del found["TensorProto"]
    assert {
        message: {n: kind for n, kind in inner.items() if kind in leads}
        for message, inner in found.items()
        if message in leads
    } == NESTED
    assert onnx.IR_VERSION <= NEWEST_IR and onnx.defs.onnx_opset_version() <= NEWEST_OPSET


def _tensor(values: list[float], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def _branch(value: float) -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["c"], value=_tensor([value, 2 * value], "v"))
    added = helper.make_node("Add", ["c", "w"], ["r"])
    out = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    return helper.make_graph([constant, added], "branch", [], [out], [_tensor([7, 8], "w")])


def everywhere() -> onnx.ModelProto:
    """A graph with tensors in every place that ONNX has for them: y = f(x)."""
    sparse = onnx.SparseTensorProto()
    sparse.values.CopyFrom(_tensor([3.0], "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1], np.int64), "sparse_at"))
    sparse.dims.append(2)
    function = helper.make_function(
        "own",
        "Shift",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["k"], value=_tensor([0.5, 0.25], "k")),
            helper.make_node("Add", ["a", "k"], ["b"]),
        ],
        [helper.make_opsetid("", 18)],
    )
    nodes = [
        helper.make_node("Shift", ["x"], ["x1"], domain="own"),
        helper.make_node("Constant", [], ["s"], sparse_value=sparse),
        helper.make_node("Mul", ["x1", "s"], ["x2"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["z"], then_branch=_branch(1.0), else_branch=_branch(-1.0)
        ),
        helper.make_node("Add", ["x2", "z"], ["x3"]),
        helper.make_node("Mul", ["x3", "weights"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "everywhere",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [_tensor([3, 5], "weights"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


def _tensors(message) -> list[onnx.TensorProto]:  # type: ignore[no-untyped-def]
    if isinstance(message, onnx.TensorProto):
        return [message]
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = value if field.is_repeated else [value]
            for each in inner:
                found += _tensors(each)
    return found


def put_outside(model: onnx.ModelProto, location: str = "w.bin") -> bytes:
    """Move every tensor's values to one file; its content."""
    content = b"padding "
    for tensor in _tensors(model):
        values = numpy_helper.to_array(tensor)
        tensor.ClearField("float_data")
        tensor.ClearField("int64_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        told = {"location": location, "offset": len(content), "length": values.nbytes}
        for key, value in told.items():
            tensor.external_data.add(key=key, value=str(value))
        content += values.tobytes()
    return content


def _run(content: bytes, x: list[float]) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": np.array(x, np.float32)})[0]
    return found


def test_weights_in_other_files_are_brought_in_wherever_they_are() -> None:
    model = everywhere()
    original = model.SerializeToString()
    outside = put_outside(model)
    assert len(_tensors(model)) == 9
    read: list[str] = []

    def give(location: str) -> bytes:
        read.append(location)
        return outside

    whole = self_contained(model.SerializeToString(), give, where="g.onnx")
    assert read == ["w.bin"]  # once
    parsed = onnx.load_from_string(whole)
    onnx.checker.check_model(parsed)
    assert not any(t.external_data or t.data_location for t in _tensors(parsed))
    for ours, theirs in zip(
        _tensors(parsed), _tensors(onnx.load_from_string(original)), strict=True
    ):
        assert np.array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))
    for x in ([1.0, 2.0], [-4.0, 0.5]):
        assert np.array_equal(_run(whole, x), _run(original, x))


def test_each_place_alone_is_seen() -> None:
    """One tensor at a time lies outside, and nothing may be read."""

    def refuse(location: str) -> bytes:
        raise BundleError("not listed", where=location)

    for index in range(9):
        model = everywhere()
        tensor = _tensors(model)[index]
        tensor.external_data.add(key="location", value="w.bin")
        with pytest.raises(BundleError, match=r"w\.bin: not listed"):
            self_contained(model.SerializeToString(), refuse, where="g.onnx")
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.EXTERNAL  # says where not
        with pytest.raises(BundleError, match="not listed"):
            self_contained(model.SerializeToString(), refuse, where="g.onnx")


def test_a_graph_that_holds_everything_stays_as_it_is() -> None:
    content = everywhere().SerializeToString()

    def never(location: str) -> bytes:
        raise AssertionError(location)

    assert self_contained(content, never, where="g.onnx") is content


def test_that_weights_lie_within_may_be_said_in_so_many_words() -> None:
    model = everywhere()
    for tensor in _tensors(model):
        tensor.data_location = TensorProto.DEFAULT
    content = model.SerializeToString()
    assert len(content) > len(everywhere().SerializeToString())
    assert self_contained(content, lambda _: b"", where="g.onnx") is content


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"offset": "4", "length": "5"}, "beyond the end"),
        ({"offset": "9"}, "beyond the end"),
        ({"offset": "-1"}, "beyond the end"),
        ({"length": "-1"}, "beyond the end"),
        ({"offset": "two"}, "no number"),
        ({"length": "9" * 5000}, "no number"),
    ],
)
def test_places_that_are_not_in_the_file_are_refused(told: dict[str, str], message: str) -> None:
    model = everywhere()
    for key, value in {"location": "w.bin", **told}.items():
        model.graph.initializer[0].external_data.add(key=key, value=value)
    with pytest.raises(BundleError, match=message) as caught:
        self_contained(model.SerializeToString(), lambda _: bytes(8), where="g.onnx")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_without_a_length_the_rest_of_the_file_counts() -> None:
    model = everywhere()
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.external_data.add(key="location", value="w.bin")
    weights.external_data.add(key="offset", value="4")
    outside = struct.pack("<fff", 9, 3, 5)
    whole = self_contained(model.SerializeToString(), lambda _: outside, where="g")
    assert np.array_equal(_run(whole, [1, 2]), _run(everywhere().SerializeToString(), [1, 2]))


def test_much_that_is_read_again_and_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = everywhere()
    put_outside(model)
    content, outside = model.SerializeToString(), bytes(200)
    added = sum(numpy_helper.to_array(t).nbytes for t in _tensors(everywhere()))
    monkeypatch.setattr("perception.runtime.onnx_file.MAX_GRAPH_BYTES", len(content) + added)
    self_contained(content, lambda _: outside, where="g")
    monkeypatch.setattr("perception.runtime.onnx_file.MAX_GRAPH_BYTES", len(content) + added - 1)
    with pytest.raises(BundleError, match="and its weights are more than"):
        self_contained(content, lambda _: outside, where="g")


def test_engines_compiled_elsewhere_are_refused() -> None:
    model = everywhere()
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0)
    for place in (model.graph.node, model.functions[0].node):
        place.append(node)
        with pytest.raises(BundleError, match="EPContext"):
            self_contained(model.SerializeToString(), lambda _: b"", where="g")
        del place[-1]


def test_what_is_newer_than_is_known_is_refused_in_one_line() -> None:
    for change, message in (
        (lambda m: setattr(m, "ir_version", NEWEST_IR + 1), f"IR version {NEWEST_IR + 1}"),
        (lambda m: setattr(m.opset_import[0], "version", 77), "opset 77"),
    ):
        model = everywhere()
        change(model)
        with pytest.raises(BundleError, match=f"{message}, newer than.*upgrade") as caught:
            self_contained(model.SerializeToString(), lambda _: b"", where="g.onnx")
        assert "\n" not in str(caught.value)
    model = everywhere()
    model.ir_version, model.opset_import[0].version = NEWEST_IR, NEWEST_OPSET
    model.opset_import[1].version = 99  # of its own functions
    self_contained(model.SerializeToString(), lambda _: b"", where="g.onnx")


def test_what_a_graph_takes_and_gives_is_what_onnx_says(small) -> None:  # type: ignore[no-untyped-def]
    model = small.fuser(("rgb", "depth"), 3, 2)
    model.graph.input.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, []))
    values = [
        helper.make_tensor_value_info("any", TensorProto.UINT8, ["batch", None, 3, 0]),
        helper.make_tensor_value_info("unknown", TensorProto.FLOAT16, None),
        helper.make_tensor_value_info("scalar", TensorProto.FLOAT, []),
        helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [1]),
    ]
    model.graph.output.extend(values)
    info = describe(model.SerializeToString(), where="g")
    assert [i.name for i in info.inputs] == ["presence", "rgb_f", "depth_f"]  # half has a default
    assert info.inputs[1] == TensorInfo("rgb_f", TensorProto.FLOAT, (1, 3, 4, 8))
    assert [o.shape for o in info.outputs[:3]] == [(1, 3, 4, 8), (1, 2, 4, 8), (1, 4, 4, 8)]
    assert info.outputs[3:] == (
        TensorInfo("any", TensorProto.UINT8, (None, None, 3, 0)),
        TensorInfo("unknown", TensorProto.FLOAT16, None),
        TensorInfo("scalar", TensorProto.FLOAT, ()),
        TensorInfo("list", 0, None),
    )
    assert (info.ir_version, info.opset) == (9, 18)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = -3
    assert describe(model.SerializeToString(), where="g").outputs[0].shape == (1, -3, 4, 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a graph",
        b"\x08\x09",  # a version, and no graph
        b"\x3a\x00\x3a\x00",  # two graphs
        b"\x3a\x05\x00",  # cut off
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of more than 64 bits
        b"\x3b\x3c",  # a group, which ONNX does not have
        b"\x02\x00\x3a\x00",  # a field without a number
        b"PK\x03\x04" + bytes(40),
        b"<?xml version='1.0'?><net/>",  # OpenVINO's own format
        b"\x18\x00\x00\x00ORTM" + bytes(40),  # ONNX Runtime's
    ],
)
def test_what_is_no_onnx_file_is_refused_in_one_line(content: bytes) -> None:
    for call in (
        lambda: describe(content, where="g.onnx"),
        lambda: self_contained(content, lambda _: b"", where="g.onnx"),
    ):
        with pytest.raises(BundleError, match=r"g\.onnx: is no ONNX graph") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_graphs_nested_without_end_are_refused() -> None:
    def wrap(tag: int, inner: bytes) -> bytes:
        size = b""
        left = len(inner)
        while left > 0x7F:
            size += bytes([left & 0x7F | 0x80])
            left >>= 7
        return bytes([tag << 3 | 2]) + size + bytes([left]) + inner

    def nested(levels: int) -> bytes:
        graph = b""
        for _ in range(levels):
            graph = wrap(1, wrap(5, wrap(6, graph)))  # node, attribute, graph
        return wrap(7, graph)

    self_contained(nested(20), lambda _: b"", where="g")
    with pytest.raises(BundleError, match="nested too deeply"):
        self_contained(nested(2000), lambda _: b"", where="g")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_onnx_still_reads_holds_nothing_outside(data: st.DataObject) -> None:
    model = everywhere()
    outside = put_outside(model)
    content = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        whole = self_contained(bytes(content), lambda _: outside, where="g")
    except BundleError as error:
        assert "\n" not in str(error)
        return
    try:
        parsed = onnx.load_from_string(whole)
    except Exception:  # protobuf's own
        return
    assert not any(t.external_data or t.data_location == 1 for t in _tensors(parsed))


def test_names_are_relative_to_the_graph() -> None:
    assert beside("fuser.onnx", "w.bin") == "w.bin"
    assert beside("sub/fuser.onnx", "w.bin") == "sub/w.bin"
    assert beside("sub/fuser.onnx", "../w.bin") == "sub/../w.bin"  # which no manifest lists


def test_a_graph_from_a_file(tmp_path: Path, small: Callable[..., Path]) -> None:
    """Tools' own files may stand alone, without a list of what may be read."""
    from perception.errors import EngineError
    from perception.runtime.bundle import GraphSource

    model = everywhere()
    (tmp_path / "w.bin").write_bytes(put_outside(model))
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"g\.onnx: keeps weights in another file, w\.bin"):
        GraphSource.of(tmp_path / "g.onnx").read_bytes()


def test_parts_are_those_of_the_graph() -> None:
    for path in [*sorted(Path("bundles").glob("*/*.onnx"))[:3], None]:
        model = everywhere() if path is None else onnx.load(path)
        found = parts(model.SerializeToString(), where="g")
        assert [(n.inputs, n.outputs) for n in found.nodes] == [
            (tuple(n.input), tuple(n.output)) for n in model.graph.node
        ]
        assert [n.operator for n in found.nodes] == [
            f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.node
        ]
        assert found.inputs == {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
        assert found.constants == {t.name: t.data_type for t in model.graph.initializer}
        for ours, theirs in zip(found.nodes, model.graph.node, strict=True):
            assert ours.attributes.keys() == {a.name for a in theirs.attribute}
            for attribute in theirs.attribute:
                if attribute.type == onnx.AttributeProto.INT:
                    assert ours.attributes[attribute.name] == attribute.i
                if attribute.type == onnx.AttributeProto.TENSOR:
                    assert ours.attributes[attribute.name] == attribute.t.data_type
        assert found.unusual == (
            {"functions of its own", "graphs within graphs"} if path is None else set()
        )


def test_what_is_not_among_the_nodes_is_told() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    relu.attribute.extend([helper.make_attribute("to", 1), helper.make_attribute("to", 7)])
    graph = helper.make_graph([relu], "g", [], [])
    graph.sparse_initializer.add().dims.append(2)
    found = parts(helper.make_model(graph).SerializeToString(), where="g")
    assert found.unusual == {"doubled attributes", "sparse weights"}
    with pytest.raises(BundleError, match="no ONNX graph"):
        parts(b"\x0a\xff", where="g")


def test_the_docs_say_which_versions_are_read() -> None:
    text = Path("docs/export.md").read_text(encoding="utf-8")
    assert f"ONNX opset {NEWEST_OPSET} and IR version {NEWEST_IR} at most" in text


@given(shape=st.lists(st.none() | st.integers(0, 2**40), max_size=5))
def test_a_size_that_varies_counts_as_one(shape: list[int | None]) -> None:
    values = 1
    for dimension in shape:
        values *= 1 if dimension is None else dimension
    assert size_of(tuple(shape)) == 4 * values


def test_tensors_within_can_be_given_too() -> None:
    content = everywhere().SerializeToString()
    session = ort.InferenceSession(with_outputs(content, ["x2", "total"]))
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("y", [2]),
        ("x2", [2]),
        ("total", []),
    ]
    y, _, total = session.run(None, {"x": np.array([1, 2], np.float32)})
    assert np.array_equal(y, _run(content, [1, 2])) and total == 3

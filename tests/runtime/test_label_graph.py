"""Labels and confidence computed by a graph are those computed by OpenCV and numpy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from perception.runtime import onnx_model
from perception.runtime.engines.label_graph import label_graph
from perception.runtime.onnx_file import describe
from perception.tasks.class_logits import label_confidence, label_pixels


def _run(logits: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    content = label_graph(logits.shape)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = {"seg_logits": logits, "temperature": np.array([temperature], np.float32)}
    labels, confidence = session.run(["seg_labels", "seg_confidence"], feeds)
    return labels[0], confidence[0]


def _smooth(seed: int, classes: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, classes, height, width), scale=4).astype(np.float32)


@given(
    st.integers(0, 99), st.integers(1, 255), st.integers(1, 9), st.integers(1, 9),
    st.sampled_from([0.5, 1.0, 3.0]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_it_computes_what_the_cpu_does(
    seed: int, classes: int, height: int, width: int, temperature: float
) -> None:
    logits = _smooth(seed, classes, height, width)
    labels, confidence = _run(logits, temperature)
    size = (2 * height, 2 * width)
    assert labels.dtype == np.uint8 and labels.shape == size
    assert (labels == label_pixels(logits[0], size)).mean() > 0.999 or classes < 2
    wanted = label_confidence(logits[0] / np.float32(temperature), (height, width))
    assert np.abs(confidence - wanted).max() < 1e-5


def test_of_equal_logits_the_first_class_is_taken() -> None:
    logits = np.zeros((1, 7, 3, 4), np.float32)
    logits[:, 2] = logits[:, 5] = 1
    assert (_run(logits)[0] == 2).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_shows(value: float) -> None:
    logits = _smooth(0, 5, 4, 6)
    logits[0, 3, 1, 2] = value
    with np.errstate(invalid="ignore"):
        _, confidence = _run(logits)
    bad = ~np.isfinite(confidence)
    assert bad[1, 2] and bad.sum() == 1


def test_the_writer_writes_what_onnx_reads() -> None:
    content = label_graph((1, 40, 12, 16))
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == onnx_model.OPSET
    info = describe(content, where="x")
    assert [(t.name, t.shape) for t in info.outputs] == [
        ("seg_labels", (1, 24, 32)),
        ("seg_confidence", (1, 12, 16)),
    ]


@given(
    st.dictionaries(
        st.sampled_from(["a", "axis", "größe"]),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(width=32, allow_nan=False),
            st.text(max_size=9),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
        ),
    ),
    st.sampled_from(["float32", "uint8", "int8", "int32", "int64", "float16", "bool"]),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_attributes_and_tensors_are_read_back(attributes, dtype, shape) -> None:  # type: ignore[no-untyped-def]
    value = (np.arange(int(np.prod(shape))) % 100).astype(dtype).reshape(shape)
    content = onnx_model.model(
        [onnx_model.node("Identity", ["c"], "y", **attributes)],
        {},
        {"y": (dtype, shape)},
        {"c": value},
    )
    graph = onnx.load_model_from_string(content).graph
    found = {a.name: helper.get_attribute_value(a) for a in graph.node[0].attribute}
    wanted = {n: v.encode() if isinstance(v, str) else v for n, v in attributes.items()}
    assert found == wanted
    assert np.array_equal(numpy_helper.to_array(graph.initializer[0]), value)
    assert graph.initializer[0].data_type == onnx_model.type_number(dtype)

"""Labels and confidence computed by a graph are those computed by OpenCV and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from perception.runtime import onnx_model
from perception.runtime.engines.base import NonFiniteError
from perception.runtime.engines.label_graph import ON_DEVICE, label_ends
from perception.runtime.onnx_file import describe
from perception.tasks.class_logits import energy, label_confidence, label_pixels, shares

OUTPUTS = ["seg_labels", "seg_confidence", "seg_energy", "seg_peak"]
FORMS = [(17, False), (18, False), (17, True), (18, True), (13, True)]


def _content(shape: tuple[int, ...], opset: int = 17, indices: bool = False) -> bytes:
    ends = label_ends(shape, opset, indices)
    content = onnx_model.model(
        ends.nodes, {"seg_logits": ("float32", shape), **ends.inputs}, ends.outputs, ends.constants
    )
    model = onnx.load_model_from_string(content)
    model.opset_import[0].version = opset
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _feeds(logits: np.ndarray, temperature: float = 1.0) -> dict[str, np.ndarray]:
    return {"seg_logits": logits, "inv_temperature": np.array([1 / temperature], np.float32)}


def _all(logits: np.ndarray, temperature: float = 1.0, *form: Any) -> list[np.ndarray]:
    content = _content(logits.shape, *form)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(OUTPUTS, _feeds(logits, temperature))
    return found


def _run(logits: np.ndarray, temperature: float = 1.0, *form: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, confidence, *_ = _all(logits, temperature, *form)
    return labels[0], confidence[0]


def _smooth(seed: int, classes: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, classes, height, width), scale=4).astype(np.float32)


@given(
    st.integers(0, 99), st.integers(1, 255), st.integers(1, 9), st.integers(1, 9),
    st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(FORMS),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_it_computes_what_the_cpu_does(
    seed: int, classes: int, height: int, width: int, temperature: float, form: tuple[int, bool]
) -> None:
    logits = _smooth(seed, classes, height, width)
    found, share, energies, peak = _all(logits, temperature, *form)
    labels, confidence = found[0], share[0]
    highest = logits[0].max(0)
    total = shares(logits[0], highest, temperature)
    assert np.allclose(energies[0], energy(total, highest, temperature), rtol=1e-5, atol=1e-5)
    assert peak.tolist() == [np.abs(logits).max()]
    size = (2 * height, 2 * width)
    assert labels.dtype == np.uint8 and labels.shape == size
    assert (labels == label_pixels(logits[0], size)).mean() > 0.999 or classes < 2
    wanted = label_confidence(logits[0] / np.float32(temperature), (height, width))
    assert np.abs(confidence - wanted).max() < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_of_equal_logits_the_first_class_is_taken(form: tuple[int, bool]) -> None:
    logits = np.zeros((1, 7, 3, 4), np.float32)
    logits[:, 2] = logits[:, 5] = 1
    assert (_run(logits, 1.0, *form)[0] == 2).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_shows(value: float, form: tuple[int, bool]) -> None:
    logits = _smooth(0, 5, 4, 6)
    logits[0, 3, 1, 2] = value
    with np.errstate(invalid="ignore"):
        _, confidence, _, peak = _all(logits, 1.0, *form)
    bad = ~np.isfinite(confidence[0])
    assert bad[1, 2] and bad.sum() == 1
    assert not np.isfinite(peak).any()


@pytest.mark.parametrize("precision", ["f32", "native"])
@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf])
def test_openvino_runs_it_and_hides_nothing(
    value: float | None, precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    from perception.runtime.engines.openvino import OpenVinoEngine

    logits = _smooth(0, 40, 12, 16)
    if value is not None:
        logits[0, 3, 1, 2] = value
    path = tmp_path / "ends.onnx"
    path.write_bytes(_content(logits.shape, 18, True))
    engine = OpenVinoEngine(path, precision, 1)
    if value is not None:
        with pytest.raises(NonFiniteError):
            engine.run(_feeds(logits))
        return
    found, wanted = engine.run(_feeds(logits)), dict(zip(OUTPUTS, _all(logits), strict=True))
    assert found["seg_labels"].dtype == np.uint8
    assert (found["seg_labels"] == wanted["seg_labels"]).mean() > (
        0.999 if precision == "f32" else 0.95
    )
    assert np.allclose(found["seg_confidence"], wanted["seg_confidence"], atol=0.05)


def test_the_writer_writes_what_onnx_reads() -> None:
    content = ON_DEVICE.graph((1, 40, 12, 16))
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == onnx_model.OPSET
    info = describe(content, where="x")
    assert [(t.name, t.shape) for t in info.outputs] == [
        ("seg_labels", (1, 24, 32)),
        ("seg_confidence", (1, 12, 16)),
        ("seg_energy", (1, 12, 16)),
        ("seg_peak", (1,)),
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

"""Quantized graphs compute the same on OpenVINO as on ONNX Runtime, whatever stands before a layer."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from int8_graphs import BEFORE, FLOAT, graph, off

from export.qdq import layers_of, quantize

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize("name", BEFORE)
def test_both_give_the_same(name: str) -> None:
    model = graph(name)
    names = [layer.name for layer in layers_of(model)]
    assert names == (["second"] if name in FLOAT else ["first", "second"])
    # In half of the range: CPUs without a dot product of bytes add two products in 16 bits, which overflow.
    content = quantize(model, {"x": 24.0, "r": 24.0}, names).SerializeToString()
    rng = np.random.default_rng(1)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    sizes = {i.name: i.shape for i in session.get_inputs()}
    feeds = {n: rng.uniform(0, 2, s).astype(np.float32) for n, s in sizes.items()}
    wanted = session.run(None, feeds)[0]
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = next(iter(compiled(feeds).values()))
    assert off(found, wanted) < 0.02

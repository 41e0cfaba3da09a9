"""What graphs compute in is one pool of the process, not one of each session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from perception.runtime.engines import onnxruntime as ours
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine

MEGABYTES, SESSIONS = 32, 6
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
path, sessions = sys.argv[1], int(sys.argv[2])
kept = []
for _ in range(sessions):
    kept.append(OnnxRuntimeEngine(Path(path), "cpu", 1))
    kept[-1].run({"x": np.ones((1, 1), np.float32)})
    print(int(Path("/proc/self/statm").read_text().split()[1]) / 256)
"""


def _graph(path: Path) -> Path:
    """A graph of small inputs and outputs that computes in much memory."""
    wide = MEGABYTES * 2**20 // 4
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("Sin", ["wide"], ["waves"]),
        helper.make_node("ReduceMax", ["waves"], ["y"], keepdims=0),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "wide",
        [tensor("x", TensorProto.FLOAT, [1, 1])],
        [tensor("y", TensorProto.FLOAT, [])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1, wide])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def test_more_sessions_take_no_more_to_compute_in(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(_graph(tmp_path / "g.onnx")), str(SESSIONS)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = [float(line) for line in done.stdout.split()]
    assert len(sizes) == SESSIONS
    assert sizes[-1] - sizes[0] < MEGABYTES, sizes  # with a pool each five times that or more


def test_a_program_with_a_pool_of_its_own_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(place: object, about: object) -> None:
        raise RuntimeError("An allocator for this device has already been registered for sharing.")

    ours._shares_memory.cache_clear()
    monkeypatch.setattr(ort, "create_and_register_allocator", taken)
    try:
        engine = OnnxRuntimeEngine(_graph(tmp_path / "g.onnx"), "cpu", 1)
        found = engine.run({"x": np.ones((1, 1), np.float32)})
    finally:
        ours._shares_memory.cache_clear()
    assert found["y"] == pytest.approx(np.sin(1.0))

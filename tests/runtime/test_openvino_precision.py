"""The arithmetic that OpenVINO is told to use is one that it has here, whatever the CPU lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

PROGRAM = """
import sys
import numpy as np
import perception
image = np.random.default_rng(0).integers(20, 220, (32, 64, 3), dtype=np.uint8)
frame = perception.Frame({"rgb": perception.Sample("rgb", image, stamp_ns=1)})
found = {}
for device in ("onnxruntime", "openvino"):
    pipeline = perception.Pipeline.load(sys.argv[1], device, threads=1)
    found[device] = pipeline(frame).confidence
    print(pipeline.backend)
assert np.isfinite(found["openvino"]).all()
assert np.abs(found["openvino"] - found["onnxruntime"]).max() < 0.05
"""


@pytest.mark.parametrize("kernels", ["", "AVX2", "SSE41"])
def test_kernels_that_are_held_back_compute_in_float32(small, kernels: str) -> None:  # type: ignore[no-untyped-def]
    bundle: Path = small(["rgb"])
    # x86 only; elsewhere the name means nothing, and nothing is held back.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": kernels}
    command = [sys.executable, "-c", PROGRAM, str(bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    backends = done.stdout.split()
    assert backends[0] == "onnxruntime-cpu" and backends[1].startswith("openvino-")
    if kernels and os.uname().machine == "x86_64":
        assert backends[1] == "openvino-f32"

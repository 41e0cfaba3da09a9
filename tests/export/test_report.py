"""The report: what it says was measured, and a broken tolerance is exit status 3."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from perception.frame import MODALITIES, subset_name, subsets_of


def _report(bundle: Path, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", "export", str(bundle)]
    command += ["--report", str(out), "--data", f"folder:{data}", "--limit", "1"]
    command += ["--bench-frames", "1", "--threads", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
def test_every_subset_of_every_backend_is_judged(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    done = _report(tiny_bundle, simulated, tmp_path, "--backends", "onnxruntime,openvino-f32")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["passed"] and found["frames"] == 1
    assert set(found["backends"]) == {"onnxruntime-cpu", "openvino-f32"}
    names = {subset_name(s) for s in subsets_of(MODALITIES)}
    for name, row in found["backends"].items():
        for part in ("parity", "accuracy", "change", "latency", "speedup"):
            assert set(row[part]) == names, part
        exact = name == "onnxruntime-cpu"
        errors = [p["max_abs"] for p in row["parity"].values()]
        assert (max(errors) == 0.0) if exact else (0 < max(errors) < 1e-3)
    assert found["size_bytes"] > 1e5
    assert found["memory_mib"] > 50
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") >= 2 * len(names)
    assert "openvino-f32" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_a_broken_tolerance_is_exit_status_3(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    # Not even an equal score is good enough when half a point must be gained.
    done = _report(
        tiny_bundle, simulated, tmp_path, "--backends", "onnxruntime", "--tolerance", "-0.5"
    )
    assert done.returncode == 3
    found = json.loads((tmp_path / "report.json").read_text())
    assert not found["passed"]
    assert found["backends"]["onnxruntime-cpu"]["reasons"] == [
        "loses 0.00 points, -0.5 are allowed"
    ]
    assert "a tolerance is broken" in (tmp_path / "report.html").read_text()

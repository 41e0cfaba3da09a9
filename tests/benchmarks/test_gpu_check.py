"""The GPU check walks through all of its stages where there is no GPU, and survives what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _check(out: Path, *more: str) -> tuple[int, dict[str, dict[str, object]], str]:
    command = [sys.executable, "benchmarks/gpu_check.py", "--out", out, "--quick", "--frames", "1"]
    command += ["--backend", "onnxruntime-cpu", "--bundles", "sim-stereo", "--budget", "900", *more]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        timeout=1000,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = json.loads((out / "gpu_check.json").read_text())
    return done.returncode, found, (out / "gpu_check.md").read_text()


def test_every_stage_that_needs_no_gpu_comes_to_its_end(tmp_path: Path) -> None:
    stages = "env,parity,bench,raw,torch,copies,soak"
    status, found, table = _check(tmp_path, "--features", "none;bind", "--stages", stages)
    log = (tmp_path / "gpu_check.log").read_text()
    assert status == 0, log[-3000:]
    assert list(found) == stages.split(",")
    parity, bench = found["parity"]["rows"], found["bench"]["rows"]
    assert len(parity) == 7 * 2 and all(r["error"] == 0 and r["labels"] == 1 for r in parity)  # type: ignore[attr-defined,index]
    assert [r["features"] for r in bench] == ["fp32 none", "fp32 bind"]  # type: ignore[attr-defined]
    assert found["soak"]["balanced"] and found["soak"]["results"]
    assert "| sim-stereo | none | depth+left+right |" in table and "soak" in table


def test_a_stage_that_fails_or_hangs_does_not_stop_the_others(tmp_path: Path) -> None:
    more = ("--bundles", "no-such-bundle", "--features", "none")
    status, found, table = _check(tmp_path, "--stages", "parity,copies", *more)
    assert status == 3
    assert found["parity"]["error"] == "exit status 1" and "no such bundle" in str(found["parity"])
    assert "copies" in found and "**parity**" in table

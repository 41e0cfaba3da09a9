"""Commands end on bundles whose graphs do not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_graphs import endless
from small_bundles import SmallBundles, encoder

from perception.cli.main import main
from perception.files.writing import write_image


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return SmallBundles(tmp_path)(graphs={"encoder_rgb.onnx": endless(encoder("rgb"))})


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    write_image(path, np.random.default_rng(0).integers(20, 220, (32, 64, 3), np.uint8))
    return str(path)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_run_ends(
    hostile: Path, picture: str, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    words = ["--rgb", picture, "--out", str(tmp_path / "out"), "--load-timeout", "0.5"]
    assert main(["run", "--bundle", str(hostile), "--device", device, *words]) == 2
    assert time.monotonic() - start < 20
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error:" in line and "has not answered for 0.5 s" in line


def test_bench_ends(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(hostile), "--device", "cpu", "--load-timeout", "0.5"]) == 2
    assert "has not answered" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "nan", "x"])
def test_what_is_no_time_is_refused(
    hostile: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(hostile), f"--engine-timeout={given}"]) == 2
    assert "--engine-timeout" in capsys.readouterr().err


def test_the_process_ends_beside_a_thread_that_does_not(tmp_path: Path, picture: str) -> None:
    """OpenVINO cannot be stopped within a loop; the command's status is its own all the same."""
    pytest.importorskip("openvino")
    hostile = SmallBundles(tmp_path)(graphs={"encoder_rgb.onnx": endless(encoder("rgb"))})
    words = ["--rgb", picture, "--out", str(tmp_path / "out"), "--load-timeout", "1"]
    words += ["--device", "openvino", "--trust-plans"]
    done = subprocess.run(
        [sys.executable, "-m", "perception.cli.main", "run", "--bundle", str(hostile), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "cannot be ended" in line

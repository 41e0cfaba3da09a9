"""Frames that other processes load reach the training, wherever temporary files are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path; that of a test may be too long by itself."""
    with tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as made:
        yield Path(made)


@pytest.mark.slow
@pytest.mark.parametrize("length", [40, 70, 71, 160])
def test_workers_wherever_temporary_files_are(length: int, folder: Path, simulated: Path) -> None:
    config = {
        "name": "workers",
        "tasks": ["segmentation"],
        "model": {"name": "anyfuse", "pretrained": False, "options": {"width": 0.25}},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 96, "width": 128}},
        "resolution": [{"crop": [64, 96], "scale": [0.8, 1.0], "batch": 4}],
        "epochs": 1,
        "optimizer": {"warmup_epochs": 0},
        "workers": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    scratch = folder / ("t" * (length - len(str(folder)) - 1))
    scratch.mkdir()
    command = [sys.executable, "-m", "perception.cli.main", "train", str(folder / "config.yaml")]
    command += ["--device", "cpu", "--threads", "1", "--out", str(folder / "run")]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=300,  # the training would wait for ever
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "last.safetensors").exists()
    told = "is too long a path for worker processes" in "".join(done.stderr.split("\n"))
    assert told == (length > 70)
    assert "Traceback" not in done.stderr

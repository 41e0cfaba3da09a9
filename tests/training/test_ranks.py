"""Training by several processes that `torchrun` starts: real ones, which meet through gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.training.config import TrainConfig

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[2]
RECORDER = [str(Path(__file__).with_name("record_losses.py"))]
COMMAND = ["-m", "perception.cli.main", "train"]
FROZEN = [{"crop": [64, 96], "scale": [0.9, 1.1], "batch": 4, "freeze_norm": True}]
HARD: dict[str, Any] = {
    "tasks": ["segmentation", "detection"],
    "precision": "float32",
    "resolution": FROZEN,
    "loss": {"lovasz": 0.3, "alone": 0.5},
    "curriculum": {"probability": 0.8, "severity": [3, 5]},
    "workers": 0,
}


def launched(processes: int, program: Sequence[str]) -> list[str]:
    """The command that starts a program as so many processes; as one, without `torchrun`."""
    if processes == 1:
        return [sys.executable, *program]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *run, *program]


def environment() -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "ANYSENSE"))}
    return {**known, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def done(
    processes: int, program: Sequence[str], status: int = 0
) -> subprocess.CompletedProcess[str]:
    """What became of it, which it has to end with this status."""
    found = subprocess.run(
        launched(processes, program),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == status, found.stderr[-3000:]
    return found


def written(config: TrainConfig, folder: Path) -> str:
    """The configuration as a file."""
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    return str(path)


def losses(folder: Path, rank: int = 0) -> list[float]:
    return json.loads((folder / f"losses-{rank}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def gappy(record: Record) -> Path:
    """A recording in which frames lack sensors and truth, so that batches are of several sizes."""
    return record(
        27, kinds=2, unlabeled={1, 5, 6}, lacks={("depth", 2), ("depth", 9), ("rgb", 4)}
    )

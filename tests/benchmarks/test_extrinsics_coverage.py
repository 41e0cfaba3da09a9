"""Sigmas of extrinsics are true: a short run of the benchmark."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = ROOT / "benchmarks/extrinsics_coverage.py"
    spec = importlib.util.spec_from_file_location("extrinsics_coverage", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["extrinsics_coverage"] = module
    spec.loader.exec_module(module)
    return module


def test_two_sigma_hold_the_truth_as_often_as_they_say(benchmark: ModuleType) -> None:
    """40 rigs of six numbers each; 95 % are expected, and 200 rigs give it."""
    found = benchmark.coverage(40, poses=8)
    assert 0.90 <= found.inside.mean() <= 0.99, found
    assert (found.ratio > 1 / 1.5).all() and (found.ratio < 1.6).all(), found

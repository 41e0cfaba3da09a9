"""Sigmas of extrinsics are true: a short run of the benchmark."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from benchmark_modules import load_benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("extrinsics_coverage")


def test_two_sigma_hold_the_truth_as_often_as_they_say(benchmark: ModuleType) -> None:
    """40 rigs of six numbers each; 95 % are expected, and 200 rigs give it."""
    found = benchmark.coverage(40, poses=8)
    assert 0.90 <= found.inside.mean() <= 0.99, found
    assert (found.ratio > 1 / 1.5).all() and (found.ratio < 1.6).all(), found

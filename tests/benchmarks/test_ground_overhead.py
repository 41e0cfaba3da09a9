"""What boxes on the ground cost: a short run of the benchmark, and its street."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_modules import load_benchmark
from ground_bundles import ground_bundle

from perception.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("ground_overhead")


def test_a_turn_is_of_a_street(benchmark: ModuleType) -> None:
    points = benchmark.turn_in_a_street(120_000, 3)
    assert points.shape == (120_000, 4) and points.dtype == np.float32
    assert np.isfinite(points).all()
    assert points[:, 2].min() > -2.0 and np.abs(points[:, 1]).max() < 11.5
    assert (points != benchmark.turn_in_a_street(120_000, 4)).any()


def test_its_parts_add_up(benchmark: ModuleType, tmp_path: Path) -> None:
    bundle = ground_bundle(tmp_path / "bundle", {"lidar": ("lidar", "cloud")})
    found = benchmark.measure(str(bundle), 5_000, 2)
    assert found["points"] == 5_000 and found["bundle"] == "ground"
    own = found["lidar_only_ms"]
    assert all(own[step] > 0 for step in ("preprocess", "encode", "fuse", "postprocess"))
    assert own["preprocess"] + own["engine"] + own["postprocess"] <= own["total"] * 1.5
    assert found["share"] > 0 and found["times_sim_rgbdtl"] > 0


def test_a_bundle_without_points_is_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    bundle = ground_bundle(tmp_path / "bundle", {"front": ("rgb", "camera")})
    with pytest.raises(ConfigError, match="takes no points"):
        benchmark.measure(str(bundle), 100, 1)

"""How far headings are off: a short run of the benchmark on a simulated drive, and its lines by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_modules import load_benchmark

from perception.sim.drives import Drives, make_drives

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("headings")


def _run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headings", *words])
    code: int = benchmark.main()
    return code


def test_of_the_shipped_bundle_cars_are_found_and_lie_as_they_do(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive = Drives(3, 5, town_frames=1, lidar="hdl32", weather="clear")
    make_drives(tmp_path / "drive", drive, progress=False)
    data = ["--data", f"folder:{tmp_path / 'drive'}"]
    words = [str(ROOT / "bundles/sim-bev"), *data, "--sensors", "lidar"]
    assert _run(benchmark, monkeypatch, *words) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["class", "where", "found"]
    cars = [row.split() for row in rows if row.startswith("car")]
    assert sum(int(row[2]) for row in cars) >= 3
    assert all(float(row[3]) < 15 for row in cars)


def test_a_bundle_without_boxes_in_space_is_refused(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"folder:{ROOT / 'recordings/simulated_drive'}"
    assert _run(benchmark, monkeypatch, str(ROOT / "bundles/indoor-rgbd"), "--data", data) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "no boxes in space" in line


def test_lines_by_hand(benchmark: ModuleType) -> None:
    turn = np.radians
    rows = np.array(
        [
            (1, 5.0, 0.0, turn(3)),
            (1, 10.0, turn(50), turn(50 + 175)),  # turned round, its axis 5 degrees off
            (1, 15.0, turn(179), turn(-177)),  # 4 degrees, across the border
            (1, 15.1, turn(20), turn(30)),
        ]
    )
    near, far = benchmark.told(rows, {0: "bus", 1: "car"}, 15.0)
    assert near.split() == ["car", "near", "3", "4.0", "1.0", "33"]
    assert far.split() == ["car", "far", "1", "10.0", "20.0", "0"]

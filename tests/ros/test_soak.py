"""The soaks of `benchmarks`, made short: random faults, and drivers as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SOAK = BENCHMARKS / "ros_soak.py"


@pytest.mark.slow
def test_random_faults_for_half_a_minute(
    own_domain: int, bundle: Path, drive: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(SOAK), "--bundle", str(bundle), "--source", f"folder:{drive}"]
    # So early, memory still grows into what the nodes need: only a gross leak would show.
    command += ["--seconds", "35", "--warm-up", "15", "--growth", "15", "--out", str(tmp_path)]
    found = subprocess.run(
        command,
        env=environment(own_domain, tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    told = json.loads(found.stdout)
    assert told["statuses"]["degraded"] > 10
    assert told["kinds_of_faults"] > 15
    assert (tmp_path / "memory_perception_node.png").stat().st_size > 1000
    for name, parts in told["memory_parts"].items():
        assert parts["private_mb"] > 20 and parts["shared_mb"] > 1
        whole = parts["private_mb"] + parts["shared_mb"]
        assert abs(whole - told["memory_mb"][name]) < 30  # which is of some seconds later
    for counts in told["messages"].values():
        assert counts["received"] + counts["missed"] == counts["sent"] > 50
        assert counts["unaccounted"] == 0


@pytest.mark.slow
def test_drivers_out_of_step_with_wrong_and_missing_clocks(
    own_domain: int, bundle: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(BENCHMARKS / "ros_patterns.py"), "--bundle", str(bundle)]
    command += ["--seconds", "25", "--timeout-ms", "3000", "--out", str(tmp_path)]
    found = subprocess.run(
        command,
        env=environment(own_domain, tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    told = json.loads(found.stdout)
    assert told["most_log_lines_in_a_minute"] < 5
    assert sum(told["states"].values()) > 50
    assert all(count > 10 for count in told["heard"].values())

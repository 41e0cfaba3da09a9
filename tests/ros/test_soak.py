"""The soak of `benchmarks/ros_soak.py`, made short: random faults, and the books balance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

SOAK = Path(__file__).parents[2] / "benchmarks" / "ros_soak.py"


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
    for counts in told["messages"].values():
        assert counts["received"] == counts["sent"] > 50

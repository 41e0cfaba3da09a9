"""`make fuzz` itself: guided by coverage, and it tells of what breaks a law."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel here"),
]


def _run(folder: Path, target: str, *options: str) -> tuple[int, dict[str, object]]:
    command = [sys.executable, str(RUN), target, "--seconds", "3", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_run_is_guided_by_coverage(tmp_path: Path) -> None:
    code, told = _run(tmp_path, "schedule")
    assert code == 0 and told["found"] == [] and int(str(told["inputs"])) > 50
    log = (tmp_path / "out/fuzz/schedule.log").read_text()
    assert "no interesting inputs" not in log
    assert any((tmp_path / "out/fuzz/schedule").iterdir())


def test_an_input_that_takes_too_much_is_kept(tmp_path: Path) -> None:
    code, told = _run(tmp_path, "schedule", "--memory", "20")
    assert code == 1 and told["status"] != 0

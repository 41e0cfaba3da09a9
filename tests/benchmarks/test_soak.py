"""`make soak`, made short, and that it notices what it is there for."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmark_modules import load_benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    return load_benchmark("soak")


def _run(out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks/soak.py"), "--out", str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("more", [(), ("--parallel", "--seed", "2")])
def test_two_thousand_frames_with_every_fault(tmp_path: Path, more: tuple[str, ...]) -> None:
    # So early, memory still grows into what is needed: only a gross leak would show.
    code, told = _run(tmp_path, "--frames", "2400", "--growth", "10", *more)
    assert code == 0, told["wrong"]
    assert told["frames"] == 2400 and told["faults"]["not_met"] == 0
    assert min(told["samples"].values()) > 1500
    assert {"full", "degraded", "hold", "stop"} <= set(told["states"])
    assert {"ok", "lost", "frozen", "skewed", "dark", "malformed", "late"} <= set(told["health"])
    assert (tmp_path / "memory.png").stat().st_size > 1000


def test_growth_is_that_of_a_straight_line_after_the_warm_up(soak: ModuleType) -> None:
    memory = [(n, 1000 + (50 * n if n < 100 else 5000 + n)) for n in range(0, 1000, 10)]
    grown, line = soak.growth(memory, 100)
    assert np.isclose(grown, 890 / 6100) and np.allclose(line, [1, 6000])
    assert soak.growth(memory[:2], 0)[0] == 0


def test_exceptions_that_were_caught_are_told(soak: ModuleType) -> None:
    wrong: list[str] = []
    logger = logging.getLogger("anysense.test_soak")
    logger.addHandler(handler := soak.Foreign(wrong))
    try:
        for error in (KeyError("x"), soak.AnySenseError("ours")):
            try:
                raise error
            except Exception as caught:
                logger.error("said", exc_info=caught)
        logger.error("nothing was raised")
    finally:
        logger.removeHandler(handler)
    assert len(wrong) == 1 and wrong[0].startswith("KeyError: 'x' (")


def test_a_sample_without_a_fate_is_told(soak: ModuleType, tmp_path: Path) -> None:
    pipeline = soak.Pipeline.load(soak.tiny_bundle(tmp_path), "cpu", threads=1)
    run = soak.Soak(pipeline, 1)
    run.run(soak.CHAPTER, 40)
    assert run.wrong == []
    run.core.counts["rgb"]["used"] -= 1
    run.told["depth"] += 1
    run._balance()
    assert len(run.wrong) == 2 and "rgb does not add up" in "".join(run.wrong)

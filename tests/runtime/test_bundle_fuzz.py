"""Bundles that are damaged at random, by accident or on purpose; see `fuzz_bundle.py`.

In a process of its own, with 8 GB of address space: a crash of native code is a failure, too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
MEMORY = 8_000_000 * 1024


def _fuzz(
    folder: Path, count: int, seed: int, device: str = "cpu", schema: int = 1
) -> dict[str, int]:
    script = Path(__file__).parent / "fuzz_bundle.py"
    done = subprocess.run(
        [sys.executable, script, folder, str(count), str(seed), device, str(schema)],
        capture_output=True,
        text=True,
        timeout=1800,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["failures"], "\n".join(found["failures"][:20])
    outcomes: dict[str, int] = found["outcomes"]
    assert sum(outcomes.values()) == count
    return outcomes


@pytest.mark.parametrize("schema", [1, 2])
def test_damaged_bundles_are_refused_or_sound(tmp_path: Path, schema: int) -> None:
    outcomes = _fuzz(tmp_path, 60, 0, schema=schema)
    assert outcomes["BundleError"] > 20 and outcomes["same"] > 1 and outcomes["sound"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("schema", [1, 2])
def test_two_thousand_damaged_bundles(tmp_path: Path, schema: int) -> None:
    outcomes = _fuzz(tmp_path, 2000, 1, schema=schema)
    assert min(outcomes[k] for k in ("BundleError", "EngineError", "same", "sound")) > 20


@needs_openvino
def test_damaged_bundles_on_openvino(tmp_path: Path) -> None:
    """OpenVINO trusts what it reads: without `openvino_guard` one of a few dozen ends the process."""
    outcomes = _fuzz(tmp_path, 60, 2, "openvino-f32")
    assert outcomes["BundleError"] > 20 and outcomes["EngineError"] > 5


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("seed", [3, 4])
def test_hundreds_of_damaged_bundles_on_openvino(tmp_path: Path, seed: int) -> None:
    _fuzz(tmp_path, 500, seed, "openvino-f32")

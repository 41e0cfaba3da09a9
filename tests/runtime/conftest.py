"""Bundles that a test can bend, and a picture for them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_bundles import GRID, SmallBundles

from perception.frame import Sample
from perception.runtime.engines import cuda_driver_calls


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    return SmallBundles(tmp_path)


@pytest.fixture
def rgb() -> Sample:
    image = np.random.default_rng(0).integers(20, 220, (*GRID, 3), dtype=np.uint8)
    return Sample("rgb", image, stamp_ns=1)


@pytest.fixture
def fake_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A driver of the tests' own in the place of NVIDIA's, which runs nowhere without a GPU."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "libcuda.so"
    source = Path(__file__).parent / "fake_cuda.c"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True, timeout=60)
    driver = ctypes.CDLL(str(library))
    monkeypatch.setattr(cuda_driver_calls, "driver_library", lambda: driver)
    return driver

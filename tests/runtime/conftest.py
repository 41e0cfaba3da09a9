"""Bundles that a test can bend, and a picture for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_bundles import GRID, SmallBundles

from perception.frame import Sample


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    return SmallBundles(tmp_path)


@pytest.fixture
def rgb() -> Sample:
    image = np.random.default_rng(0).integers(20, 220, (*GRID, 3), dtype=np.uint8)
    return Sample("rgb", image, stamp_ns=1)

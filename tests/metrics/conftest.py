"""Bundles that a test can bend."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundles import SmallBundles


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    return SmallBundles(tmp_path)

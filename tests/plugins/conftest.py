"""A folder for distributions that this process finds, until the test is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from small_bundles import SmallBundles

from perception import plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path; registries forget what was found in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for target in plugins.REGISTRIES.values():
        module, _, attribute = target.partition(":")
        if module in sys.modules or "models" not in module:
            monkeypatch.setattr(getattr(import_module(module), attribute), "_loaded", {})
    plugins.plugins.cache_clear()
    known = set(sys.modules)
    yield folder
    plugins.plugins.cache_clear()
    for name in set(sys.modules) - known:
        if name.startswith(("brought_", "anysense_")):
            del sys.modules[name]


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    return SmallBundles(tmp_path)

"""A folder for distributions that this process finds, until the test is over."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from distributions import installed
from small_bundles import SmallBundles

from perception import plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path; registries forget what was found in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    # A module that is written anew within a second, as long as before, would be that of before.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for target in plugins.REGISTRIES.values():
        module, _, attribute = target.partition(":")
        monkeypatch.setattr(getattr(import_module(module), attribute), "_loaded", {})
    plugins.plugins.cache_clear()
    known = set(sys.modules)
    yield folder
    plugins.plugins.cache_clear()
    for name in set(sys.modules) - known:
        if name.startswith(("brought_", "anysense_")):
            del sys.modules[name]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample distributions, installed by pip once for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    site = shared / "sample-distributions"
    if not site.exists():
        own = tmp_path_factory.mktemp("samples") / "site"
        installed(own, *sorted(p.parent for p in Path(__file__).parent.glob("*/pyproject.toml")))
        with suppress(OSError):  # another process was faster
            own.rename(site)
    return site


@pytest.fixture
def brought(site: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample distributions, in this process."""
    monkeypatch.syspath_prepend(str(samples))
    plugins.plugins.cache_clear()
    return samples


@pytest.fixture
def small(tmp_path: Path) -> SmallBundles:
    return SmallBundles(tmp_path)

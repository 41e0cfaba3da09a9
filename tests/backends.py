"""Backends of the tests' own, registered as ours are."""

from __future__ import annotations

import pytest

from perception.runtime.engines import registry
from perception.runtime.engines.backend import Backend


def register(monkeypatch: pytest.MonkeyPatch, name: str, backend: Backend) -> None:
    """Have a backend, in the place of the one so named where there is one, as long as the test runs."""
    monkeypatch.setitem(registry.BACKENDS.own, name, backend)

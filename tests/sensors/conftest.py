"""A kind that another distribution brings, installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perception import plugins
from perception.sensors.registry import KINDS


@pytest.fixture
def laser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kind `laser`, see `laser.py`; the folder that it was installed into."""
    site = tmp_path / "site"
    info = site / "brings_laser-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-laser\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anysense.sensors]\nlaser = laser:LASER\n")
    (site / "laser.py").symlink_to(Path(__file__).parent / "laser.py")
    monkeypatch.syspath_prepend(str(site))
    plugins.plugins.cache_clear()
    yield site
    plugins.plugins.cache_clear()
    KINDS._loaded.pop("laser", None)

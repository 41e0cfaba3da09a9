"""The Python in the documentation runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perception
from perception.data.folder import read_info
from perception.geometry.rig import load_rig

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```python\n(.*?)```", re.S)


def _run(page: str, names: dict[str, Any]) -> None:
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for index, block in enumerate(blocks):
        exec(compile(block, f"{page}, example {index + 1}", "exec"), names)


def test_runtime_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _run("docs/runtime.md", {})


def test_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (480, 640, 3), np.uint8)
    stamped = {"stamp_ns": 10}
    names = {
        "image": image,
        "meters": rng.uniform(0.5, 5, (480, 640)).astype(np.float32),
        "sample": perception.Sample("rgb", image[::-1].copy(), **stamped),
    }
    names["other"] = perception.Sample("depth", names["meters"] + 1, **stamped)
    _run("README.md", names)
    result = names["result"]
    assert result.used == ("rgb", "depth")
    assert result.state == "full"


def test_descriptions_of_the_data_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", page, re.S)
    assert [name for name, _ in blocks] == ["dataset.yaml", "rig.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_info(tmp_path).modalities == ("rgb", "depth", "lidar")
    rig = load_rig(tmp_path / "rig.yaml")
    assert rig.cameras == ["front", "depth", "rear"] and rig.kinds["lidar"] == "lidar"
    ahead = np.array([[5.0, 0, 0]])  # of the LiDAR: before the one camera, behind the other
    assert np.allclose(rig.between("lidar", "front").apply(ahead), [[0, -0.4, 4.7]])
    assert np.allclose(rig.between("lidar", "rear").apply(ahead), [[0, -0.4, -5.3]])

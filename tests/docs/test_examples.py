"""The Python in the documentation runs as written."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def test_metrics_page() -> None:
    _run("docs/metrics.md", {})


def test_simulator_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    _run("docs/simulator.md", {})
    assert len((tmp_path / "round/frames.csv").read_text().splitlines()) == 3


class Robot:
    """What the README's program is given: drivers of two sensors, one of which dies and returns."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names, self.seen = names, list[str]()
        self.alive = threading.Event()
        self.alive.set()
        self.end = time.monotonic() + 180
        self.rng = np.random.default_rng(0)

    def read_color(self) -> np.ndarray[Any, Any]:
        time.sleep(1 / 30)
        return self.rng.integers(0, 255, (480, 640, 3), np.uint8)

    def read_depth(self) -> np.ndarray[Any, Any]:
        time.sleep(1 / 15)
        self.alive.wait(30)
        return self.rng.integers(500, 5000, (480, 640), np.uint16)

    def act_on(self, labels: np.ndarray[Any, Any], confidence: np.ndarray[Any, Any]) -> None:
        assert labels.shape == confidence.shape == (480, 640)

    def enough(self) -> bool:
        """Whether all was seen: everything well, depth lost, and everything well again."""
        result = self.names["result"]
        if result.state == "full" and len(self.seen) in (0, 2):
            self.seen.append("full")
            self.alive.clear()
        elif result.health["depth"] == "lost" and result.used == ("rgb",) and len(self.seen) == 1:
            assert result.state == "degraded" and "depth: no message" in result.lines[0]
            self.seen.append("lost")
            self.alive.set()
        return self.seen == ["full", "lost", "full"] or time.monotonic() > self.end


def test_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {
        "image": rng.integers(0, 255, (480, 640, 3), np.uint8),
        "meters": rng.uniform(0.5, 5, (480, 640)).astype(np.float32),
    }
    robot = Robot(names)
    names |= {n: getattr(robot, n) for n in ("read_color", "read_depth", "act_on", "enough")}
    before = threading.active_count()
    _run("README.md", names)
    assert robot.seen == ["full", "lost", "full"]
    assert threading.active_count() <= before + 1, "nothing of the stream is left"
    result = names["result"]
    assert result.used == ("rgb", "depth")
    assert result.state == "full"


def test_descriptions_of_the_data_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", page, re.S)
    assert [name for name, _ in blocks] == ["dataset.yaml", "rig.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(read_info(tmp_path).sensors) == ["rgb", "depth", "lidar"]
    rig = load_rig(tmp_path / "rig.yaml")
    assert rig.cameras == ["front", "depth", "rear"] and rig.kinds["lidar"] == "lidar"
    ahead = np.array([[5.0, 0, 0]])  # of the LiDAR: before the one camera, behind the other
    assert np.allclose(rig.between("lidar", "front").apply(ahead), [[0, -0.4, 4.7]])
    assert np.allclose(rig.between("lidar", "rear").apply(ahead), [[0, -0.4, -5.3]])


def test_corruptions_page() -> None:
    _run("docs/corruptions.md", {})

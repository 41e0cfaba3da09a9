"""The picture of the ROS demo: nothing is cut off at its edges, names of states fit their stretch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from perception.data.folder import FolderRecording
from perception.frame import KINDS


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    pytest.importorskip("matplotlib")
    path = Path(__file__).parents[2] / "ros2_ws" / "demo.py"
    spec = importlib.util.spec_from_file_location("ros_demo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rows(state: Callable[[int], str], count: int = 60) -> list[dict[str, str]]:
    health = {f"health_{kind}": "ok" for kind in KINDS}
    return [
        {"time_s": f"{i * 0.5}", "used": "rgb", "state": state(i), "latency_ms": "30", **health}
        for i in range(count)
    ]


def test_the_key_of_the_colors_is_whole(demo: ModuleType, tmp_path: Path) -> None:
    demo.draw(_rows(lambda i: "full"), [], tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    top = picture[:34]
    assert (top[:, :20] == 255).all() and (top[:, -20:] == 255).all()
    for color in demo.COLORS.values():
        bgr = np.array([int(color[i : i + 2], 16) for i in (5, 3, 1)])
        assert (top == bgr).all(axis=2).any(), color


def test_a_state_is_named_where_its_name_fits(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lanes:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def text(self, x: float, y: float, text: str, **_: Any) -> None:
            self.texts.append(text)

    def named(state: Callable[[int], str]) -> list[str]:
        rows, lanes = _rows(state), Lanes()
        times = [float(row["time_s"]) for row in rows]
        demo._name_states(lanes, rows, times, [*times[1:], times[-1] + 0.5])
        return lanes.texts

    assert named(lambda i: "degraded" if i < 3 else "full") == ["full"]  # 1.5 of 30 seconds
    assert named(lambda i: "degraded" if i < 6 else "full") == ["degraded", "full"]
    assert named(lambda i: "hold" if i < 3 else "full") == ["hold", "full"]


def test_the_drive_that_comes_along_has_all_that_the_demo_needs(demo: ModuleType) -> None:
    kind, _, folder = demo.shipped_drive().partition(":")
    assert kind == "folder" and set(FolderRecording(Path(folder)).info.sensors) == set(KINDS)

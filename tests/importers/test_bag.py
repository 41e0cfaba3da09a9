"""Bags: messages of one time as frames, calibration, several cameras, and what is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.cli.main import main
from perception.data import open_recording
from perception.importers.bag import grouped


@pytest.fixture
def bag(simulated: Path, tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    data = ["--data", f"folder:{simulated}", "--out", str(path)]
    assert main(["record", *data]) == 0
    return path


def test_a_recording_comes_back(imported: Import, bag: Path, simulated: Path) -> None:
    recording, source = imported(f"bag:{bag}"), open_recording("folder", simulated)
    assert len(recording) == len(source) and not recording.info.det_classes
    assert recording.info.sensors == source.info.sensors
    for index in (0, 7):
        mine, theirs = recording.frame(index), source.frame(index)
        assert mine.stamp_ns == theirs.stamp_ns
        for name, sample in theirs.items():
            tolerance = {"depth": 0.0006, "thermal": 0.006}.get(name, 1e-5)
            assert np.allclose(mine[name].data, sample.data, atol=tolerance, equal_nan=True)
        assert mine["lidar"].camera is not None and mine["lidar"].extrinsics is not None
        assert theirs["lidar"].extrinsics is not None
        assert np.allclose(
            mine["lidar"].extrinsics.matrix, theirs["lidar"].extrinsics.matrix, atol=1e-9
        )
    assert recording.truth(0).labels is None and recording.truth(0).boxes is None


def test_topics_by_name(imported: Import, bag: Path) -> None:
    chosen = "front=rgb@/sensors/rgb/image_raw,depth=/sensors/depth/image_raw"
    recording = imported(f"bag,{chosen}:{bag}", "--limit", "5", "--files", "link")
    assert dict(recording.info.sensors) == {"depth": "depth", "front": "rgb"}
    assert recording.info.labels_of == "front"
    assert recording.rig.sensors["front"].camera is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("front=/sensors/rgb/image_raw", "which kind of sensor is 'front'"),
        ("rgb=/none", "no topic /none"),
        ("rgb=/sensors/lidar/points", "which is no rgb"),
        ("reference=radar", "no sensor 'radar'"),
        ("window_ms=x", "window_ms is a number"),
        ("front=sonar@/x", "sonar"),
    ],
)
def test_wrong_words(refused: Any, bag: Path, options: str, expected: str) -> None:
    assert expected in refused(f"bag,{options}:{bag}")


def test_a_torn_bag(refused: Any, bag: Path) -> None:
    path = next(bag.glob("*.mcap"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])
    assert "drive" in refused(f"bag:{bag}")


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    st.lists(st.integers(0, 1000), max_size=20),
    st.integers(0, 100),
)
def test_groups_are_of_the_nearest(own: list[int], others: list[int], window: int) -> None:
    stamps = {"rgb": own, "lidar": others}
    frames = grouped(stamps, "rgb", window)
    times = [own[f["rgb"]] for f in frames]
    assert times == sorted(set(own))
    used = [f["lidar"] for f in frames if "lidar" in f]
    assert len(used) == len(set(used))
    for time, frame in zip(times, frames, strict=True):
        if "lidar" in frame:
            apart = abs(others[frame["lidar"]] - time)
            assert apart <= window
            near = [o for o in others if abs(o - time) == min(abs(o - t) for t in times)]
            assert others[frame["lidar"]] in near
            # one in the middle between two frames may be of either
            inside = [o for o in near if sum(abs(o - t) == abs(o - time) for t in times) == 1]
            assert all(apart <= abs(o - time) for o in inside)

"""SemanticKITTI: labels of points as sparse masks, drives with and without pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import

from perception.data import open_recording
from perception.importers.semantic_kitti import NAMES, PLACES, SIZE

CALIB = "P2: {f} 0 {cx} 0 0 {f} {cy} 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
ROAD, CAR, MOVING = 40, 10, 252


def semantic_kitti(root: Path, pictures: bool) -> Path:
    """Drives 00, 08 and 11 of two scans each: a car behind another one, and a road."""
    height, width = (40, 120) if pictures else SIZE
    text = CALIB.format(f=100, cx=(width - 1) / 2, cy=(height - 1) / 2)
    for drive in ("00", "08", "11"):
        folder = root / "dataset/sequences" / drive
        (folder / "velodyne").mkdir(parents=True)
        (folder / "calib.txt").write_text(text)
        (folder / "times.txt").write_text("0.0\n1.036e-01\n")
        for index in range(2):
            name = f"{index:06d}"
            rng = np.random.default_rng(index)
            road = np.column_stack([np.tile([10.0], 20), rng.uniform(-4, 4, 20), np.full(20, -1.0)])
            line = np.array([[10.0, 0, 0], [20.0, 0, 0], [0, 0, 0]])  # the last: no return
            points = np.concatenate([road, line])
            cloud = np.column_stack([points, np.full(len(points), 0.3)]).astype("<f4")
            cloud.tofile(folder / f"velodyne/{name}.bin")
            if pictures:
                foreign.picture(folder / f"image_2/{name}.png", height, width, seed=index)
            if drive != "11":
                ids = np.array([ROAD] * 20 + [MOVING, CAR + 1, 0], "<u4")
                ids |= np.uint32(7 << 16)  # the number of an object
                (folder / "labels").mkdir(exist_ok=True)
                ids.tofile(folder / f"labels/{name}.label")
    return root


@pytest.mark.parametrize("pictures", [True, False])
def test_points_as_pixels(imported: Import, tmp_path: Path, pictures: bool) -> None:
    root = semantic_kitti(tmp_path / "set", pictures)
    recording = imported(f"semantic_kitti:{root}", check=False)
    assert list(recording.info.sensors) == (["rgb", "lidar"] if pictures else ["lidar"])
    labels = recording.truth(0).labels
    assert labels is not None
    height, width = labels.shape
    middle = labels[round((height - 1) / 2), round((width - 1) / 2)]
    assert NAMES[middle] == "car"  # not the bicycle behind it
    assert 10 < (labels == NAMES.index("road")).sum() <= 20
    assert (labels == 255).sum() >= labels.size - 22
    assert recording.truth(5).labels is None
    splits = {s: open_recording("folder", recording.root, split=s).ids for s in ("train", "val")}
    assert len(splits["train"]) == len(splits["val"]) == 2
    assert recording.stamp_ns(1) == 103_600_000
    assert recording.stamp_ns(2) > recording.stamp_ns(1)
    assert recording.frame(0)["lidar"].camera is not None


def test_every_label_is_known() -> None:
    assert sorted(set(PLACES.values())) == list(range(19)) and len(NAMES) == 19


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda ids: ids[:-1], "are not the labels of 23 points"),
        (lambda ids: np.where(ids == ids[0], np.uint32(77), ids), "holds label 77"),
    ],
)
def test_wrong_labels(refused: Any, tmp_path: Path, change: Any, expected: str) -> None:
    root = semantic_kitti(tmp_path / "set", True)
    path = root / "dataset/sequences/00/labels/000001.label"
    change(np.fromfile(path, "<u4")).astype("<u4").tofile(path)
    line = refused(f"semantic_kitti:{root}")
    assert expected in line and "000001.label" in line


@pytest.mark.parametrize(
    ("text", "expected"), [("0.0\n", "no time of scan 1"), ("x\n", "times.txt:1")]
)
def test_wrong_times(refused: Any, tmp_path: Path, text: str, expected: str) -> None:
    root = semantic_kitti(tmp_path / "set", True)
    (root / "dataset/sequences/00/times.txt").write_text(text)
    assert expected in refused(f"semantic_kitti:{root}")

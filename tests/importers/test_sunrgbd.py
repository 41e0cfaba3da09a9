"""SUN RGB-D: depth whose bits are turned, outlines with names, and the repacked form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st

from perception.importers.source import UNLABELED
from perception.importers.sunrgbd import NAMES, millimetres, place_of

HEIGHT, WIDTH = 48, 64


def turned(millimetres: np.ndarray) -> np.ndarray:
    """As the data set stores depth."""
    return ((millimetres << 3) | (millimetres >> 13)).astype(np.uint16)


def sunrgbd(root: Path, focal: str = "60.0") -> Path:
    """Two frames of two cameras; the second is not labeled."""
    for index, place in enumerate(("kv1/NYUdata/NYU0001", "kv2/kinect2data/000002_x-resize")):
        folder = root / place
        foreign.picture(folder / "image/a.jpg", HEIGHT, WIDTH, seed=index)
        depth = np.full((HEIGHT, WIDTH), 2500, np.uint16)
        depth[:4] = 0
        (folder / "depth_bfx").mkdir()
        cv2.imwrite(str(folder / "depth_bfx/a.png"), turned(depth))
        (folder / "intrinsics.txt").write_text(f"{focal} 0 31.5\n0 60 23.5 \n0 0 1\n")
        if index == 0:
            content = {
                "objects": [{"name": "wall"}, None, {"name": "Night Stand"}, {"name": "dragon"}],
                "frames": [
                    {
                        "polygon": [
                            {"object": 0, "x": [0, 64, 64, 0], "y": [0, 0, 48, 48]},
                            {"object": 2, "x": [10, 20, 20, 10], "y": [10, 10, 20, 20]},
                            {"object": 3, "x": [40, 50, 50, 40], "y": [10, 10, 20, 20]},
                            {"object": 0, "x": 3, "y": 4},
                        ]
                    }
                ],
            }
            foreign.write_json(folder / "annotation2Dfinal/index.json", content)
    return root


def test_depth_outlines_and_intrinsics(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"sunrgbd:{sunrgbd(tmp_path / 'set')}")
    frame = recording.frame(0)
    assert np.allclose(frame["depth"].data[10:], 2.5) and np.isnan(frame["depth"].data[0]).all()
    assert frame["rgb"].camera is not None and frame["rgb"].camera.fx == 60.0
    labels = recording.truth(0).labels
    assert labels is not None
    assert NAMES[labels[15, 15]] == "night_stand" and NAMES[labels[40, 5]] == "wall"
    assert recording.truth(1).labels is None
    assert recording.tags(0) == {"seq:kv1/NYUdata"}


def test_several_cameras_leave_intrinsics_out(imported: Import, tmp_path: Path) -> None:
    root = sunrgbd(tmp_path / "set")
    path = next(root.rglob("kv2/**/intrinsics.txt"))
    path.write_text("50 0 31.5 0 50 23.5 0 0 1")
    recording = imported(f"sunrgbd:{root}")
    assert not recording.rig.sensors and len(recording) == 2


def test_repacked(imported: Import, tmp_path: Path) -> None:
    root = tmp_path / "set"
    foreign.picture(root / "rgb/1.jpg", HEIGHT, WIDTH)
    for folder, value, dtype in (("depth", 20000, np.uint16), ("label", 37, np.uint8)):
        (root / folder).mkdir()
        image = np.full((HEIGHT, WIDTH), value, dtype)
        image[:10] = 0
        cv2.imwrite(str(root / folder / "1.png"), image)
    recording = imported(f"sunrgbd,depth_scale=0.0001:{root}")
    assert np.allclose(recording.frame(0)["depth"].data[20:], 2.0)
    labels = recording.truth(0).labels
    assert labels is not None and set(np.unique(labels)) == {36, 255}
    assert recording.info.seg_classes[36].name == "bag"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("intrinsics.txt", b"1 2 3", "is no 3x3 matrix"),
        ("intrinsics.txt", b"0 0 1 0 0 1 0 0 1", "intrinsics.txt"),
        ("annotation2Dfinal/index.json", b"{", "not JSON"),
        ("annotation2Dfinal/index.json", b'{"objects": [], "frames": 3}', "'frames' is no list"),
        ("depth_bfx/a.png", b"\x89PNG", "a.png"),
        ("image/b.jpg", b"x", "holds 2 files"),
    ],
)
def test_what_is_wrong_is_named(
    refused: Any, tmp_path: Path, file: str, content: bytes, expected: str
) -> None:
    root = sunrgbd(tmp_path / "set")
    (root / "kv1/NYUdata/NYU0001" / file).write_bytes(content)
    assert expected in refused(f"sunrgbd:{root}")


@given(depth=st.integers(0, 65535))
def test_turned_bits_come_back(depth: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "depth.png"
    cv2.imwrite(str(path), turned(np.full((2, 2), depth, np.uint16)))
    assert (millimetres(path) == depth).all()


@given(st.text(max_size=20))
def test_any_name_is_a_class_or_none(name: str) -> None:
    assert UNLABELED <= place_of(name) < 37


def test_repacked_with_folders_of_splits(imported: Import, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part in ("train", "valid", "test"):
        foreign.picture(root / "rgb" / part / "1.jpg", HEIGHT, WIDTH)
        for folder, value, dtype in (("depth", 2000, np.uint16), ("label", 5, np.uint8)):
            (root / folder / part).mkdir(parents=True)
            image = np.full((HEIGHT, WIDTH), value, dtype)
            cv2.imwrite(str(root / folder / part / "1.png"), image)
    recording = imported(f"sunrgbd:{root}")
    assert sorted(t for i in range(3) for t in recording.tags(i)) == ["test", "train", "val"]
    assert all((recording.truth(i).labels == 4).all() for i in range(3))

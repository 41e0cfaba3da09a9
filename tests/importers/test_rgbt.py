"""Colors and thermal infrared: four channels in one PNG, folders, 16 bit counts, lists; and by readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import

from perception.data import open_recording

HEIGHT, WIDTH = 24, 32


def mfnet(root: Path) -> Path:
    """Three pictures of four channels with the lists of their splits, with CRLF."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in ("00001D", "00002N", "00003D"):
        image = rng.integers(0, 255, (HEIGHT, WIDTH, 4), np.uint8)
        cv2.imwrite(str(root / f"images/{name}.png"), image)
        labels = rng.integers(0, 9, (HEIGHT, WIDTH)).astype(np.uint8)
        cv2.imwrite(str(root / f"labels/{name}.png"), labels)
    for split, name in (("train", "00001D"), ("val", "00002N"), ("test", "00003D")):
        (root / f"{split}.txt").write_bytes(f"{name}\r\n\r\n".encode())
    return root


def test_four_channels_are_two_sensors(imported: Import, tmp_path: Path) -> None:
    root = mfnet(tmp_path / "set")
    recording = imported(f"mfnet:{root}")
    frame = recording.frame(1)
    stored = cv2.imread(str(root / "images/00002N.png"), cv2.IMREAD_UNCHANGED)
    assert (frame["rgb"].data == stored[..., 2::-1]).all()
    assert (frame["thermal"].data == stored[..., 3]).all()
    assert frame["thermal"].unit == "counts8"
    assert [recording.tags(i) for i in range(3)] == [
        {"train", "day"},
        {"val", "night"},
        {"test", "day"},
    ]
    labels = cv2.imread(str(root / "labels/00002N.png"), cv2.IMREAD_UNCHANGED)
    assert (recording.truth(1).labels == labels).all()


def test_a_list_names_what_is_not_there(refused: Any, tmp_path: Path) -> None:
    root = mfnet(tmp_path / "set")
    (root / "val.txt").write_text("00002N\n00009N\n")
    assert "val.txt:2: there is no picture '00009N'" in refused(f"mfnet:{root}")


def test_three_channels_without_infrared(refused: Any, tmp_path: Path) -> None:
    root = mfnet(tmp_path / "set")
    foreign.picture(root / "images/00001D.png", HEIGHT, WIDTH)
    assert "00001D.png: is no PNG of four" in refused(f"mfnet:{root}")


def pst900(root: Path) -> Path:
    """Folders of train and test, whose thermal values are of 8 and of 16 bits."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 5), ("test", 2)):
        for index in range(count):
            name = f"{index}_bag1_rect_rgb_frame{index:010d}.png"
            foreign.picture(root / split / "rgb" / name, HEIGHT, WIDTH, seed=index)
            for folder, most, dtype in (
                ("thermal", 255, np.uint8),
                ("thermal_raw", 9000, np.uint16),
                ("depth", 9000, np.uint16),
                ("labels", 5, np.uint8),
            ):
                (root / split / folder).mkdir(exist_ok=True)
                values = rng.integers(most // 3, most, (HEIGHT, WIDTH)).astype(dtype)
                cv2.imwrite(str(root / split / folder / name), values)
    return root


def test_folders_of_splits(imported: Import, tmp_path: Path) -> None:
    root = pst900(tmp_path / "set")
    recording = imported(f"pst900,raw=true,depth=true:{root}")
    assert recording.frame(0)["thermal"].unit == "counts16"
    stored = cv2.imread(str(next((root / "train/depth").iterdir())), cv2.IMREAD_UNCHANGED)
    assert 3.0 < float(np.median(recording.frame(0)["depth"].data)) < 9.0
    assert stored.dtype == np.uint16
    train, val = (open_recording("folder", recording.root, split=s) for s in ("train", "val"))
    assert len(train) == 4 and len(val) == 1  # of those of train, as there is no val
    assert all("test" not in r.tags(i) for r in (train, val) for i in range(len(r)))


def test_a_missing_partner_is_named(refused: Any, tmp_path: Path) -> None:
    root = pst900(tmp_path / "set")
    next((root / "train/thermal").iterdir()).unlink()
    assert "train/thermal" in refused(f"pst900:{root}")


def test_ones_own_pairs(imported: Import, tmp_path: Path) -> None:
    root = mfnet(tmp_path / "set")
    (root / "classes.txt").write_text("\n".join("abcdefghi"), encoding="utf-8")
    recording = imported(f"rgbt:{root}", "--size", "64x32", check=False)
    assert [c.name for c in recording.info.seg_classes] == list("abcdefghi")
    assert recording.frame(0)["thermal"].data.shape == (32, 64)
    assert recording.truth(0).labels.shape == (32, 64)  # type: ignore[union-attr]


@pytest.mark.realdata
def test_a_set_that_there_is_a_reader_for(imported: Import, real_data: Path) -> None:
    source = open_recording("msrs", real_data / "msrs")
    recording = imported(f"msrs:{real_data / 'msrs'}", "--limit", "6", check=False)
    assert len(recording) == 6 and recording.info.det_classes == source.info.det_classes
    index = source.ids.index(recording.ids[3])
    for sensor in ("rgb", "thermal"):
        assert (recording.frame(3)[sensor].data == source.frame(index)[sensor].data).all()
    mine, theirs = recording.truth(3).boxes, source.truth(index).boxes
    assert mine is not None and theirs is not None
    assert np.allclose(mine.xyxy, theirs.xyxy.clip(0, [640, 480] * 2), atol=0.01)


def test_a_recording_of_our_own_is_imported_again(imported: Import, simulated: Path) -> None:
    recording = imported(f"folder:{simulated}", "--classes", "person,vehicle", check=False)
    source = open_recording("folder", simulated)
    assert recording.ids == source.ids
    for sensor in ("rgb", "thermal", "lidar"):
        mine, theirs = recording.frame(2)[sensor], source.frame(2)[sensor]
        assert np.allclose(mine.data, theirs.data, atol=0.006, equal_nan=True)
    assert recording.frame(2)["lidar"].camera == source.frame(2)["lidar"].camera
    assert [c.name for c in recording.info.det_classes] == ["person", "vehicle"]


def test_folders_of_splits_within_those_of_the_sensors(imported: Import, tmp_path: Path) -> None:
    root = mfnet(tmp_path / "set")
    for folder in ("images", "labels"):
        for split, name in (("train", "00001D"), ("validation", "00002N"), ("test", "00003D")):
            (root / folder / split).mkdir()
            path = root / folder / f"{name}.png"
            path.rename(root / folder / split / path.name)
            (root / f"{split}.txt").unlink(missing_ok=True)
    recording = imported(f"mfnet:{root}")
    tags = [recording.tags(i) for i in range(3)]
    for tag in ({"train", "day"}, {"val", "night"}, {"test", "day"}):
        assert tag in tags
    assert all(recording.truth(i).labels is not None for i in range(3))


def test_what_is_no_such_set_says_what_is_expected(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert "no folder of color pictures (rgb" in refused(f"mfnet:{tmp_path / 'set'}")

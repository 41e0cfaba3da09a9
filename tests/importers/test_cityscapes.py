"""Cityscapes: ids of labels and of training, boxes of instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import

from perception.importers.cityscapes import NAMES, TRAINED

HEIGHT, WIDTH = 32, 64


def cityscapes(root: Path) -> Path:
    """Two splits of one city, and a test picture whose masks are blank."""
    for number, split in enumerate(("train", "val", "test")):
        stem = f"bonn_{number:06d}_000019"
        foreign.picture(
            root / f"leftImg8bit/{split}/bonn/{stem}_leftImg8bit.png", HEIGHT, WIDTH, seed=number
        )
        truth = root / f"gtFine/{split}/bonn"
        truth.mkdir(parents=True)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        instances = labels.astype(np.uint16)
        if split != "test":
            labels[16:], labels[:16] = 7, 23  # road, sky
            labels[8:20, 10:20] = labels[8:20, 30:40] = 26
            labels[8:20, 50:60] = 24
            labels[:2] = 3
            instances = labels.astype(np.uint16)
            instances[8:20, 10:20], instances[8:20, 30:40] = 26000, 26001  # persons are a group
        cv2.imwrite(str(truth / f"{stem}_gtFine_labelIds.png"), labels)
        cv2.imwrite(str(truth / f"{stem}_gtFine_instanceIds.png"), instances)
    return root


def test_trained_classes_and_boxes(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"cityscapes:{cityscapes(tmp_path / 'set')}", check=False)
    assert len(recording.info.seg_classes) == 19 and recording.info.seg_classes[13].name == "car"
    assert [recording.tags(i) for i in range(3)] == [
        {"train", "seq:bonn_000000"},
        {"val", "seq:bonn_000001"},
        {"test", "seq:bonn_000002"},
    ]
    truth = recording.truth(0)
    assert truth.labels is not None and truth.boxes is not None
    assert truth.labels[30, 0] == 0 and truth.labels[10, 15] == 13 and truth.labels[0, 0] == 255
    boxes = truth.boxes
    assert boxes.xyxy.round().tolist() == [[50, 8, 60, 20], [10, 8, 20, 20], [30, 8, 40, 20]]
    names = [recording.info.det_classes[k].name for k in boxes.class_ids]
    assert names == ["person", "car", "car"] and boxes.ignore.tolist() == [True, False, False]
    test = recording.truth(2)
    assert test.labels is None and test.boxes is None


def test_all_classes(imported: Import, tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "set")
    recording = imported(f"cityscapes,ids=all,boxes=false:{root}", check=False)
    assert len(recording.info.seg_classes) == 30 and not recording.info.det_classes
    labels = recording.truth(0).labels
    assert labels is not None and labels[30, 0] == 7 - 4


def test_ids_of_training_alone(imported: Import, tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "set")
    table = np.full(256, 255, np.uint8)
    table[list(TRAINED)] = np.arange(19)
    for path in root.rglob("*_labelIds.png"):
        ids = table[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)]
        cv2.imwrite(str(path).replace("labelIds", "labelTrainIds"), ids)
    recording = imported(f"cityscapes:{root}", check=False)
    first = recording.truth(0).labels
    for path in root.rglob("*_labelIds.png"):
        path.unlink()
    other = tmp_path / "other"
    from perception.cli.main import main
    from perception.data.folder import FolderRecording

    assert main(["data", "import", f"cityscapes:{root}", "--out", str(other)]) == 0
    again = FolderRecording(other).truth(0).labels
    assert first is not None and again is not None and (first == again).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("cityscapes,ids=trainn", "did you mean 'train'"), ("cityscapes,ids=3", "ids is a text")],
)
def test_wrong_options(refused: Any, tmp_path: Path, kind: str, expected: str) -> None:
    assert expected in refused(f"{kind}:{cityscapes(tmp_path / 'set')}")


def test_an_unknown_id_is_named(refused: Any, tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "set")
    path = next(root.rglob("train/bonn/*_labelIds.png"))
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 40, np.uint8))
    assert f"{path.name}: holds id 40" in refused(f"cityscapes:{root}")


def test_names_are_34() -> None:
    assert len(NAMES) == 34 and NAMES[33] == "bicycle" and NAMES[7] == "road"

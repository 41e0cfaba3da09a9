"""YOLO: `data.yaml` as people write it, rows, outlines, empty and missing texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st

from perception.data import open_recording
from perception.errors import AnySenseError
from perception.importers.yolo import _Rows


def test_splits_boxes_and_what_nobody_looked_at(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"yolo:{foreign.yolo(tmp_path / 'set')}")
    assert open_recording("folder", recording.root, split="val").ids == ["val0", "val1"]
    truth = {n: recording.boxes(n) for n in recording.ids}
    assert truth["train2"] is None  # no text
    assert truth["train3"] is not None and not len(truth["train3"].xyxy)  # an empty one
    boxes = truth["train0"]
    assert boxes is not None and boxes.class_ids.tolist() == [1, 0]
    assert np.allclose(boxes.xyxy[0], [24, 12, 40, 36], atol=1e-3)


def test_missing_texts_are_background_by_choice_alone(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    recording = imported(f"yolo:{root}", "--missing-boxes", "background")
    assert recording.boxes("train2") is not None


def test_outlines_are_boxes_and_masks(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    (root / "labels/train/train0.txt").write_text("1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    recording = imported(f"yolo,labels=true:{root}", check=False)
    truth = recording.truth(recording.ids.index("train0"))
    assert truth.boxes is not None and np.allclose(truth.boxes.xyxy, [[16, 12, 32, 36]], atol=1e-3)
    assert truth.labels is not None and truth.labels[14, 30] == 2 and truth.labels[34, 18] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/content/datasets/set"},
        {"path": "../nowhere", "train": "../train/images", "val": "/kaggle/x/valid/images"},
        {"path": None, "train": ["images/train"], "val": "images/val"},
        {"names": ["person", "car"], "nc": 2},
    ],
)
def test_paths_written_elsewhere(imported: Import, tmp_path: Path, changes: dict[str, Any]) -> None:
    root = foreign.yolo(tmp_path / "set", **changes)
    if "../train" in str(changes):
        for split, folder in (("train", "train"), ("val", "valid")):
            for kind in ("images", "labels"):
                (root / folder).mkdir(exist_ok=True)
                (root / kind / split).rename(root / folder / kind)
    assert len(imported(f"yolo:{root}").ids) == 6


def test_a_list_of_pictures(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set", train="train.txt")
    lines = "\ufeff./images/train/train0.jpg\r\n/elsewhere/set/images/train/train3.jpg\r\n"
    (root / "train.txt").write_text(lines, encoding="utf-8")
    assert sorted(imported(f"yolo:{root}").ids) == ["train0", "train3", "val0", "val1"]


def test_names_of_any_script_and_links(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    (root / "images/train/train0.jpg").rename(root / "elsewhere.jpg")
    (root / "images/train/straße ö 1.JPG").symlink_to(root / "elsewhere.jpg")
    (root / "labels/train/train0.txt").rename(root / "labels/train/straße ö 1.txt")
    recording = imported(f"yolo:{root}")
    assert "straße ö 1" in recording.ids
    assert not (recording.root / "rgb/straße ö 1.JPG").is_symlink()


def test_without_a_yaml(imported: Import, tmp_path: Path) -> None:
    root = tmp_path / "set"
    foreign.picture(root / "a.png")
    (root / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    (root / "classes.txt").write_text("dog\ncat\n")
    recording = imported(f"yolo:{root}")
    assert [c.name for c in recording.info.det_classes] == ["dog", "cat"]


ROWS = {
    "0 0.5 0.5 0.2": "4 numbers",
    "0 0.5 0.5 0.2 x": "not numbers",
    "2 0.5 0.5 0.2 0.2": "there is no class 2 of 2",
    "-1 0.5 0.5 0.2 0.2": "there is no class -1",
    "0 100 50 20 20": "outside the picture",
    "0 0.5 0.5 nan 0.2": "not finite",
    "0.5 0.5 0.5 0.2 0.2": "not finite numbers after a class number",
}


@pytest.mark.parametrize("row", ROWS)
def test_wrong_rows_are_named(refused: Any, tmp_path: Path, row: str) -> None:
    root = foreign.yolo(tmp_path / "set")
    (root / "labels/train/train0.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{row}\n")
    line = refused(f"yolo:{root}")
    assert "train0.txt:2" in line and ROWS[row] in line


YAMLS: dict[str, tuple[dict[str, Any], str]] = {
    "names": ({"names": None}, "has no 'names'"),
    "number": ({"names": {"x": "a"}}, "'x' is no class number"),
    "nc": ({"nc": 1}, "nc is 1, but there is a class 1"),
    "train": ({"train": "images/none"}, "train: images/none is missing"),
    "path": ({"train": 3}, "train: '3' is no path"),
    "too long": ({"train": "x" * 300}, "data.yaml: train: xxx"),
    "nobody": ({"path": "~nobody_here/x", "train": "images/none"}, "images/none is missing"),
    "both": ({"val": "images/train"}, "is of train and of val"),
}


@pytest.mark.parametrize("fault", YAMLS)
def test_a_wrong_description_is_named(refused: Any, tmp_path: Path, fault: str) -> None:
    changes, expected = YAMLS[fault]
    assert expected in refused(f"yolo:{foreign.yolo(tmp_path / 'set', **changes)}")


def test_pictures_of_several_sizes(refused: Any, imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    foreign.picture(root / "images/train/train0.jpg", 64, 64)
    assert "--size 64x48" in refused(f"yolo:{root}")
    recording = imported(f"yolo:{root}", "--size", "64x48")
    boxes = recording.boxes("train0")
    assert boxes is not None and np.allclose(boxes.xyxy[0], [8 + 18, 12, 8 + 30, 36], atol=0.01)
    image = recording.frame(recording.ids.index("train0"))["rgb"].data
    assert image.shape == (48, 64, 3) and (image[:, :8] == 114).all()


@given(text=st.text(alphabet="0123456789.-einfa #\n\t", max_size=60))
def test_any_text_is_rows_or_one_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "rows"
    foreign.picture(folder / "a.png")
    (folder / "a.txt").write_text(text)
    try:
        marks = _Rows(["a", "b"], True, False).marks(folder / "a.png")
    except AnySenseError as error:
        assert "a.txt:" in error.where
    else:
        assert marks.boxes is not None and np.isfinite(marks.boxes.xyxy).all()

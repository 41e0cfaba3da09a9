"""COCO: boxes, masks, gaps in ids, crowds, turned pictures, and files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from perception.errors import AnySenseError
from perception.importers.coco import turned_box
from perception.importers.masks import bounds_of, mask_of_polygons, mask_of_runs


def test_boxes_and_classes_of_ids_with_gaps(imported: Import, tmp_path: Path) -> None:
    recording = imported(f"coco:{foreign.coco(tmp_path / 'set')}")
    assert [c.name for c in recording.info.det_classes] == ["person", "car"]
    boxes = recording.truth(0).boxes
    assert boxes is not None
    assert np.allclose(boxes.xyxy, [[4, 8, 14, 28], [30, 10, 60, 30]], atol=1e-3)
    assert boxes.class_ids.tolist() == [0, 1]
    assert recording.tags(0) == {"train"}
    source = (tmp_path / "set/train2017/a.jpg").read_bytes()
    assert (recording.root / "rgb/a.jpg").read_bytes() == source


def test_masks_have_the_smaller_object_on_top(imported: Import, tmp_path: Path) -> None:
    content = foreign.coco_file()
    content["annotations"][0] |= {"segmentation": [[40, 15, 50, 15, 50, 25, 40, 25]]}
    root = foreign.coco(tmp_path / "set", annotations=content["annotations"])
    recording = imported(f"coco,labels=true:{root}")
    labels = recording.truth(0).labels
    assert [c.name for c in recording.info.seg_classes] == ["background", "person", "car"]
    assert labels is not None
    assert labels[20, 45] == 1 and labels[12, 45] == 2 and labels[0, 0] == 0
    assert abs(int((labels == 1).sum()) - 100) <= 22  # the outline's own pixels may count


@pytest.mark.parametrize("compressed", [False, True])
def test_run_length_codes(imported: Import, tmp_path: Path, compressed: bool) -> None:
    mask = np.zeros((48, 64), bool)
    mask[5:9, 7:20] = True
    runs = foreign.runs_of(mask)
    code = {"size": [48, 64], "counts": foreign.text_of(runs) if compressed else runs}
    crowd = {"id": 3, "image_id": 7, "category_id": 3, "iscrowd": 1, "bbox": [7, 5, 13, 4],
             "segmentation": code}  # fmt: skip
    root = foreign.coco(tmp_path / "set", annotations=[crowd])
    recording = imported(f"coco,labels=true:{root}", check=False)
    truth = recording.truth(0)
    assert truth.boxes is not None and truth.boxes.ignore.tolist() == [True]
    assert truth.boxes.xyxy.round(3).tolist() == [[7, 5, 20, 9]]
    assert truth.labels is not None and ((truth.labels == 1) == mask).all()


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_length_codes_come_back(mask: np.ndarray) -> None:
    runs = foreign.runs_of(mask)
    for counts in (runs, foreign.text_of(runs)):
        assert (mask_of_runs(counts, mask.shape, "") == mask).all()


@given(
    st.one_of(st.text(), st.lists(st.integers()), st.none(), st.binary()),
    st.one_of(st.lists(st.integers(-3, 40), max_size=3), st.none(), st.lists(st.text())),
)
def test_any_code_is_a_mask_or_one_error(counts: Any, size: Any) -> None:
    try:
        mask = mask_of_runs(counts, size, "x")
    except AnySenseError as error:
        assert error.where
    else:
        assert list(mask.shape) == size


@given(st.integers(1, 8), st.data())
def test_boxes_turn_with_their_picture(orientation: int, data: st.DataObject) -> None:
    from perception.adapters.exif import upright

    mask = np.zeros((6, 9), bool)
    x0, y0 = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 4))
    x1, y1 = data.draw(st.integers(x0 + 1, 9)), data.draw(st.integers(y0 + 1, 6))
    mask[y0:y1, x0:x1] = True
    turned = turned_box((x0, y0, x1, y1), (6, 9), orientation)
    assert turned == bounds_of(upright(mask, orientation))


def test_a_polygon_along_pixel_edges_is_their_box() -> None:
    mask = mask_of_polygons([[2, 3, 7, 3, 7, 5, 2, 5]], (10, 10))
    assert mask[3:5, 2:7].all()
    assert mask.sum() <= 6 * 3  # the filler counts what the outline touches


@pytest.mark.parametrize(("size", "box"), [((48, 64), (20, 4, 40, 14)), ((64, 48), (4, 8, 14, 28))])
def test_a_turned_picture(
    imported: Import, tmp_path: Path, size: tuple[int, int], box: tuple[float, ...]
) -> None:
    """EXIF 6: the first stored row is the right edge.  The JSON's size says which raster it means."""
    images = [{"id": 7, "file_name": "a.jpg", "height": size[0], "width": size[1]}]
    root = foreign.coco(tmp_path / "set", images=images)
    foreign.with_orientation(root / "train2017/a.jpg", 6)
    recording = imported(f"coco:{root}", "--classes", "person")
    assert (recording.layout.height, recording.layout.width) == (64, 48)
    boxes = recording.truth(0).boxes
    assert boxes is not None and np.allclose(boxes.xyxy[0], box, atol=1e-3)


def test_an_exported_set_with_splits_in_folders(imported: Import, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "valid"):
        foreign.picture(root / split / "a.jpg", seed=len(split))
        foreign.write_json(root / split / "_annotations.coco.json", foreign.coco_file())
    recording = imported(f"coco:{root}")
    assert sorted(recording.ids) == ["train_a", "val_a"]
    val = FolderVal(recording.root)
    assert val == ["val_a"]


def FolderVal(root: Path) -> list[str]:
    from perception.data import open_recording

    return open_recording("folder", root, split="val").ids


def test_images_nobody_annotated(imported: Import, tmp_path: Path) -> None:
    content = foreign.coco_file()
    del content["annotations"]
    root = tmp_path / "set"
    foreign.picture(root / "test2017/a.jpg")
    foreign.write_json(root / "annotations/instances_test2017.json", content)
    recording = imported(f"coco:{root}", "--missing-boxes", "background", check=False)
    assert recording.truth(0).boxes is None


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"images": 3}, "'images' is no list"),
    "no size": ({"images": [{"id": 7, "file_name": "a.jpg"}]}, "images[0]: has no 'height'"),
    "too long": (
        {"images": [{"id": 7, "file_name": "é" * 200, "height": 48, "width": 64}]},
        "é' is missing",
    ),
    "missing": (
        {"images": [{"id": 7, "file_name": "b.jpg", "height": 48, "width": 64}]},
        "image 'b.jpg' is missing",
    ),
    "outside": (
        {"images": [{"id": 7, "file_name": "../a.jpg", "height": 48, "width": 64}]},
        "leads outside",
    ),
    "category": ({"categories": []}, "annotations[0]: there is no category 3"),
    "twice": (
        {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]},
        "category 3 is there twice",
    ),
    "orphan": (
        {"annotations": [{"id": 1, "image_id": 8, "category_id": 3, "bbox": [1, 1, 2, 2]}]},
        "annotations[0]: is of image 8",
    ),
    "NaN": (
        {"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, float("nan")]}]},
        "'bbox' is no list of 4 numbers",
    ),
    "size": (
        {"images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 64}]},
        "is 64x48, the JSON says 64x40",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_named(refused: Any, tmp_path: Path, fault: str) -> None:
    changes, expected = WRONG[fault]
    root = foreign.coco(tmp_path / "set", **changes)
    line = refused(f"coco:{root}")
    assert expected in line and "set" in line


def test_a_damaged_picture_is_named(refused: Any, tmp_path: Path) -> None:
    root = foreign.coco(tmp_path / "set")
    path = root / "train2017/a.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert "a.jpg" in refused(f"coco:{root}")


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["images", "annotations", "categories", "id", "image_id", "category_id", "bbox",
                 "file_name", "height", "width", "segmentation", "counts", "size", "name"]
            ),
            inner,
            max_size=6,
        ),
        max_leaves=30,
    )
)  # fmt: skip
def test_any_json_is_read_or_one_error(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from perception.importers.coco import coco

    path = foreign.write_json(tmp_path_factory.mktemp("any") / "a.json", content)
    try:
        for item in coco(path, labels=True).items:
            item.marks()
    except AnySenseError as error:
        assert error.where

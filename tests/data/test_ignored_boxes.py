"""Boxes to be ignored: as they are stored, read, counted, judged and learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.data.base import Boxes, ClassInfo
from perception.data.check import check_folder
from perception.data.files import read_yolo_boxes
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.errors import DataError
from perception.metrics import average_precision
from perception.tasks.detections import Detections
from perception.training.tasks.boxes2d import BOXES2D, auxiliary_detection_loss, detection_loss
from perception.viz.recording_page import count

H, W = 40, 60
KINDS = (ClassInfo(3, "person", (1, 2, 3)), ClassInfo(7, "car", (3, 2, 1)))


def write(root: Path, *frames: Boxes) -> FolderRecording:
    info = folder_info(
        name="made", modalities=("rgb",), size=(H, W), seg_classes=(), det_classes=KINDS
    )
    with FolderWriter(root, info) as writer:
        for index, boxes in enumerate(frames):
            picture = np.random.default_rng(index).integers(0, 256, (H, W, 3), np.uint8)
            writer.add(f"{index:03}", stamp_ns=index * 10**8, rgb=picture, boxes=boxes)
    return FolderRecording(root)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, W - 2), st.integers(0, H - 2), st.integers(0, 1), st.booleans()),
        max_size=6,
    )
)
def test_they_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, bool]]
) -> None:
    given = Boxes.of(
        [(x, y, W, H) for x, y, *_ in rows], [r[2] for r in rows], [r[3] for r in rows]
    )
    found = write(tmp_path_factory.mktemp("r") / "made", given).truth(0).boxes
    assert found is not None and np.allclose(found.xyxy, given.xyxy, atol=1e-3)
    assert (found.class_ids == given.class_ids).all() and (found.ignore == given.ignore).all()


def test_a_row_says_it_with_its_last_word(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("3 .5 .5 .1 .1 ignore  # a crowd\n3 .5 .5 .1 .1 # ignore\n")
    assert read_yolo_boxes(path, (H, W), (3, 7)).ignore.tolist() == [True, False]


@pytest.mark.parametrize(
    "row", ["3 .5 .5 .1 .1 ignored", "3 .5 .5 .1 .1 1", "ignore", "3 .5 ignore .1 .1",
            "3 .5 .5 .1 ignore", "3 .5 .5 .1 .1 ignore ignore", "4 .5 .5 .1 .1 ignore"]
)  # fmt: skip
def test_other_words_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"7 .5 .5 .1 .1\n{row}\n")
    with pytest.raises(DataError, match="a.txt:2: not a box") as caught:
        read_yolo_boxes(path, (H, W), (3, 7))
    assert "ignore" in caught.value.hint


def test_they_are_counted_apart(tmp_path: Path) -> None:
    region, person = (0, 0, 30, 30), (5, 5, 10, 10)
    recording = write(
        tmp_path / "made", Boxes.of([region, person], [0, 0], [True, False]),
        Boxes.of([region], [0], [True]),
    )  # fmt: skip
    found = count(recording, {})
    assert sum(found.boxes["person"].values()) == 1
    assert sum(found.boxes["(ignored)"].values()) == 2
    assert sum(found.background.values()) == 1
    assert not [f for f in check_folder(recording.root) if f.severity == "error"]


def test_a_found_box_in_a_region_counts_neither_way() -> None:
    """A person in a crowd is a small part of it."""
    truth = Boxes.of([(0, 0, 10, 10), (20, 0, 60, 40)], [0, 0], [False, True])
    xyxy = np.array([[25, 5, 30, 15], [40, 5, 45, 15], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    inside = Detections(xyxy, scores, np.zeros(3, np.int64))
    assert average_precision([(inside, truth)], 2).ap == pytest.approx(1.0)
    other = Detections(xyxy, scores, np.array([1, 1, 0], np.int64))
    assert average_precision([(other, truth)], 2).ap == pytest.approx(1.0)  # no car is wanted
    half_out = Detections(xyxy - [[9, 0, 9, 0], [0] * 4, [0] * 4], scores, inside.class_ids)
    assert average_precision([(half_out, truth)], 2).ap == pytest.approx(0.5)


def test_nothing_is_learned_inside_one() -> None:
    torch.manual_seed(0)
    truth = Boxes.of([(0, 0, 32, 32), (0, 4, 14, 28)], [1, 1], [True, False])
    logits = {s: torch.randn(1, 2, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)}
    sides = {s: torch.rand(1, 4, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)}
    levels = {s: (logits[s], sides[s]) for s in logits}
    detection_loss(levels, [Boxes.of(truth.xyxy[:1], [1], [True])]).backward()  # type: ignore[no-untyped-call]
    for stride, value in logits.items():
        assert value.grad is not None
        inside = value.grad[0, :, : 32 // stride, : 32 // stride]
        assert not inside.any() and value.grad.any()
    coarse = torch.randn(1, 2, 4, 4, requires_grad=True)
    auxiliary_detection_loss(coarse, [truth]).backward()  # type: ignore[no-untyped-call]
    assert coarse.grad is not None
    assert (coarse.grad[0, 0] > 0).all()  # no box is of this class: background everywhere
    taught = coarse.grad[0, 1, :2, :2]
    assert (taught[:, 0] < 0).all() and not taught[:, 1].any()
    alone = auxiliary_detection_loss(coarse, [Boxes.of(truth.xyxy[:1], [1], [True])])
    coarse.grad = None
    alone.backward()  # type: ignore[no-untyped-call]
    assert coarse.grad is not None and not coarse.grad[0, 1, :2, :2].any()
    assert (coarse.grad[0, 1, 2:] > 0).all()


def test_what_is_to_be_ignored_alone_is_no_object_to_judge() -> None:
    region = Boxes.of([(0, 0, 32, 32)], [0], [True])
    assert not BOXES2D.can_judge(region) and not BOXES2D.can_judge(Boxes.empty())
    assert BOXES2D.can_judge(Boxes.of([(0, 0, 32, 32), (1, 1, 5, 5)], [0, 0], [True, False]))

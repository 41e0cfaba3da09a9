"""What meters counted: taken by another one, its scores are those of one meter that saw all frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from found_boxes import Found
from hypothesis import given
from hypothesis import strategies as st

from perception.data.base import IGNORE_LABEL, Boxes, ClassInfo, RecordingInfo, Truth, TruthBoxes3d
from perception.tasks.boxes2d import Boxes2dSpec, BoxesMeter
from perception.tasks.boxes3d_meter import Boxes3dMeter
from perception.tasks.detections import Detections
from perception.tasks.segmentation import Segmentation, SegmentationMeter, SegmentationSpec
from perception.tasks.spec import ClassSpec
from perception.tasks.task import Meter

NAMES = ("a", "b", "c")
INFO = RecordingInfo(
    "folder",
    "drive",
    {"rgb": "rgb"},
    seg_classes=tuple(ClassInfo(i, n, (0, 0, 0)) for i, n in enumerate(NAMES)),
    det_classes=tuple(ClassInfo(i, n, (0, 0, 0)) for i, n in enumerate(NAMES)),
)
CLASSES = tuple(ClassSpec(id=i, name=n, color=(0, 0, 0)) for i, n in enumerate(NAMES))
Shown = list[tuple[Any, Truth]]


def pictures(rng: np.random.Generator, count: int) -> Shown:
    shown: Shown = []
    for _ in range(count):
        labels = rng.integers(0, 3, (6, 8)).astype(np.uint8)
        labels[0, : rng.integers(0, 8)] = IGNORE_LABEL
        sure = rng.random((6, 8)).astype(np.float32)
        value = Segmentation(rng.integers(0, 3, (6, 8)).astype(np.uint8), sure)
        shown.append((None if rng.random() < 0.2 else value, Truth(labels=labels)))
    return shown


def flat_boxes(rng: np.random.Generator, count: int) -> Shown:
    def some(most: int) -> np.ndarray[Any, Any]:
        corner = rng.integers(0, 12, (rng.integers(0, most), 2))
        return np.column_stack([corner, corner + 8]).astype(np.float32)

    shown: Shown = []
    for _ in range(count):
        found, true = some(6), some(4)
        scores = np.sort(rng.integers(1, 8, len(found)) / 8)[::-1].astype(
            np.float32
        )  # some are equal
        value = Detections(found, scores, rng.integers(0, 3, len(found)))
        ignore = (rng.random(len(true)) < 0.2).tolist()
        boxes = Boxes.of(true, rng.integers(0, 3, len(true)), ignore)
        shown.append((None if rng.random() < 0.2 else value, Truth(boxes=boxes)))
    return shown


def placed_boxes(rng: np.random.Generator, count: int) -> Shown:
    shown: Shown = []
    for _ in range(count):
        true, found = int(rng.integers(0, 4)), int(rng.integers(0, 5))
        places = rng.integers(0, 4, (8, 3)).astype(np.float32)
        truth = TruthBoxes3d.of(
            places[:true],
            np.full((true, 3), 2.0),
            rng.random(true),
            rng.integers(0, 3, true),
            velocity=rng.random((true, 2)),
        )
        value = Found(
            places[:found],
            np.full((found, 3), 2, np.float32),
            rng.random(found).astype(np.float32),
            rng.random((found, 2)).astype(np.float32),
            (rng.integers(1, 8, found) / 8).astype(np.float32),
            rng.integers(0, 3, found),
        )
        shown.append((None if rng.random() < 0.2 else value, Truth(boxes3d=truth)))
    return shown


KINDS: dict[str, tuple[Callable[[], Meter], Callable[[np.random.Generator, int], Shown]]] = {
    "segmentation": (
        lambda: SegmentationMeter(SegmentationSpec(classes=CLASSES), INFO),
        pictures,
    ),
    "boxes2d": (
        lambda: BoxesMeter(Boxes2dSpec(classes=CLASSES, strides=(8,)), INFO),
        flat_boxes,
    ),
    "boxes3d": (lambda: Boxes3dMeter(CLASSES, INFO), placed_boxes),
}


def fed(meter: Meter, shown: Shown, size: tuple[int, int] | None = None) -> Meter:
    for value, truth in shown:
        meter.add(value, truth, size)
    return meter


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), parts=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_the_sum_of_parts_is_the_whole(kind: str, seed: int, parts: list[int]) -> None:
    make, draw = KINDS[kind]
    shown = draw(np.random.default_rng(seed), sum(parts))
    whole, summed, at = fed(make(), shown), make(), 0
    for count in parts:
        counted = fed(make(), shown[at : at + count]).counted()
        assert counted is not None
        assert all(array.dtype.kind in "biuf" for array in counted.values())
        summed.take(counted)
        at += count
    # Sums of confidences depend on the order of additions, all else is the same to the bit.
    wanted, got = whole.scores(), summed.scores()
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is None or "ece" not in name:
            assert got[name] == value, name
        else:
            assert got[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert summed.per_class() == whole.per_class()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_counted_is_a_copy(kind: str) -> None:
    make, draw = KINDS[kind]
    shown = draw(np.random.default_rng(0), 12)
    meter = fed(make(), shown[:6])
    before = meter.counted()
    assert before is not None
    held = {name: array.copy() for name, array in before.items()}
    fed(meter, shown[6:])
    assert all(np.array_equal(before[name], array) for name, array in held.items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_meter_counted_is_refused(kind: str) -> None:
    make, draw = KINDS[kind]
    counted = dict(fed(make(), draw(np.random.default_rng(3), 8)).counted() or {})
    assert counted
    for name, array in counted.items():
        wrong = [array.astype(np.float16), array[None], np.zeros((2, 7), array.dtype)]
        if (
            array.size
            and array.dtype.kind in "if"
            and not name.endswith(
                ("xyxy", "center", "yaw", "velocity", "size", "scores", "attribute")
            )
        ):
            wrong.append(np.full_like(array, -1))
        for other in wrong:
            with pytest.raises(ValueError, match="."):
                make().take({**counted, name: other})
        with pytest.raises(KeyError):
            make().take({n: a for n, a in counted.items() if n != name})

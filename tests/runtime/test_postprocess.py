"""Labels and boxes against slow, obvious implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.runtime.postprocess import decode_detections, segment, suppress


def test_labels_are_the_argmax_of_the_interpolated_logits() -> None:
    import cv2

    logits = np.random.default_rng(0).normal(size=(7, 12, 16)).astype(np.float32)
    labels, confidence = segment(logits, (24, 32))
    fine = np.stack([cv2.resize(x, (32, 24)) for x in logits])
    assert np.array_equal(labels, fine.argmax(0))
    assert confidence.shape == (24, 32)


def test_confidence_is_the_softmax_probability() -> None:
    logits = np.zeros((4, 8, 8), np.float32)
    logits[2] = 1.0
    labels, confidence = segment(logits, (32, 32))
    assert (labels == 2).all()
    assert np.allclose(confidence, np.e / (np.e + 3), atol=1e-5)


def test_a_cell_decodes_to_its_box() -> None:
    logits = np.full((3, 4, 4), -9, np.float32)
    logits[1, 2, 3] = 2.0
    sides = np.zeros((4, 4, 4), np.float32)
    sides[:, 2, 3] = (1, 2, 3, 4)
    found = decode_detections({8: (logits, sides)}, score_threshold=0.5)
    # center (28, 20), sides 8, 16, 24, 32 pixels
    assert found.xyxy.tolist() == [[20.0, 4.0, 52.0, 52.0]]
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_no_cell_above_the_threshold_gives_no_box() -> None:
    maps = {
        s: (np.full((2, 4, 4), -9, np.float32), np.ones((4, 4, 4), np.float32)) for s in (8, 16)
    }
    assert len(decode_detections(maps)) == 0


boxes = st.lists(
    st.tuples(
        *[st.floats(0, 50, width=32)] * 2, *[st.floats(1, 40, width=32)] * 2, st.integers(0, 2)
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(boxes, st.floats(0.1, 0.9))
def test_suppression_keeps_no_two_overlapping_boxes_of_a_class(
    rows: list[tuple[float, ...]], iou: float
) -> None:
    from perception.metrics.detection import iou_matrix

    xyxy = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
    kinds = np.array([r[4] for r in rows], np.int64)
    keep = suppress(xyxy, kinds, iou)
    overlap = iou_matrix(xyxy, xyxy)
    for i in keep:
        assert all(i == j or kinds[i] != kinds[j] or overlap[i, j] <= iou + 1e-5 for j in keep)
    for j in set(range(len(rows))) - set(keep.tolist()):
        assert any(i < j and kinds[i] == kinds[j] and overlap[i, j] > iou - 1e-5 for i in keep)

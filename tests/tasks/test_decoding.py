"""Labels and boxes against slow, obvious implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.grid import GridMap, GridSpec
from perception.tasks.class_logits import label_confidence, label_pixels
from perception.tasks.detections import decode_detections, suppress
from perception.tasks.pictures import PICTURES, PicturesSpec, as_picture
from perception.tasks.task import TaskContext


def test_labels_are_the_argmax_of_the_interpolated_logits() -> None:
    import cv2

    logits = np.random.default_rng(0).normal(size=(7, 12, 16)).astype(np.float32)
    labels, confidence = label_pixels(logits, (24, 32)), label_confidence(logits, (24, 32))
    fine = np.stack([cv2.resize(x, (32, 24)) for x in logits])
    assert np.array_equal(labels, fine.argmax(0))
    assert confidence.shape == (24, 32)


def test_confidence_is_the_softmax_probability() -> None:
    logits = np.zeros((4, 8, 8), np.float32)
    logits[2] = 1.0
    labels, confidence = label_pixels(logits, (32, 32)), label_confidence(logits, (32, 32))
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


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    out=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    classes=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_labels_and_confidence_are_what_their_docstrings_say(
    size: tuple[int, int], out: tuple[int, int], classes: int, seed: int
) -> None:
    """Bilinear at twice the resolution, the winner of each pixel, the nearest of those."""
    import cv2

    logits = np.random.default_rng(seed).normal(size=(classes, *size)).astype(np.float32) * 5
    height, width = size
    fine = np.stack([cv2.resize(x, (2 * width, 2 * height)) for x in logits]).argmax(0)
    expected = cv2.resize(fine.astype(np.uint8), out[::-1], interpolation=cv2.INTER_NEAREST)
    labels = label_pixels(logits, out)
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected)
    exact = np.exp(logits.astype(np.float64))
    peak = (exact / exact.sum(0)).max(0).astype(np.float32)
    confidence = label_confidence(logits, out)
    assert confidence.dtype == np.float32 and confidence.shape == out
    wanted = cv2.resize(peak, out[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.allclose(confidence, wanted, atol=1e-4)


def test_the_first_of_equal_classes_wins() -> None:
    assert not label_pixels(np.zeros((4, 3, 3), np.float32), (6, 6)).any()


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[[3e38]], [[-3e38]]], np.float32)
    assert label_pixels(logits, (2, 2)).tolist() == [[0, 0], [0, 0]]
    with np.errstate(all="ignore"):
        assert label_confidence(logits, (2, 2)).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def _slow_decode(maps, threshold, iou, most, candidates):  # type: ignore[no-untyped-def]
    """Every cell and class in turn, then greedy suppression, as the docstring tells it."""
    found = []
    for stride in sorted(maps):
        logits, sides = (m.astype(np.float64) for m in maps[stride])
        for kind, row, column in np.ndindex(*logits.shape):
            score = 1 / (1 + np.exp(-logits[kind, row, column]))
            if score > threshold:
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                left, top, right, bottom = sides[:, row, column] * stride
                found.append((score, (x - left, y - top, x + right, y + bottom), kind))
    found.sort(key=lambda f: -f[0])
    kept: list[tuple[float, tuple[float, ...], int]] = []
    for score, box, kind in found[:candidates]:
        if all(k != kind or _iou(box, b) <= iou for _, b, k in kept):
            kept.append((score, box, kind))
    return kept[:most]


def _iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return width * height / (areas - width * height)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.05, 0.3, 0.5, 0.8]),
    iou=st.sampled_from([0.2, 0.6]),
    most=st.sampled_from([1, 3, 100]),
    candidates=st.sampled_from([2, 1000]),
)
def test_boxes_are_those_of_a_slow_decoder(
    seed: int, threshold: float, iou: float, most: int, candidates: int
) -> None:
    rng = np.random.default_rng(seed)
    maps = {}
    for stride, shape in ((8, (3, 4)), (16, (2, 2))):
        logits = rng.normal(-1, 2, (2, *shape)).astype(np.float32)
        maps[stride] = (logits, rng.uniform(0.2, 3, (4, *shape)).astype(np.float32))
    found = decode_detections(
        maps, score_threshold=threshold, nms_iou=iou, max_detections=most, candidates=candidates
    )
    wanted = _slow_decode(maps, threshold, iou, most, candidates)
    assert len(found) == len(wanted)
    assert found.xyxy.dtype == found.scores.dtype == np.float32
    assert np.allclose(found.scores, [w[0] for w in wanted], atol=1e-6)
    assert np.allclose(found.xyxy, np.array([w[1] for w in wanted]).reshape(-1, 4), atol=1e-4)
    assert found.class_ids.tolist() == [w[2] for w in wanted]


def test_the_limits_are_those_documented() -> None:
    """At least 0.3, overlap of 0.6, 100 boxes of at most 1000 candidates."""
    cells = np.full((1, 40, 40), 3.0, np.float32)
    maps = {8: (cells, np.full((4, 40, 40), 0.4, np.float32))}  # 1600 boxes that do not touch
    assert len(decode_detections(maps)) == 100
    assert len(decode_detections(maps, max_detections=5000)) == 1000
    for score, count in ((0.299, 0), (0.301, 1)):
        logits = np.full((1, 1, 1), np.log(score / (1 - score)), np.float32)
        assert len(decode_detections({8: (logits, np.ones((4, 1, 1), np.float32))})) == count
    for shift, count in ((0.24, 1), (0.26, 2)):  # of two boxes two cells wide: overlap 0.61, 0.59
        logits = np.array([[[5.0, 4.0]]], np.float32)
        sides = np.ones((4, 1, 2), np.float32)
        sides[0, 0, 1], sides[2, 0, 1] = 2 - 2 * shift, 2 * shift
        assert len(decode_detections({8: (logits, sides)})) == count


def test_boxes_that_touch_do_not_overlap() -> None:
    touching = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]], np.float32)
    assert suppress(touching, np.zeros(3, np.int64), 1e-6).tolist() == [0, 1, 2]
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 0.5).tolist() == []
    # One pixel of two boxes of sixteen: 1 of 31.
    corner = np.array([[0, 0, 4, 4], [3, 3, 7, 7]], np.float32)
    assert suppress(corner, np.zeros(2, np.int64), 1 / 31 + 1e-6).tolist() == [0, 1]
    assert suppress(corner, np.zeros(2, np.int64), 1 / 31 - 1e-6).tolist() == [0]


def test_boxes_beyond_all_images_do_no_harm() -> None:
    logits = np.full((1, 2, 2), 5, np.float32)
    sides = np.full((4, 2, 2), 3e38, np.float32)
    with np.errstate(over="ignore"):
        found = decode_detections({32: (logits, sides)})
    assert len(found) >= 1 and not np.isnan(found.xyxy).any()


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 3),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_pictures_are_the_values_in_bytes(channels: int, size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).uniform(-0.5, 1.5, (channels, *size)).astype(np.float32)
    picture = as_picture(image, size)
    assert picture.shape == (*size, channels) and picture.dtype == np.uint8
    wanted = np.round(np.clip(image, 0, 1) * 255).transpose(1, 2, 0)
    assert np.array_equal(picture, wanted)


def test_pictures_are_cropped_to_the_source() -> None:
    grid = GridMap.fit((4, 8), GridSpec(height=32, width=32, fit="letterbox"))
    fused = np.zeros((1, 3, 8, 8), np.float32)
    fused[:, :, :4] = 1.0  # the upper half is the source, the rest padding
    about = {"samples": {}, "fresh": frozenset(), "inputs": (), "values": {}, "parts": frozenset()}
    ctx = TaskContext(PicturesSpec(names=("fused",)), "rgb", {"rgb": grid}, **about)
    found = PICTURES.decode({"image_fused": fused}, ctx)
    assert set(found) == {"fused"} and found["fused"].shape == (4, 8, 3)
    assert (found["fused"] == 255).all()

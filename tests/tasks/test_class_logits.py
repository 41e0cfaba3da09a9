"""Labels that are compared where classes meet are those of comparing all classes at every pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.grid import GridMap, GridSpec
from perception.tasks import class_logits
from perception.tasks.class_logits import (
    Winners,
    energy,
    label_confidence,
    label_pixels,
    shares,
)
from perception.tasks.segmentation import SEGMENTATION, SegmentationSpec
from perception.tasks.spec import ClassSpec
from perception.tasks.task import TaskContext


def _plain_labels(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """All classes interpolated at all pixels."""
    height, width = logits.shape[1:]
    fine = np.stack([cv2.resize(x, (2 * width, 2 * height)) for x in logits]).argmax(0)
    return cv2.resize(fine.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)


def _plain_confidence(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    confidence = 1.0 / np.exp(logits - logits.max(axis=0)).sum(axis=0)
    return cv2.resize(confidence.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def _areas(seed: int, classes: int, height: int, width: int, grain: int) -> np.ndarray:
    """Logits of areas, as networks give them: smooth, with one or two classes ahead."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, height // grain + 2, width // grain + 2)).astype(np.float32)
    return (
        np.stack([cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC) for x in coarse])
        * 6
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 60),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    grain=st.sampled_from([1, 2, 5, 12, 40]),
    scale=st.sampled_from([1, 2, 3]),
    few=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_labels_and_confidence_are_those_of_every_pixel(
    seed: int, classes: int, height: int, width: int, grain: int, scale: int, few: float
) -> None:
    logits = _areas(seed, classes, height, width, grain)
    size = (scale * height, scale * width)
    with pytest.MonkeyPatch.context() as patch:
        # 1: only where classes meet, 0: everywhere
        patch.setattr(class_logits, "_most_mixed", lambda classes: few)
        labels = label_pixels(logits, size)
    wanted = _plain_labels(logits, size)
    # Cuts are interpolated by the same arithmetic, rounded alike but for the last columns of a few.
    assert labels.dtype == np.uint8 and (labels != wanted).mean() < 1e-3
    found, plain = label_confidence(logits, size), _plain_confidence(logits, size)
    # Of a single pixel numpy adds up the classes in another order.
    assert np.array_equal(found, plain) or (height * width == 1 and np.allclose(found, plain))


def test_a_class_that_wins_between_the_winners_of_the_corners() -> None:
    """It leads at none of the four logits, and between them it does."""
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0] = [[9, -9], [9, -9]]
    logits[1] = [[-9, 9], [-9, 9]]
    logits[2] = 6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_logits, "_most_mixed", lambda classes: 1.0)
        labels = label_pixels(np.tile(logits, (1, 3, 3)), (12, 12))
    assert (labels == 2).any()
    assert np.array_equal(labels, _plain_labels(np.tile(logits, (1, 3, 3)), (12, 12)))


@given(st.integers(0, 99), st.integers(0, 6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_equal_logits_go_to_the_first_class(seed: int, spread: int, side: int) -> None:
    """Whole numbers, many of which are equal, are interpolated without rounding."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, spread + 1, (9, 4 * side, 4 * side)).astype(np.float32)
    logits = np.repeat(np.repeat(logits[:, ::4, ::4], 4, 1), 4, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_logits, "_most_mixed", lambda classes: 1.0)
        labels = label_pixels(logits, (8 * side, 8 * side))
    assert np.array_equal(labels, _plain_labels(logits, (8 * side, 8 * side)))


def test_winners_are_the_first_largest() -> None:
    logits = np.random.default_rng(0).integers(0, 9, (256, 7, 5)).astype(np.float32)
    found = Winners.of(logits)
    assert np.array_equal(found.labels, logits.argmax(0))
    assert np.array_equal(found.peak, logits.max(0))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.7])
def test_energy_is_minus_the_scaled_log_sum_exp(temperature: float) -> None:
    logits = np.random.default_rng(1).normal(size=(6, 4, 5), scale=9).astype(np.float32)
    peak = logits.max(0)
    found = energy(shares(logits, peak, temperature), peak, temperature)
    wanted = -temperature * np.log(np.exp(logits.astype(np.float64) / temperature).sum(0))
    assert found.dtype == np.float32 and np.allclose(found, wanted, rtol=1e-5)


def _context(parts: set[str], temperature: float, confidence: float = 1.0) -> TaskContext:
    classes = tuple(ClassSpec(id=i, name=f"c{i}", color=(i, 0, 0)) for i in range(5))
    spec = SegmentationSpec(classes=classes, temperatures={"rgb": temperature})
    grid = GridMap.fit((48, 40), GridSpec(height=64, width=64, fit="letterbox"))
    return TaskContext(
        spec, "rgb", {"rgb": grid}, {}, frozenset(), ("rgb",), {}, frozenset(parts), confidence
    )


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_only_wanted_parts_are_made_and_all_are_of_the_pictures_size(temperature: float) -> None:
    logits = np.random.default_rng(2).normal(size=(1, 5, 16, 16), scale=3).astype(np.float32)
    every = SEGMENTATION.decode(
        {"seg_logits": logits}, _context({"labels", "confidence", "energy"}, temperature, 0.5)
    )
    cropped = logits[0, :, :, :13]
    assert every.labels.shape == every.confidence.shape == every.energy.shape == (48, 40)
    assert np.array_equal(every.labels, _plain_labels(cropped, (48, 40)))
    cooled = np.divide(cropped, np.float32(temperature))
    assert np.array_equal(every.confidence, _plain_confidence(cooled, (48, 40)) * np.float32(0.5))
    for part in ("labels", "confidence", "energy"):
        alone = SEGMENTATION.decode({"seg_logits": logits}, _context({part}, temperature, 0.5))
        for name in ("labels", "confidence", "energy"):
            found = getattr(alone, name)
            assert (found is None) == (name != part)
            assert found is None or np.array_equal(found, getattr(every, name))

"""Calibration errors, risk-coverage curves and temperatures, against cases by hand and slow oracles."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binom

from perception.data.base import Boxes
from perception.errors import InputError
from perception.metrics import ConfidenceHistogram, fit_temperature, matched
from perception.metrics.confidence import BINS, DRAWS
from perception.metrics.temperature import HIGHEST, LOWEST
from perception.tasks.detections import Detections


def _counted(confidence: object, right: object) -> ConfidenceHistogram:
    found = ConfidenceHistogram()
    found.add(np.asarray(confidence, np.float32), np.asarray(right, bool))
    return found


def _ece(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Equation 3 of Guo et al. as it stands there."""
    error = 0.0
    for m in range(1, BINS + 1):
        inside = (confidence > (m - 1) / BINS) & (confidence <= m / BINS)
        if m == 1:
            inside |= confidence == 0
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].astype(np.float64).mean())
            error += inside.sum() / len(confidence) * gap
    return float(error)


def _aurc(right: NDArray[np.bool_]) -> float:
    """Of answers in the order of falling confidence."""
    return float((np.cumsum(~right) / np.arange(1, len(right) + 1)).mean())


def test_a_case_by_hand() -> None:
    """Two bins: 0.9 thrice, two of them right; 0.5 once, wrong."""
    found = _counted([0.9, 0.9, 0.9, 0.5], [1, 1, 0, 0])
    assert found.ece() == pytest.approx(0.75 * abs(2 / 3 - 0.9) + 0.25 * 0.5)
    # Of three alike any may be the wrong one: at coverages 1, 2, 3 of 4 the risk is 1/3 on average.
    assert found.aurc() == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 2 / 4) / 4)
    assert len(found) == 4
    bins = found.reliability()
    assert (
        bins.count.sum() == 4 and bins.count[13] == 3 and bins.accuracy[13] == pytest.approx(2 / 3)
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_what_chance_alone_makes_of_the_error(seed: int, count: int) -> None:
    """Against the mean over the binomial distribution of each bin."""
    rng = np.random.default_rng(seed)
    bins = _counted(rng.random(count), rng.random(count) < 0.5).reliability()
    wanted = 0.0
    for number, chance in zip(bins.count, bins.confidence, strict=True):
        if number:
            hits = np.arange(number + 1)
            wanted += binom.pmf(hits, number, chance) @ np.abs(hits - number * chance)
    assert bins.by_chance() == pytest.approx(wanted / count, rel=1e-9, abs=1e-12)


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 1, width=32))
def test_how_often_chance_makes_as_much(count: int, hits: int, chance: float) -> None:
    """Of one bin, against the binomial distribution."""
    right = np.arange(count) < hits
    bins = _counted([chance] * count, right).reliability()
    own = float(bins.confidence[bins.count > 0][0])
    numbers = np.arange(count + 1)
    as_far = np.abs(numbers - count * own) >= np.abs(right.sum() - count * own) - 1e-11
    wanted = binom.pmf(numbers, count, own)[as_far].sum()
    spread = math.sqrt(wanted * max(0.0, 1 - wanted) / DRAWS) + 1 / DRAWS
    assert bins.as_large_by_chance() == pytest.approx(wanted, abs=6 * spread)


def test_chance_is_told_from_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(400)
    honest = _counted(sure, rng.random(400) < sure).reliability()
    boastful = _counted(sure, rng.random(400) < 0.7 * sure).reliability()
    assert honest.error() > 0.05 and honest.as_large_by_chance() > 0.1
    assert boastful.as_large_by_chance() == 0
    assert _counted([0, 1], [0, 1]).reliability().as_large_by_chance() == 1


def test_what_chance_makes_of_many_is_little() -> None:
    assert _counted(
        [0.7] * 10**6, [1, 0] * (10**6 // 2)
    ).reliability().by_chance() == pytest.approx(math.sqrt(2 * 0.7 * 0.3 / math.pi / 1e6), rel=1e-3)
    assert _counted([0, 1], [0, 1]).reliability().by_chance() == 0


def test_nothing_is_no_number() -> None:
    empty = ConfidenceHistogram()
    assert math.isnan(empty.ece()) and math.isnan(empty.aurc()) and math.isnan(empty.adaptive_ece())
    assert math.isnan(empty.reliability().by_chance())
    assert math.isnan(empty.reliability().as_large_by_chance())
    assert empty.scores() == {"ece": None, "aurc": None}
    assert _counted([], []).scores("box_") == {"box_ece": None, "box_aurc": None}


@pytest.mark.parametrize(
    ("sure", "right", "ece", "aurc"), [(1, 1, 0, 0), (1, 0, 1, 1), (0, 0, 0, 1)]
)
def test_the_ends(sure: float, right: int, ece: float, aurc: float) -> None:
    found = _counted([sure] * 5, [right] * 5)
    assert found.ece() == pytest.approx(ece) and found.aurc() == pytest.approx(aurc)


@given(st.integers(0, 2**32 - 1), st.integers(1, 1500), st.sampled_from([0.05, 1.0, 8.0]))
def test_against_the_definitions(seed: int, count: int, skew: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = (rng.random(count) ** skew).astype(np.float32)
    right = rng.random(count) < confidence**2
    found = _counted(confidence, right)
    assert found.ece() == pytest.approx(_ece(confidence, right), abs=1e-9)
    order = np.argsort(-confidence, kind="stable")
    # Steps of 1/1024 of the doubt leave few answers together.
    assert found.aurc() == pytest.approx(_aurc(right[order]), abs=4e-3)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.4, 0.7, 1.0]), st.booleans()), min_size=1, max_size=6
    )
)
def test_equal_confidences_count_in_all_orders(answers: list[tuple[float, bool]]) -> None:
    confidence = np.array([a for a, _ in answers], np.float32)
    right = np.array([b for _, b in answers])
    areas = [
        _aurc(right[list(order)])
        for order in permutations(range(len(answers)))
        if (np.diff(confidence[list(order)]) <= 0).all()
    ]
    assert _counted(confidence, right).aurc() == pytest.approx(np.mean(areas))


def test_many_equal_confidences() -> None:
    """Past the table of harmonic numbers, too: half of a million, all alike, are wrong at every coverage."""
    for count in (60, 70, 200, 10**6):
        assert _counted([0.5] * count, [0, 1] * (count // 2)).aurc() == pytest.approx(0.5)


def test_answers_next_to_certain_are_told_apart() -> None:
    """A wrong one at 1 - 1e-6 before or behind right ones at 1 - 1e-4 is not the same."""
    sure = np.array([1 - 1e-4] * 9 + [1 - 1e-6], np.float32)
    unsure = np.array([1 - 1e-6] * 9 + [1 - 1e-4], np.float32)
    right = np.array([True] * 9 + [False])
    assert _counted(sure, right).aurc() == pytest.approx(np.mean(1 / np.arange(1, 11)))
    assert _counted(unsure, right).aurc() == pytest.approx(0.01)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_in_parts_as_in_one(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.random((parts, 40)).astype(np.float32), rng.random((parts, 40)) < 0.5
    whole, joined, streamed = (
        _counted(confidence, right),
        ConfidenceHistogram(),
        ConfidenceHistogram(),
    )
    for sure, hit in zip(confidence, right, strict=True):
        joined.merge(_counted(sure, hit))
        streamed.add(sure, hit)
    for found in (joined, streamed):
        assert found.scores() == pytest.approx(whole.scores())
        assert found.adaptive_ece() == pytest.approx(whole.adaptive_ece())


@given(st.integers(0, 2**32 - 1), st.integers(15, 2000))
def test_adaptive_bins_hold_as_many_each(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(count).astype(np.float32)
    bins = _counted(confidence, rng.random(count) < 0.5).adaptive()
    assert bins.count.sum() == count and (np.diff(bins.edges) > 0).all()
    assert bins.edges[0] == 0 and bins.edges[-1] == 1
    assert abs(bins.count - count / BINS).max() <= 3 + count / 200
    for low, high, number in zip(bins.edges[:-1], bins.edges[1:], bins.count, strict=True):
        inside = ((confidence > low) & (confidence <= high)).sum()
        assert abs(int(inside) - int(number)) <= 1  # one may lie on an edge


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1, np.inf])
def test_confidences_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(InputError, match=r"within 0\.\.1"):
        _counted([0.5, wrong], [1, 1])
    with pytest.raises(InputError, match="differ"):
        _counted([0.5], [1, 1])


def test_rounding_beyond_one_is_not_refused() -> None:
    assert _counted([1 + 1e-7], [1]).ece() == 0


def test_boxes_are_right_where_they_match() -> None:
    rows = [(0, 0, 10, 10), (0, 0, 10, 10), (50, 50, 60, 60), (80, 80, 90, 90), (0, 0, 10, 10)]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    found = Detections(
        np.array(rows, np.float32), np.array(scores, np.float32), np.array([0, 0, 0, 0, 1])
    )
    truth = Boxes.of([rows[0], rows[2]], [0, 0], [False, True])
    sure, right = matched(found, truth, 2)
    # The second is a double, the third lies on an ignored box, the last is of another class.
    assert sure.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.5])
    assert right.tolist() == [True, False, False, False]
    none = matched(Detections.empty(), Boxes.empty(), 2)
    assert none[0].shape == none[1].shape == (0,)


def _likelihood(logits: NDArray[np.float32], truth: NDArray[np.int64], temperature: float) -> float:
    rows = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-rows[np.arange(len(truth)), truth].mean())


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(0.2, 6), st.sampled_from([0.3, 2, 20])
)
def test_the_temperature_is_the_best_one(
    seed: int, classes: int, true: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(400, classes)).astype(np.float32) * np.float32(spread)
    chances = softmax(logits.astype(np.float64) / true, axis=1).cumsum(axis=1)
    truth = (chances < rng.random((400, 1))).sum(axis=1).clip(0, classes - 1)
    found = fit_temperature(logits, truth)
    best = minimize_scalar(
        lambda log: _likelihood(logits, truth, math.exp(log)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert found.nll == pytest.approx(_likelihood(logits, truth, found.temperature), abs=1e-5)
    assert found.nll <= best.fun + 1e-5
    assert found.nll_before == pytest.approx(_likelihood(logits, truth, 1), abs=1e-5)
    assert found.nll <= found.nll_before + 1e-6
    assert found == fit_temperature(logits, truth)


def test_a_known_temperature_is_found() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(200_000, 6)).astype(np.float32) * 4
    truth = (softmax(logits / 2.5, axis=1).cumsum(axis=1) < rng.random((200_000, 1))).sum(axis=1)
    assert fit_temperature(logits, truth.clip(0, 5)).temperature == pytest.approx(2.5, rel=0.02)


def test_what_has_no_best_temperature_stays_within_bounds() -> None:
    logits = np.eye(4, dtype=np.float32)
    assert fit_temperature(logits, np.arange(4)).temperature == pytest.approx(LOWEST)
    assert fit_temperature(-logits, np.arange(4)).temperature == pytest.approx(HIGHEST)
    assert fit_temperature(np.zeros((4, 3), np.float32), np.zeros(4, np.int64)).temperature == 1
    assert fit_temperature(np.ones((4, 1), np.float32), np.zeros(4, np.int64)).temperature == 1
    # Certain of what is wrong, however far: 1e30 overflows nothing.
    assert fit_temperature(-1e30 * logits, np.arange(4)).temperature == pytest.approx(HIGHEST)


@pytest.mark.parametrize(
    ("logits", "truth", "text"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), "no samples"),
        (np.zeros((2, 3)), np.zeros(3, np.int64), "no samples"),
        (np.full((1, 3), np.nan), np.zeros(1, np.int64), "not finite"),
        (np.zeros((1, 3)), np.array([3]), r"0\.\.2"),
        (np.zeros((1, 3)), np.array([-1]), r"0\.\.2"),
    ],
)
def test_samples_that_are_none_are_refused(logits: NDArray, truth: NDArray, text: str) -> None:
    with pytest.raises(InputError, match=text):
        fit_temperature(logits.astype(np.float32), truth)

"""Expected scores under failing sensors, against values by hand and against drawing the failures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.metrics.robustness import (
    expected_score,
    intact_sets,
    intact_weights,
    mean_score,
    retained_share,
)

AB = {frozenset("ab"): 0.8, frozenset("a"): 0.6, frozenset("b"): 0.2}


def test_two_sensors_by_hand() -> None:
    """p = 0.2: 0.64 of the time both are there, 0.16 each alone, 0.04 none, which does not count."""
    by_hand = (0.64 * 0.8 + 0.16 * 0.6 + 0.16 * 0.2) / 0.96
    assert by_hand == pytest.approx(2 / 3)
    assert expected_score(AB, "ab", 0.2) == pytest.approx(by_hand)
    assert expected_score(AB, "ab", 0.1) == pytest.approx((0.81 * 0.8 + 0.09 * 0.8) / 0.99)
    assert expected_score(AB, "ab", 0.0) == 0.8


def test_one_sensor_that_is_left_is_all_there_is() -> None:
    assert expected_score({frozenset("a"): 0.6}, "a", 0.2) == pytest.approx(0.6)


def test_what_is_not_known_is_not_guessed() -> None:
    assert expected_score({**AB, frozenset("b"): None}, "ab", 0.2) is None
    assert expected_score({frozenset("ab"): 0.8}, "ab", 0.2) is None


# Of Liao et al. (README of their repository): the mean over 15 sets, and E at p = 0.2, 0.1, 0.05, in percent;
# beside it, the score with all four sensors that the models' own publications give.
PUBLISHED = {
    "CMNeXt": ((37.90, 54.46, 60.41, 63.38), 66.30),
    "GeminiFusion": ((37.07, 54.33, 60.62, 63.77), 66.9),
    "StitchFusion": ((41.98, 58.02, 63.29, 65.80), 68.20),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_form_is_that_of_the_published_numbers(name: str) -> None:
    """From mean and E, solved for the sums over sets of one size, comes the models' score of all sensors."""
    (mean, *expected), full = PUBLISHED[name]
    sets = intact_sets("abcd")
    rows = [[sum(len(s) == size for s in sets) / len(sets) for size in (4, 3, 2, 1)]]
    for probability in (0.2, 0.1, 0.05):
        weights = intact_weights("abcd", probability)
        rows.append([sum(w for s, w in weights.items() if len(s) == n) for n in (4, 3, 2, 1)])
    found = np.linalg.solve(np.array(rows), np.array([mean, *expected]))
    assert found[0] == pytest.approx(full, abs=0.04)
    assert (np.diff(found) < 0).all()  # fewer sensors, a lower score


@given(st.integers(1, 6), st.floats(0, 0.99))
def test_weights_are_probabilities(count: int, probability: float) -> None:
    names = [f"s{i}" for i in range(count)]
    weights = intact_weights(names, probability)
    assert len(weights) == 2**count - 1 == len(intact_sets(names))
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7), st.floats(0, 0.9))
def test_the_expected_score_lies_within_the_scores(scores: list[float], p: float) -> None:
    table = dict(zip(intact_sets("abc"), scores, strict=True))
    found = expected_score(table, "abc", p)
    assert found is not None and min(scores) - 1e-9 <= found <= max(scores) + 1e-9


def test_it_is_what_drawn_failures_give_on_average() -> None:
    rng = np.random.default_rng(0)
    table = dict(zip(intact_sets("abc"), rng.random(7).tolist(), strict=True))
    left = rng.random((200_000, 3)) >= 0.3
    drawn = [frozenset(n for n, there in zip("abc", row, strict=True) if there) for row in left]
    mean = np.mean([table[found] for found in drawn if found])
    assert expected_score(table, "abc", 0.3) == pytest.approx(mean, abs=0.003)


@pytest.mark.parametrize("probability", (-0.1, 1.0, float("nan")))
def test_no_probability(probability: float) -> None:
    with pytest.raises(ValueError):
        intact_weights("ab", probability)
    with pytest.raises(ValueError):
        intact_weights("", 0.1)


def test_shares_and_means() -> None:
    assert retained_share(0.6, 0.8) == pytest.approx(0.75)
    assert retained_share(None, 0.8) is None and retained_share(0.1, 0.0) is None
    assert mean_score([0.2, None, 0.4]) == pytest.approx(0.3) and mean_score([None]) is None

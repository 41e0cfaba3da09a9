"""The evolutionary search finds a front that is known, and the predictor predicts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.search.evolution import (
    RidgePredictor,
    crowding_distance,
    evolve,
    pareto_fronts,
    rank_correlation,
)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=20))
def test_first_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    values = np.array(points, float)
    fronts = pareto_fronts(values)
    assert sorted(i for front in fronts for i in front) == list(range(len(points)))
    for i, a in enumerate(points):
        beaten = any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points)
        assert (i in fronts[0]) == (not beaten)


def test_ends_of_a_front_are_the_least_crowded() -> None:
    distance = crowding_distance(np.array([[0.0, 4], [1, 3], [1.1, 2.9], [4, 0]]))
    assert np.isinf(distance[[0, 3]]).all()
    assert 0 < distance[1] < distance[2]


def knapsack(genomes: object) -> np.ndarray:
    """Value lost and weight carried, when gene i takes that many of item i."""
    array = np.array(genomes, float)
    value, weight = np.array([9.0, 7, 5, 3, 2, 1, 8, 4]), np.array([5.0, 1, 6, 2, 1, 3, 7, 2])
    return np.stack([-(array @ value), array @ weight], 1)


def test_finds_the_known_pareto_front() -> None:
    sizes = (3,) * 8
    every = list(itertools.product(range(3), repeat=8))
    values = knapsack(every)
    known = {tuple(v) for v in values[pareto_fronts(values)[0]]}
    rng = np.random.default_rng(0)
    found = evolve(sizes, knapsack, rng, start=[], population=80, generations=60)
    got = {tuple(v) for v in knapsack(found)}
    assert got <= known
    assert len(got) >= 0.9 * len(known)
    drawn = [tuple(int(v) for v in row) for row in rng.integers(0, 3, (80 * 61, 8))]
    lucky = {tuple(v) for v in knapsack(drawn)} & known
    assert len(got) > 1.2 * len(lucky), "no better than as many random draws"


def test_repair_is_applied_to_every_genome() -> None:
    def even(genome: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(g - g % 2 for g in genome)

    rng = np.random.default_rng(1)
    found = evolve(
        (4,) * 5, lambda g: knapsack([[*x, 0, 0, 0] for x in g]), rng, start=[], repair=even
    )
    assert found and all(g % 2 == 0 for genome in found for g in genome)


def test_predictor_learns_a_sum_and_knows_how_well() -> None:
    rng = np.random.default_rng(2)
    sizes = (3, 3, 4, 2, 2, 2, 3)
    genomes = [tuple(int(rng.integers(n)) for n in sizes) for _ in range(40)]
    gain = np.array([3.0, 1, -2, 0.5, 0, 1, 2])
    targets = np.array(genomes) @ gain
    predictor = RidgePredictor(sizes)
    predictor.fit(genomes, targets)
    new = [tuple(int(rng.integers(n)) for n in sizes) for _ in range(20)]
    assert np.abs(predictor.predict(new) - np.array(new) @ gain).max() < 0.1
    assert rank_correlation(predictor.left_out.tolist(), targets.tolist()) > 0.99
    predictor.fit(genomes, rng.standard_normal(40))
    assert rank_correlation(predictor.left_out.tolist(), targets.tolist()) < 0.6


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 21]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))

"""Evolutionary search for a Pareto front, and the predictor that spares most evaluations.

The sorting is NSGA-II's (Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm", 2002); that a
predictor is refitted between rounds of real evaluations is LINAS's idea (Cummings et al., "A
Hardware-Aware Framework for Accelerating Neural Architecture Search Across Modalities", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Genome = tuple[int, ...]

_PENALTIES = np.geomspace(1e-2, 1e3, 11)


def pareto_fronts(values: Floats) -> list[NDArray[np.int64]]:
    """Indices of the rows of (N, M) objectives, which are minimized, front by front."""
    no_worse = np.all(values[:, None] <= values[None], axis=2)
    dominates = np.logical_and(no_worse, np.any(values[:, None] < values[None], axis=2))
    left = np.arange(len(values))
    fronts = []
    while len(left):
        beaten = dominates[np.ix_(left, left)].any(0)
        fronts.append(left[~beaten])
        left = left[beaten]
    return fronts


def crowding_distance(values: Floats) -> Floats:
    """How far each row of one front is from its neighbors; the ends are infinitely far."""
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def _survivors(values: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """The best `count` rows and their fitness, which is smaller for better."""
    kept: list[int] = []
    fitness: list[float] = []
    for rank, front in enumerate(pareto_fronts(values)):
        distance = crowding_distance(values[front])
        order = np.argsort(-distance, kind="stable")[: count - len(kept)]
        kept += front[order].tolist()
        fitness += (rank + 1 / (2 + np.minimum(distance[order], 1e9))).tolist()
    return np.array(kept), np.array(fitness)


def evolve(
    sizes: Sequence[int],
    objectives: Callable[[Sequence[Genome]], Floats],
    rng: np.random.Generator,
    *,
    start: Sequence[Genome],
    population: int = 64,
    generations: int = 60,
    repair: Callable[[Genome], Genome] = lambda genome: genome,
) -> list[Genome]:
    """Search for the Pareto front.

    Args:
        sizes: number of values of each gene.
        objectives: (N, M) values to be minimized, of N genomes.
        rng: source of all random choices.
        start: genomes to begin with; random ones are added.
        population: how many are kept.
        generations: how often as many children are made.
        repair: brings a genome into its one valid form.

    Returns:
        The genomes of the last population's first front, each once.
    """
    most = np.array(sizes)
    people = list(dict.fromkeys(start))[:population]
    while len(people) < population:
        people.append(repair(_genome(rng.integers(0, most))))
    values = objectives(people)
    keep, fitness = _survivors(values, population)
    people, values = [people[i] for i in keep], values[keep]
    for _ in range(generations):
        pool = np.array(people)
        contest = rng.integers(0, len(pool), (2, 2, population))
        winners = np.where(fitness[contest[0]] <= fitness[contest[1]], contest[0], contest[1])
        children = np.where(
            rng.random((population, len(most))) < 0.5, pool[winners[0]], pool[winners[1]]
        )
        mutated = rng.random(children.shape) < max(1.5 / len(most), 0.02)
        children = np.where(mutated, rng.integers(0, most, children.shape), children)
        known = set(people)
        fresh = list(dict.fromkeys(repair(_genome(c)) for c in children))
        fresh = [c for c in fresh if c not in known]
        if not fresh:
            continue
        people, values = people + fresh, np.concatenate([values, objectives(fresh)])
        keep, fitness = _survivors(values, population)
        people, values = [people[i] for i in keep], values[keep]
    return [people[i] for i in pareto_fronts(values)[0]]


def _genome(row: NDArray[np.int64]) -> Genome:
    return tuple(int(v) for v in row)


class RidgePredictor:
    """Ridge regression on genes scaled to 0..1, with the penalty that leaves one out best.

    Attributes:
        left_out: (N,) what it predicts for each genome from all the others.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.scale = np.maximum(np.array(sizes) - 1, 1).astype(np.float64)

    def fit(self, genomes: Sequence[Genome], targets: Floats) -> None:
        """Fit to at least two genomes (N) and their (N,) targets."""
        inputs = np.array(genomes) / self.scale
        self._center, self._mean = inputs.mean(0), float(targets.mean())
        x, y = inputs - self._center, targets - self._mean
        gram = x @ x.T
        best = np.inf
        for penalty in _PENALTIES:
            dual = np.linalg.inv(gram + penalty * np.eye(len(y)))
            weights = dual @ y
            residual = weights / np.diag(dual)
            error = float((residual**2).sum())
            if error < best:
                best, self._weights, self.left_out = error, x.T @ weights, targets - residual

    def predict(self, genomes: Sequence[Genome]) -> Floats:
        """(N,) predictions."""
        inputs = np.array(genomes) / self.scale
        predicted: Floats = (inputs - self._center) @ self._weights + self._mean
        return predicted


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; ties get their mean rank; NaN where one side is constant."""

    def ranks(values: Sequence[float]) -> Floats:
        array = np.asarray(values, np.float64)
        below = (array[None] < array[:, None]).sum(1)
        equal = (array[None] == array[:, None]).sum(1)
        ranked: Floats = below + (equal - 1) / 2
        return ranked

    first, second = ranks(a), ranks(b)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / norm) if norm > 0 else float("nan")

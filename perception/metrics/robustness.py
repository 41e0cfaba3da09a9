"""Arithmetic of robustness: what is left of a score when sensors fail with some probability.

The forms are those of Liao et al., "Benchmarking Multi-modal Semantic Segmentation under Sensor Failures",
CVPR Workshops 2025, for any score in place of the mean IoU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

import numpy as np

Intact = frozenset[str]
"""The sensors that have not failed."""


def intact_sets(sensors: Collection[str]) -> list[Intact]:
    """Which sensors may be left where at least one is, all of them first."""
    names = list(sensors)
    sizes = range(len(names), 0, -1)
    return [frozenset(found) for size in sizes for found in combinations(names, size)]


def intact_weights(sensors: Collection[str], probability: float) -> dict[Intact, float]:
    """How likely each of `intact_sets` is when each sensor fails on its own.

    Without any sensor there is no output to judge: the weights are those given that one is left at least, and
    their sum is 1.

    Args:
        sensors: their names, at least one.
        probability: of the failure of each, 0 to below 1.

    Raises:
        ValueError: it is no such probability, or there is no sensor.
    """
    if not 0 <= probability < 1 or not sensors:
        raise ValueError(f"no probability of {len(sensors)} sensors' failures: {probability}")
    count = len(sensors)
    some_left = 1 - probability**count
    return {
        intact: (1 - probability) ** len(intact) * probability ** (count - len(intact)) / some_left
        for intact in intact_sets(sensors)
    }


def expected_score(
    scores: Mapping[Intact, float | None], sensors: Collection[str], probability: float
) -> float | None:
    """The score that is to be expected when each sensor fails with a probability, on its own.

    Args:
        scores: by the sensors that are intact; the others are missing (EMM), or damaged (RMM).
        sensors: all of them.
        probability: see `intact_weights`.

    Returns:
        None where the score of one of `intact_sets` is not known.
    """
    weights = intact_weights(sensors, probability)
    found = [(weight, scores.get(intact)) for intact, weight in weights.items()]
    known = [(weight, score) for weight, score in found if score is not None]
    return sum(w * s for w, s in known) if len(known) == len(found) else None


def mean_score(scores: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def retained_share(score: float | None, clean: float | None) -> float | None:
    """What is left of a clean score, which may be more than all of it; None where one is not known or 0."""
    return None if score is None or not clean else score / clean

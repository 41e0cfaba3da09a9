"""The straight lines in the logits under which scores of single answers fit how often they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.metrics.fitted import Fitted

LOWEST, HIGHEST = 0.05, 20.0
"""Slopes outside of this are not given; below 0 the order of scores would turn round."""

FARTHEST = 100.0
"""Offsets beyond this are not given."""

SLOPES_APART, OFFSETS_APART = 0.1, 0.3
"""How far slopes and offsets of groups are from their mean, as standard deviations: chosen by the likelihood
of boxes in scenes that were left out."""

_STEPS = 100
_CLOSE = 1e-9


@dataclass(frozen=True)
class FittedScaling(Fitted):
    """sigmoid(slope * logit + offset) is how often an answer with this logit is right.

    Attributes:
        slope: within `LOWEST`..`HIGHEST`.
        offset: within -`FARTHEST`..`FARTHEST`.
        nll, nll_before, samples: see `Fitted`; before, the score itself was the probability.
    """

    slope: float
    offset: float
    nll: float
    nll_before: float
    samples: int

    @property
    def numbers(self) -> Mapping[str, float]:
        return {"slope": self.slope, "offset": self.offset}

    def rounded(self, digits: int) -> FittedScaling:
        return replace(self, slope=round(self.slope, digits), offset=round(self.offset, digits))


def fit_scaling(logits: NDArray[np.float32], right: NDArray[np.bool_]) -> FittedScaling:
    """Platt scaling ("Probabilistic outputs for support vector machines", 1999).

    Right and wrong ones count as (N+ + 1) / (N+ + 2) and 1 / (N- + 2), as Platt has it, so that few samples
    promise nothing for sure and there is always one best line.  Newton's method with halved steps, as in Lin,
    Lin and Weng, "A note on Platt's probabilistic outputs" (2007); always in the same way.

    Args:
        logits: (N,) float32, finite.
        right: (N,) bool.

    Raises:
        InputError: no samples, shapes that do not fit, or logits that are not finite.
    """
    return fit_scalings([(logits, right)])[0]


def fit_scalings(
    samples: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
) -> list[FittedScaling]:
    """Platt scaling of several groups of answers together, as of one network from several sensors.

    Each has a line of its own, drawn to the mean of all by a normal prior (partial pooling; Gelman and Hill,
    "Data Analysis Using Regression and Multilevel Models", 2007) of the deviations `SLOPES_APART` and
    `OFFSETS_APART`.  With few answers a line is nearly that of all, with thousands its own.

    Args:
        samples: of each group, as for `fit_scaling`.

    Returns:
        A line for each.

    Raises:
        InputError: as for `fit_scaling`.
    """
    groups = [_Group.of(logits, right) for logits, right in samples]
    if not groups:
        return []
    lines = _best(groups, np.array([[1.0, 0.0]] * len(groups)), np.ones((len(groups), 2), bool))
    bounded = lines.copy()
    bounded[:, 0] = lines[:, 0].clip(LOWEST, HIGHEST)
    if (moved := bounded[:, 0] != lines[:, 0]).any():  # as the likelihood has one maximum
        lines = _best(groups, bounded, np.stack([~moved, np.ones(len(groups), bool)], 1))
        lines[:, 0] = lines[:, 0].clip(LOWEST, HIGHEST)
    lines[:, 1] = lines[:, 1].clip(-FARTHEST, FARTHEST)
    return [
        FittedScaling(
            float(slope),
            float(offset),
            _likelihood(group.x, group.right, slope, offset) / len(group.x),
            _likelihood(group.x, group.right, 1.0, 0.0) / len(group.x),
            len(group.x),
        )
        for group, (slope, offset) in zip(groups, lines, strict=True)
    ]


@dataclass(frozen=True)
class _Group:
    """Logits, whether they are right, and as what that counts: each (N,) float64."""

    x: NDArray[np.float64]
    right: NDArray[np.float64]
    wanted: NDArray[np.float64]

    @staticmethod
    def of(logits: NDArray[np.float32], right: NDArray[np.bool_]) -> _Group:
        if logits.ndim != 1 or right.shape != logits.shape or not logits.size:
            raise InputError(f"logits {logits.shape} and right {right.shape} are no samples")
        if not np.isfinite(logits).all():
            raise InputError("a logit is not finite")
        x = logits.astype(np.float64).clip(-FARTHEST, FARTHEST)
        hits = int(right.sum())
        wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (len(x) - hits + 2))
        return _Group(x, right.astype(np.float64), wanted)


def _best(
    groups: Sequence[_Group], start: NDArray[np.float64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Lines (G, 2) of slope and offset that minimise the cross entropy and the prior; those not free stay."""
    lines, count, size = start, len(groups), sum(len(g.x) for g in groups)
    # The distance from the mean, weighed: the mean itself is free.
    apart = (np.eye(count) - 1 / count)[:, None, :, None] * np.diag(
        [SLOPES_APART**-2, OFFSETS_APART**-2]
    )[None, :, None, :]
    prior = apart.reshape(2 * count, 2 * count)
    chosen = np.flatnonzero(free.ravel())

    def cost(at: NDArray[np.float64]) -> float:
        own = sum(_likelihood(g.x, g.wanted, *line) for g, line in zip(groups, at, strict=True))
        return float(own + at.ravel() @ prior @ at.ravel() / 2) / size

    value = cost(lines)
    for _ in range(_STEPS):
        slope, curve = prior @ lines.ravel(), prior.copy()
        for n, (group, line) in enumerate(zip(groups, lines, strict=True)):
            axes = np.stack([group.x, np.ones_like(group.x)])
            p = _sigmoid(line[0] * group.x + line[1])
            own = slice(2 * n, 2 * n + 2)
            slope[own] += axes @ (p - group.wanted)
            curve[own, own] += (axes * (p * (1 - p))) @ axes.T
        slope, curve = slope[chosen] / size, curve[np.ix_(chosen, chosen)] / size
        if np.abs(slope).max() < _CLOSE:
            break
        step = np.zeros(2 * count)
        step[chosen] = -np.linalg.solve(curve + 1e-12 * np.eye(len(chosen)), slope)
        share = 1.0
        while share > 1e-10:
            tried = lines + share * step.reshape(count, 2)
            if (moved := cost(tried)) < value:
                lines, value = tried, moved
                break
            share /= 2
        else:
            break
    return lines


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -z))


def _likelihood(
    x: NDArray[np.float64], wanted: NDArray[np.float64], slope: float, offset: float
) -> float:
    z = slope * x + offset
    return float((np.logaddexp(0, z) - wanted * z).sum())

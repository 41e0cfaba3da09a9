"""The straight line in the logits under which scores of single answers fit how often they are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.metrics.fitted import Fitted

LOWEST, HIGHEST = 0.05, 20.0
"""Slopes outside of this are not given; below 0 the order of scores would turn round."""

FARTHEST = 100.0
"""Offsets beyond this are not given."""

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
    if logits.ndim != 1 or right.shape != logits.shape or not logits.size:
        raise InputError(f"logits {logits.shape} and right {right.shape} are no samples")
    if not np.isfinite(logits).all():
        raise InputError("a logit is not finite")
    x = logits.astype(np.float64).clip(-FARTHEST, FARTHEST)
    hits = int(right.sum())
    wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (len(x) - hits + 2))
    before = _likelihood(x, right.astype(np.float64), 1.0, 0.0)
    slope, offset = _best(x, wanted, (1.0, 0.0), free=(True, True))
    bounded = float(np.clip(slope, LOWEST, HIGHEST))
    if bounded != slope:  # the best of those within bounds, as the likelihood has one maximum
        slope, offset = _best(x, wanted, (bounded, offset), free=(False, True))
    offset = float(np.clip(offset, -FARTHEST, FARTHEST))
    return FittedScaling(
        slope, offset, _likelihood(x, right.astype(np.float64), slope, offset), before, len(x)
    )


def _best(
    x: NDArray[np.float64],
    wanted: NDArray[np.float64],
    start: tuple[float, float],
    free: tuple[bool, bool],
) -> tuple[float, float]:
    """Slope and offset that minimise the cross entropy; those that are not free stay."""
    line = np.array(start)
    axes = np.stack([x, np.ones_like(x)])[list(free)]
    value = _likelihood(x, wanted, *line)
    for _ in range(_STEPS):
        p = _sigmoid(line[0] * x + line[1])
        slope = axes @ (p - wanted) / len(x)
        if np.abs(slope).max() < _CLOSE:
            break
        curve = (axes * (p * (1 - p))) @ axes.T / len(x) + 1e-12 * np.eye(len(axes))
        step = np.zeros(2)
        step[list(free)] = -np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-10:
            moved = _likelihood(x, wanted, *(line + size * step))
            if moved < value:
                line, value = line + size * step, moved
                break
            size /= 2
        else:
            break
    return float(line[0]), float(line[1])


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -z))


def _likelihood(
    x: NDArray[np.float64], wanted: NDArray[np.float64], slope: float, offset: float
) -> float:
    z = slope * x + offset
    return float((np.logaddexp(0, z) - wanted * z).mean())

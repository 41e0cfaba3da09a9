"""The temperature under which a network's probabilities fit the truth best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.metrics.fitted import Fitted

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures outside of this are not given: what asks for them is no matter of calibration."""

_STEPS = 100
_CLOSE = 1e-9


@dataclass(frozen=True)
class FittedTemperature(Fitted):
    """What logits are best divided by.

    Attributes:
        temperature: within `LOWEST`..`HIGHEST`.
        nll: negative log-likelihood of the truth with it, in nats, mean over the samples.
        nll_before: the same with temperature 1.
        samples: number of them.
    """

    temperature: float
    nll: float
    nll_before: float
    samples: int

    @property
    def numbers(self) -> Mapping[str, float]:
        return {"temperature": self.temperature}

    def rounded(self, digits: int) -> FittedTemperature:
        return replace(self, temperature=round(self.temperature, digits))


def fit_temperature(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> FittedTemperature:
    """Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    The negative log-likelihood of softmax(logits / T) is convex in 1/T, so that it has one minimum; Newton's
    method finds it within a bracket of 1/T, always in the same way.

    Args:
        logits: (N, K) float32, finite.
        truth: (N,) the true classes, 0..K-1.

    Returns:
        The temperature that minimises it; 1 where none does better than another.

    Raises:
        InputError: no samples, shapes that do not fit, or logits that are not finite.
    """
    if logits.ndim != 2 or truth.shape != logits.shape[:1] or not logits.size:
        raise InputError(f"logits {logits.shape} and truth {truth.shape} are no samples")
    if not np.isfinite(logits).all():
        raise InputError("a logit is not finite")
    if truth.min() < 0 or truth.max() >= logits.shape[1]:
        raise InputError(f"a class is not within 0..{logits.shape[1] - 1}")
    z = logits - logits.max(axis=1, keepdims=True)
    own = z[np.arange(len(z)), truth].astype(np.float64)
    low, high, beta = 1 / HIGHEST, 1 / LOWEST, 1.0
    before, slope, curve = _likelihood(z, own, beta)
    nll = before
    # Where nothing depends on it (one class, or classes that are all alike) it stays 1.
    for _ in range(_STEPS if curve > 0 or slope != 0 else 0):
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curve if curve > 0 else high
        beta = step if low < step < high else (low + high) / 2
        nll, slope, curve = _likelihood(z, own, beta)
        if high - low < _CLOSE or abs(slope) < _CLOSE * max(1.0, curve):
            break
    return FittedTemperature(1 / beta, nll, before, len(z))


def _likelihood(
    z: NDArray[np.float32], own: NDArray[np.float64], beta: float
) -> tuple[float, float, float]:
    """Mean negative log-likelihood at 1/T = beta, and its first and second derivative by it."""
    weights = np.exp(z * np.float32(beta))
    total = weights.sum(axis=1, dtype=np.float64)
    mean = np.einsum("nk,nk->n", weights, z, dtype=np.float64) / total
    square = np.einsum("nk,nk,nk->n", weights, z, z, dtype=np.float64) / total
    nll = np.log(total) - beta * own
    return float(nll.mean()), float((mean - own).mean()), float((square - mean**2).mean())

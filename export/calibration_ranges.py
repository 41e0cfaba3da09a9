"""Ranges of activations from real frames: histograms, and the threshold that each method reads off."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["percentile", "entropy", "mse", "max"]
METHODS: tuple[Method, ...] = ("percentile", "entropy", "mse", "max")

_BINS = 2048
_LEVELS = 128  # magnitudes that a signed 8 bit value can tell apart
_STRIDE = 3  # of the values that enter the histogram: neighboring pixels say the same


class Histogram:
    """Histogram of magnitudes |x| whose range doubles when a larger value comes."""

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(_BINS)
        self.top = 0.0
        self.peak = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape; non-finite ones are left out."""
        magnitudes = np.abs(values.reshape(-1))
        if not np.isfinite(peak := float(magnitudes.max(initial=0.0))):
            magnitudes = magnitudes[np.isfinite(magnitudes)]
            peak = float(magnitudes.max(initial=0.0))
        self.peak = max(self.peak, peak)
        if self.top == 0.0:
            self.top = max(peak, 1e-6)
        while peak > self.top:
            halved = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([halved, np.zeros(_BINS // 2)])
            self.top *= 2
        self.counts += np.histogram(magnitudes[::_STRIDE], bins=_BINS, range=(0.0, self.top))[0]

    def threshold(self, method: Method, percentile: float = 99.99) -> float:
        """The magnitude to clip at.

        Args:
            method: `max` clips nothing; `percentile` keeps that share of the values; `entropy` loses
                the least information (Kullback-Leibler divergence, Migacz 2017); `mse` has the
                least mean squared error of clipping and rounding.
            percentile: for the method of that name.
        """
        if method == "max" or not self.counts.any():
            return max(self.peak, 1e-6)
        if method == "percentile":
            cumulative = np.cumsum(self.counts) / self.counts.sum()
            index = int(np.searchsorted(cumulative, percentile / 100))
            return min(self.peak, (index + 1) * self.top / _BINS)
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        candidates = np.unique(np.linspace(min(_LEVELS, last), last, 80).astype(int))
        cost = self._divergence if method == "entropy" else self._squared_error
        costs = [cost(int(c)) for c in candidates]
        return min(self.peak, float(candidates[int(np.argmin(costs))]) * self.top / _BINS)

    def _squared_error(self, bins: int) -> float:
        centers = (np.arange(_BINS) + 0.5) * self.top / _BINS
        limit = bins * self.top / _BINS
        clipped = np.maximum(centers - limit, 0.0)
        step = limit / (_LEVELS - 1)
        rounding = np.where(centers <= limit, step**2 / 12, 0.0)
        return float((self.counts * (clipped**2 + rounding)).sum())

    def _divergence(self, bins: int) -> float:
        kept = self.counts[:bins].copy()
        wanted = kept.copy()
        wanted[-1] += self.counts[bins:].sum()
        level = np.arange(bins) * _LEVELS // bins
        filled = kept > 0
        totals = np.bincount(level, weights=kept, minlength=_LEVELS)
        spread = np.bincount(level, weights=filled, minlength=_LEVELS)
        share = np.divide(totals, spread, out=np.zeros(_LEVELS), where=spread > 0)
        found = np.where(filled, share[level], 0.0)
        p, q = wanted / wanted.sum(), found / max(found.sum(), 1.0)
        both = p > 0
        return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())

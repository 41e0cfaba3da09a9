"""How far confidences can be trusted: calibration error, and the risk at each coverage.

Answers (pixels, boxes) come with a confidence in 0..1, and are right or wrong.  Everything is computed from
histograms, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. (2017)."""

DRAWS = 2000
"""Of answers that are right as often as their confidence says."""

_SHIFT = 13  # of a float32's 23 bits of mantissa, 10 stay: 1024 steps an octave
_SMALLEST = np.float32(2.0**-25)  # below half a step of float32 next to 1
_FIRST = int(_SMALLEST.view(np.uint32)) >> _SHIFT
_STEPS = (int(np.float32(1).view(np.uint32)) >> _SHIFT) - _FIRST
_EULER_GAMMA = 0.57721566490153286
_ARRAYS = ("counts", "right", "sums", "wide")


def require_like(own: NDArray[Any], others: NDArray[Any], what: str) -> None:
    """Refuse counts that cannot be added to others.

    Raises:
        ValueError: shapes or types differ, or a count is negative or no number.
    """
    if own.shape != others.shape or own.dtype != others.dtype:
        raise ValueError(f"{what}: {others.dtype} {others.shape} is not {own.dtype} {own.shape}")
    if not (others >= 0).all():
        raise ValueError(f"{what}: a count is negative")


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram's bins.

    Attributes:
        edges: (B + 1,) float64, rising from 0 to 1.
        count: (B,) int64 answers in each.
        confidence: (B,) float64 mean confidence, NaN where there are none.
        accuracy: (B,) float64 share of the right ones, NaN where there are none.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def error(self) -> float:
        """Mean distance of confidence and accuracy over all answers; NaN without any."""
        total = self.count.sum()
        if not total:
            return float("nan")
        gaps = np.abs(self.accuracy - self.confidence)[self.count > 0]
        return float((gaps * self.count[self.count > 0]).sum() / total)

    def by_chance(self) -> float:
        """What `error` would be on average if confidence told the truth; NaN without answers.

        As many answers in each bin, each right with the bin's mean confidence: their share differs from it by
        chance.  Few answers have a large error for this reason alone.
        """
        total = self.count.sum()
        pairs = [(int(n), float(p)) for n, p in zip(self.count, self.confidence, strict=True) if n]
        return sum(n * _mean_deviation(n, p) for n, p in pairs) / total if total else float("nan")

    def as_large_by_chance(self) -> float:
        """How often `error` would be as large or larger if confidence told the truth; NaN without answers.

        The same drawn at random, `DRAWS` times and always alike: Bröcker and Smith, "Increasing the
        reliability of reliability diagrams" (Weather and Forecasting, 2007).  Where that is often, nothing
        is wrong with confidence as far as so few answers can tell.
        """
        there = self.count > 0
        if not there.any():
            return float("nan")
        number, chance = self.count[there], self.confidence[there].clip(0, 1)
        right = np.random.default_rng(0).binomial(number, chance, (DRAWS, len(number)))
        errors = np.abs(right - number * chance).sum(axis=1) / number.sum()
        return float((errors >= self.error() - 1e-12).mean())


class ConfidenceHistogram:
    """Counts of right and wrong answers by confidence.

    Memory is the same for any number of answers (about 0.6 MB).  Answers are told apart by 1 - confidence
    with 1024 steps an octave, down to float32's last bit below 1, where many networks have most of theirs.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_STEPS, np.int64)
        self._right = np.zeros(_STEPS, np.int64)
        self._sums = np.zeros(_STEPS, np.float64)
        self._wide = np.zeros((3, BINS), np.float64)  # exact: number, sum of confidences, right

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count answers.

        Args:
            confidence: float32 of any shape, 0..1.
            right: bool of the same shape.

        Raises:
            InputError: shapes differ, or a confidence is NaN or outside of 0..1.
        """
        if confidence.shape != right.shape:
            raise InputError(f"confidence {confidence.shape} and right {right.shape} differ")
        sure, hit = np.asarray(confidence, np.float32).ravel(), np.asarray(right, bool).ravel()
        # Bilinear interpolation may go beyond 1 by a rounding error.
        if sure.size and not (sure.min() >= -1e-5 and sure.max() <= 1 + 1e-5):  # nor NaN
            raise InputError("a confidence is not within 0..1")
        sure = sure.clip(0, 1)
        steps = _steps(sure)
        self._counts += np.bincount(steps, minlength=_STEPS)
        self._right += np.bincount(steps[hit], minlength=_STEPS)
        self._sums += np.bincount(steps, sure, _STEPS)
        # Bin m is ((m - 1) / B, m / B], and 0 is of the first.
        bins = np.ceil(sure.astype(np.float64) * BINS).astype(np.int64).clip(1, BINS) - 1
        self._wide[0] += np.bincount(bins, minlength=BINS)
        self._wide[1] += np.bincount(bins, sure, BINS)
        self._wide[2] += np.bincount(bins[hit], minlength=BINS)

    def merge(self, other: ConfidenceHistogram) -> None:
        """Count what another one has counted, too."""
        self._counts += other._counts
        self._right += other._right
        self._sums += other._sums
        self._wide += other._wide

    def counted(self, prefix: str = "") -> dict[str, NDArray[np.generic]]:
        """What was counted, for `take`: four arrays whose size does not depend on how many there were."""
        return {f"{prefix}{name}": getattr(self, f"_{name}").copy() for name in _ARRAYS}

    def take(self, counted: Mapping[str, NDArray[Any]], prefix: str = "") -> None:
        """Count what another one has counted, too.

        Raises:
            KeyError, ValueError: it is not what `counted` gives.
        """
        for name in _ARRAYS:
            own, others = getattr(self, f"_{name}"), counted[f"{prefix}{name}"]
            require_like(own, others, name)
            own += others

    def __len__(self) -> int:
        return int(self._counts.sum())

    def reliability(self) -> Reliability:
        """In `BINS` bins of equal width."""
        number, sums, right = self._wide
        return _reliability(np.linspace(0, 1, BINS + 1), number.astype(np.int64), sums, right)

    def adaptive(self, bins: int = BINS) -> Reliability:
        """In bins with about as many answers each, as far as equal confidences allow.

        After Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
        processing models" (EMNLP 2015).
        """
        counts, right, sums = (a[::-1] for a in (self._counts, self._right, self._sums))  # rising
        upto, total = np.cumsum(counts), len(self)
        wanted = np.arange(1, bins) * total / bins
        cuts = np.unique(np.searchsorted(upto, wanted) + 1) if total else np.zeros(0, np.int64)
        cuts = np.array([0, *cuts[cuts < _STEPS], _STEPS])
        parts = [np.add.reduceat(a, cuts[:-1]) for a in (counts, sums, right)]
        return _reliability(_edges()[cuts], *parts)

    def ece(self) -> float:
        """Expected calibration error in `BINS` bins of equal width; NaN without answers.

        The mean over all answers of |accuracy - mean confidence| of the answer's bin: Guo et al., "On
        Calibration of Modern Neural Networks" (ICML 2017), equation 3.
        """
        return self.reliability().error()

    def adaptive_ece(self) -> float:
        """The same in bins with as many answers each; NaN without answers."""
        return self.adaptive().error()

    def aurc(self) -> float:
        """Area under the risk-coverage curve, the mean risk over all coverages; NaN without answers.

        Risk at coverage k/n is the share of wrong ones among the k most confident answers: Geifman and
        El-Yaniv, "Selective classification for deep neural networks" (NeurIPS 2017), whose curve Geifman et
        al., "Bias-reduced uncertainty estimation" (ICLR 2019) sum up.  Of answers that are equally confident,
        to one of the histogram's steps, all orders count alike.
        """
        used = np.flatnonzero(self._counts)
        if not used.size:
            return float("nan")
        number = self._counts[used].astype(np.float64)
        wrong = number - self._right[used]
        before, wrong_before = np.cumsum(number) - number, np.cumsum(wrong) - wrong
        # Sum over k = 1..n of (W + w k / n) / (N + k), where N answers and W wrong ones come before.
        rate = wrong / number
        spread = _harmonic(before + number) - _harmonic(before)
        area = (wrong_before - rate * before) * spread + wrong
        return float(area.sum() / number.sum())

    def scores(self, prefix: str = "") -> dict[str, float | None]:
        """`ece` and `aurc`, None where nothing was counted."""
        found = {"ece": self.ece(), "aurc": self.aurc()} if len(self) else {}
        return {f"{prefix}{name}": found.get(name) for name in ("ece", "aurc")}


def _mean_deviation(number: int, chance: float) -> float:
    """Mean of |K / n - p| where K of n succeed, each with p: de Moivre's formula, see Diaconis and Zabell,
    "Closed form summation for classical distributions", Statistical Science 1991."""
    if not 0 < chance < 1:
        return 0.0
    m = min(math.floor(number * chance), number - 1)
    ways = math.lgamma(number + 1) - math.lgamma(m + 1) - math.lgamma(number - m)
    log = ways + (m + 1) * math.log(chance) + (number - m) * math.log1p(-chance)
    return 2 * math.exp(log) / number


def _steps(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    """The step of each, 0 for the most confident ones."""
    doubt = np.maximum(np.float32(1) - confidence, _SMALLEST)  # exact from 0.5 on
    return np.minimum((doubt.view(np.uint32) >> _SHIFT).astype(np.int64) - _FIRST, _STEPS - 1)


def _edges() -> NDArray[np.float64]:
    """(_STEPS + 1,) confidences between the steps, rising."""
    bits = (np.arange(_STEPS, dtype=np.uint32) + np.uint32(_FIRST)) << np.uint32(_SHIFT)
    upper = 1 - bits.view(np.float32)[::-1].astype(np.float64)
    upper[-1] = 1.0
    return np.concatenate([[0.0], upper])


def _reliability(
    edges: NDArray[np.float64],
    number: NDArray[np.int64],
    sums: NDArray[np.float64],
    right: NDArray[np.float64],
) -> Reliability:
    with np.errstate(invalid="ignore"):
        return Reliability(edges, number, sums / number, right / number)


def _harmonic(number: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic numbers 1 + 1/2 + ... + 1/n, 0 for 0."""
    table = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 65))])
    small = table[np.minimum(number, 64).astype(np.int64)]
    n = np.maximum(number, 64)
    series = np.log(n) + _EULER_GAMMA + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4)
    return np.where(number <= 64, small, series)

"""How a sensor turned from one sample to the next, whatever it measures: what offsets are told from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import DataError
from perception.geometry.transforms import Float64

_LONGEST_STEP = 3.5
"""Periods: over a longer pause nobody knows when it turned."""


@dataclass(frozen=True)
class Motion:
    """Turns of one sensor.

    Attributes:
        stamps_ns: (N,) int64, rising.
        turns: (N - 1, D) float64: by how much it turned about D axes from each sample to the next, in
            whatever unit and about whatever axes, the same for all.
        good: (N - 1,) bool: the turn is known.
        dropped: samples whose stamp was not later than the one before.
    """

    stamps_ns: NDArray[np.int64]
    turns: Float64
    good: NDArray[np.bool_]
    dropped: int = 0

    @property
    def period_ns(self) -> float:
        """Median time between samples."""
        return float(np.median(np.diff(self.stamps_ns)))


def motion_of(
    stamps_ns: Sequence[int], turns: Sequence[Float64 | None], dropped: int = 0
) -> Motion:
    """A motion of its steps; None is a turn that is not known.

    Raises:
        DataError: fewer than three samples.
    """
    if len(stamps_ns) < 3:
        raise DataError(
            f"{len(stamps_ns)} samples are no motion", hint="record ten seconds or more"
        )
    stamps = np.asarray(stamps_ns, np.int64)
    axes = next((len(one) for one in turns if one is not None), 1)
    known = np.array([one is not None and bool(np.isfinite(one).all()) for one in turns])
    steps = np.diff(stamps)
    known &= steps <= _LONGEST_STEP * np.median(steps)
    values = [np.zeros(axes) if one is None else np.asarray(one, np.float64) for one in turns]
    found = np.where(known[:, None], np.array(values), 0.0)
    return Motion(stamps, found, known, dropped)


def gyro_motion(stamps_ns: Sequence[int], rates: Sequence[Float64]) -> Motion:
    """A motion of a gyroscope's rates (N, 3) rad/s at the stamps, by the trapezoidal rule.

    Raises:
        DataError: fewer than three samples.
    """
    kept_ns: list[int] = []
    kept: list[Float64] = []
    for stamp, rate in zip(stamps_ns, rates, strict=True):
        if not kept_ns or stamp > kept_ns[-1]:
            kept_ns.append(stamp)
            kept.append(np.asarray(rate, np.float64))
    steps = np.diff(np.asarray(kept_ns, np.int64)) / 1e9
    turns = [(a + b) / 2 * step for a, b, step in zip(kept, kept[1:], steps, strict=False)]
    return motion_of(kept_ns, turns, len(stamps_ns) - len(kept_ns))


def rates_on(
    motion: Motion, origin_ns: int, grid: Float64, smooth_s: float
) -> tuple[Float64, NDArray[np.bool_]]:
    """Rates of turning at times of an even grid, smoothed by a Gaussian.

    The turns are summed, joined by lines and smoothed: each step counts as one of even rate, which is
    symmetric about its middle, so that whatever the period, stamps that jitter or samples that lack, nothing
    moves in time.

    Args:
        motion: of a sensor.
        origin_ns: where the grid's times count from.
        grid: (M,) seconds, evenly spaced.
        smooth_s: the Gaussian's standard deviation.

    Returns:
        (M, D) rates per second, and (M,) where they are known.
    """
    from scipy.ndimage import gaussian_filter1d

    # Of integers: floats of nanoseconds since 1970 are no finer than 256 ns.
    at = (motion.stamps_ns - origin_ns).astype(np.float64) / 1e9
    summed = np.vstack([np.zeros(motion.turns.shape[1]), np.cumsum(motion.turns, axis=0)])
    step = float(grid[1] - grid[0])
    angles = np.column_stack([np.interp(grid, at, one) for one in summed.T])
    rates = gaussian_filter1d(angles, smooth_s / step, axis=0, order=1, mode="nearest") / step
    reach = 3 * smooth_s
    known = (grid >= at[0] + reach) & (grid <= at[-1] - reach)
    for index in np.flatnonzero(~motion.good):
        known &= (grid < at[index] - reach) | (grid > at[index + 1] + reach)
    return rates, known

"""What stamps tell beside the time of arrival: whether they count from a start, and how fast they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OTHER_CLOCK_NS = 1_000_000_000
"""Longer, no delivery takes: sensors whose delays differ by more have clocks of their own."""

_SINCE_BOOT_NS = 10 * 365 * 86_400 * 1_000_000_000
_PARTS = 15


@dataclass(frozen=True)
class StampClock:
    """A sensor's stamps beside the clock of who recorded them.

    Attributes:
        lag_ns: median time from stamp to arrival.
        since_boot: stamps count from a start, those of arrival from 1970.
        drift_ppm, drift_sigma_ppm: by how many millionths the stamps' clock runs faster, and the standard
            deviation; NaN and inf where it is not known.
        seconds: that were looked at.
    """

    lag_ns: int
    since_boot: bool
    drift_ppm: float
    drift_sigma_ppm: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "lag_ns": self.lag_ns,
            "since_boot": self.since_boot,
            "drift_ppm": self.drift_ppm,
            "drift_sigma_ppm": self.drift_sigma_ppm,
        }


def stamp_clock(stamps_ns: Sequence[int], arrivals_ns: Sequence[int]) -> StampClock:
    """Compare stamps with arrivals; delivery may be late, and is never early.

    Args:
        stamps_ns, arrivals_ns: of the same messages, one or more.
    """
    stamps, arrivals = np.asarray(stamps_ns, np.int64), np.asarray(arrivals_ns, np.int64)
    lags = arrivals - stamps
    middle = int(np.sort(lags)[len(lags) // 2])
    boot = bool(np.median(stamps) < _SINCE_BOOT_NS <= np.median(arrivals))
    at = (arrivals - arrivals.min()).astype(np.float64) / 1e9
    seconds = float(at.max())
    unknown = StampClock(middle, boot, np.nan, np.inf, seconds)
    if len(lags) < 4 * _PARTS or seconds <= 0:
        return unknown
    # The quickest deliveries of each part: the others say how busy a computer was.
    late = (lags - middle).astype(np.float64) / 1e9
    parts = np.array_split(np.argsort(at, kind="stable"), _PARTS)
    times = np.array([at[part][late[part].argmin()] for part in parts])
    least = np.array([late[part].min() for part in parts])
    away = times - times.mean()
    square = float((away**2).sum())
    if square <= 0:
        return unknown
    slope = float((away * least).sum() / square)
    rest = least - least.mean() - slope * away
    sigma = float(np.sqrt((rest**2).sum() / (_PARTS - 2) / square))
    return StampClock(middle, boot, -slope * 1e6, 1.2 * sigma * 1e6, seconds)

"""When each point of a cloud was measured, as drivers write it: fields of `sensor_msgs/PointCloud2`.

From the drivers' sources: `t` (uint32, ns from the stamp; Ouster), `time` (float32, s from the stamp;
Velodyne), `timestamp` (float64, s of a clock; Hesai, RoboSense; ns of a clock: Livox), `offset_time` (uint32,
ns from the stamp; Livox), `time_stamp` (float64, s of a clock, or uint32, ns from the stamp; Autoware).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time")
"""Of the fields, in lower case; the first that a cloud has is read."""

LONGEST_S = 1.0
"""A scan takes no longer: what is further from its stamp is of another clock."""

_CLOCK_S = 1e8  # from here on (1973) seconds are those of a clock,
_CLOCK_NS = 1e17  # and from here on they are nanoseconds
_BLOCK = 16384  # of points at a time, so that no large memory is asked for


def seconds_from(values: NDArray[Any], stamp_ns: int | None) -> NDArray[np.float32] | None:
    """Times of points in seconds from their cloud's stamp.

    Args:
        values: (N,) of the field at returns: integers are nanoseconds; floats seconds, or nanoseconds of a
            clock.
        stamp_ns: of the cloud; None where it is not known.

    Returns:
        (N,) float32; None where they tell nothing: not finite, of a clock without a stamp or of another
        clock than the stamp's, or further from it than `LONGEST_S`.
    """
    out = np.empty(len(values), np.float32)
    if not len(values):
        return out
    clock = _Clock.of(values, stamp_ns)
    if clock is None:
        return None
    for start in range(0, len(values), _BLOCK):
        found = clock.seconds(values[start : start + _BLOCK])
        if not (np.abs(found) <= LONGEST_S).all():  # False for NaN
            return None
        out[start : start + _BLOCK] = found
    return out


@dataclass(frozen=True)
class _Clock:
    """How times are told.

    Attributes:
        whole: as integers, of which nanoseconds of a clock are too large for float64.
        start: to be subtracted, in their own unit.
        rest_s: to be added, what `start` leaves of the way to the stamp.
        unit_s: of them.
    """

    whole: bool
    start: int
    rest_s: float
    unit_s: float

    @staticmethod
    def of(values: NDArray[Any], stamp_ns: int | None) -> _Clock | None:
        """By the first; None where it tells nothing."""
        first = values[0]
        whole = values.dtype.kind in "iu"
        if not np.isfinite(first):
            return None
        start = int(first)
        if abs(start) < (_CLOCK_NS if whole else _CLOCK_S):
            return _Clock(whole, 0, 0.0, 1e-9 if whole else 1.0)
        if stamp_ns is None or (whole and abs(start) >= 2**63):
            return None
        nanoseconds = abs(start) >= _CLOCK_NS
        rest = (start if nanoseconds else start * 10**9) - stamp_ns
        return _Clock(whole, start, rest * 1e-9, 1e-9 if nanoseconds else 1.0)

    def seconds(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """From the stamp, float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            apart = values.astype(np.int64 if self.whole else np.float64)
            apart = apart - self.start if self.start else apart
            return np.asarray(apart * self.unit_s + self.rest_s, np.float64)

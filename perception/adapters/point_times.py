"""When each point of a cloud was measured, as drivers write it: fields of `sensor_msgs/PointCloud2`.

From the drivers' sources: `t` (uint32, ns from the stamp; Ouster), `time` (float32, s from the stamp;
Velodyne), `timestamp` (float64, s of a clock; Hesai, RoboSense; ns of a clock: Livox), `offset_time` (uint32,
ns from the stamp; Livox), `time_stamp` (float64, s of a clock, or uint32, ns from the stamp; Autoware).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time")
"""Of the fields, in lower case; the first that a cloud has is read."""

LONGEST_S = 1.0
"""A scan takes no longer: what is further from its stamp is of another clock."""

_CLOCK_S = 1e8  # from here on (1973) seconds are those of a clock,
_CLOCK_NS = 1e17  # and from here on they are nanoseconds


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
    with np.errstate(invalid="ignore"):
        found: NDArray[Any] = values.astype(np.float64)
    if not np.isfinite(found).all():
        return None
    if values.dtype.kind in "iu":
        whole = values.astype(np.int64)
        if len(whole) and abs(int(whole[0])) >= _CLOCK_NS:
            if stamp_ns is None:
                return None
            whole -= stamp_ns
        found = whole * 1e-9
    elif len(found) and abs(found[0]) >= _CLOCK_S:
        if stamp_ns is None:
            return None
        unit = 1.0 if abs(found[0]) < _CLOCK_NS else 1e-9
        first = round(found[0])
        found = (found - first) * unit + (first * round(unit * 1e9) - stamp_ns) * 1e-9
    if not (np.abs(found) <= LONGEST_S).all():
        return None
    return found.astype(np.float32)

"""How well a score tells one group from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def auroc(
    lower: NDArray[np.float64] | Sequence[float], higher: NDArray[np.float64] | Sequence[float]
) -> float:
    """Area under the receiver operating characteristic.

    That is how often a score of the one group is beyond one of the other, equal ones counting half (Mann and
    Whitney's U over the number of pairs).

    Args:
        lower, higher: finite scores of the group that should have low ones, and of the other.

    Returns:
        0..1; 0.5 where the score tells nothing; NaN where a group is empty.
    """
    low, high = np.sort(np.asarray(lower, np.float64)), np.asarray(higher, np.float64)
    if not low.size or not high.size:
        return float("nan")
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.sum() / (2 * low.size * high.size))

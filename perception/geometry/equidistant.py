"""The `equidistant` lens of fisheye cameras, with the four coefficients that OpenCV and ROS use.

Kannala and Brandt, "A generic camera model and calibration method for conventional, wide-angle, and fish-eye
lenses" (PAMI 2006). An angle theta to the axis lands at
theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_TABLE_SIZE = 1024
_NEWTON_STEPS = 20
_NEWTON_DONE = 1e-13
_RESIDUAL = 1e-8


def slope(coefficients: Sequence[float]) -> list[float]:
    """Coefficients of the derivative of the distorted angle, as a polynomial of theta squared."""
    return [1.0, *((2 * i + 3) * k for i, k in enumerate(coefficients))]


def bent(coefficients: Sequence[float], a: Any, b: Any, r2: Any) -> tuple[Any, Any]:
    """Where directions land.

    Args:
        coefficients: k1 to k4.
        a, b: (N,) x and y where the direction meets the plane z = 1.
        r2: (N,) a a + b b.

    Returns:
        (N,) both of the distorted plane, of `r2`'s type.
    """
    r = np.sqrt(r2)
    factor = np.where(r > 1e-9, _angle(coefficients, np.arctan(r)) / r, 1.0).astype(r.dtype)
    return a * factor, b * factor


def straightened(coefficients: Sequence[float], points: Float64, largest_tangent: float) -> Float64:
    """The opposite: Newton inversion of the angle polynomial, started from a table of it.

    Args:
        coefficients: k1 to k4.
        points: (N, 2) of the distorted plane.
        largest_tangent: of the angle to the axis; what lies beyond is not covered.

    Returns:
        (N, 2) of the plane z = 1, NaN where no direction lands.
    """
    k1, k2, k3, k4 = coefficients
    radius = np.hypot(points[:, 0], points[:, 1])
    limit = np.arctan(largest_tangent)
    table = np.linspace(0, limit, _TABLE_SIZE)
    theta = np.interp(radius, _angle(coefficients, table), table, right=np.nan)
    for _ in range(_NEWTON_STEPS):
        t2 = theta * theta
        rise = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + 9 * t2 * k4)))
        step = (_angle(coefficients, theta) - radius) / rise
        theta = theta - step
        if not (np.abs(step) > _NEWTON_DONE).any():
            break
    good = (np.abs(_angle(coefficients, theta) - radius) < _RESIDUAL) & (theta < limit)
    factor = np.where(radius > 1e-9, np.tan(theta) / radius, 1.0)
    return np.where(good[:, None], points * factor[:, None], np.nan)


def _angle(coefficients: Sequence[float], theta: Any) -> Any:
    k1, k2, k3, k4 = coefficients
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))

"""The unified camera model: a point goes onto the unit sphere, and from there through a pinhole.

Mei and Rives, "Single View Point Omnidirectional Camera Calibration from Planar Grids" (ICRA 2007); Kalibr's
`omni-radtan`, OpenCV's `omnidir`.  Distortion is xi, k1, k2, p1, p2; focal lengths are those of the sphere's
image.  As everywhere here, directions are those before the camera, as tangents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_XI = 100.0
"""Of real mirrors and lenses it is 0 to about 3."""


def to_plane(xi: float, a: Any, b: Any, r2: Any) -> tuple[Any, Any]:
    """From tangents a, b with squared radius r2 to the plane of the pinhole, before its distortion."""
    scale = 1 / (1 + xi * np.sqrt(1 + r2))
    return a * scale, b * scale


def from_plane(xi: float, plane: NDArray[Any]) -> NDArray[Any]:
    """Tangents (N, 2) of points (N, 2) on that plane; NaN where no direction before the camera lands."""
    r2 = np.sum(plane * plane, axis=1)
    root = 1 + (1 - xi * xi) * r2
    scale = (xi + np.sqrt(root)) / (1 + r2)
    forward = scale - xi
    found = plane * (scale / forward)[:, None]
    return np.where((forward > 0)[:, None], found, np.nan)


def largest_tangent(xi: float, on_plane: float) -> float:
    """The tangent whose radius on the plane is `on_plane`; inf where none before the camera reaches it."""
    if np.isinf(on_plane) or xi * on_plane >= 1:
        return np.inf
    return float(from_plane(xi, np.array([[on_plane, 0.0]]))[0, 0])

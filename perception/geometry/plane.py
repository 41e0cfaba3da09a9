"""A plane through points of which some do not lie on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TRIALS = 64
_LOOKED_AT = 1000
_LEAST = 30


@dataclass(frozen=True)
class Plane:
    """All x with normal·x = offset.

    Attributes:
        normal: (3,) float64 of length 1, towards the side of the origin.
        offset: metres, at most 0.
    """

    normal: NDArray[np.float64]
    offset: float

    def height(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) float32 metres above the plane, on the origin's side of it, of (N, 3) points."""
        return points @ self.normal.astype(np.float32) - np.float32(self.offset)


def fit_plane(
    points: NDArray[np.float32], tolerance: float, share: float = 0.5, seed: int = 0
) -> Plane | None:
    """The plane that most points lie on (Fischler and Bolles, Random Sample Consensus, 1981), then the
    least squares plane of these.

    Args:
        points: (N, 3) float32 metres.
        tolerance: metres from the plane that count as on it.
        share: of the points, that must lie on it.
        seed: of the trials; the same points give the same plane.

    Returns:
        None where fewer than 30 points, or no plane with that share of them.
    """
    if len(points) < _LEAST:
        return None
    rng = np.random.default_rng(seed)
    few = points[:: -(-len(points) // _LOOKED_AT)].astype(np.float64)
    corners = few[rng.integers(0, len(few), (_TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    spread = lengths > 1e-9
    if not spread.any():
        return None
    normals = normals[spread] / lengths[spread, None]
    offsets = (normals * corners[spread, 0]).sum(axis=1)
    near = np.abs(few @ normals.T - offsets) <= tolerance
    best = int(near.sum(axis=0).argmax())
    on = few[near[:, best]]
    if len(on) < max(3.0, share * len(few)):
        return None
    middle = on.mean(axis=0)
    normal = np.linalg.svd(on - middle, full_matrices=False)[2][2]
    offset = float(normal @ middle)
    return Plane(-normal, -offset) if offset > 0 else Plane(normal, offset)

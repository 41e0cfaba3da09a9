"""Robust homographies from matches."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.registration.matching import Float64, Matches

_ROUNDS = 6
_SEED_ITERATIONS = 4000


def consensus(matches: Matches, threshold: float) -> Float64 | None:
    """The homography that most matches agree with (MAGSAC++), None where there is none.

    Args:
        matches: at least 4.
        threshold: px.
    """
    if len(matches.a) < 4:
        return None
    matrix, _ = cv2.findHomography(
        matches.a, matches.b, cv2.USAC_MAGSAC, threshold, None, _SEED_ITERATIONS, 0.9999
    )
    return None if matrix is None else np.asarray(matrix, np.float64)


def similarity(matches: Matches, threshold: float) -> Float64 | None:
    """The rotation, scale and shift that most matches agree with, None where there is none."""
    if len(matches.a) < 2:
        return None
    part, _ = cv2.estimateAffinePartial2D(
        matches.a, matches.b, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=2000
    )
    return None if part is None else np.vstack([part, [0, 0, 1]])


def residuals(matrix: Float64, matches: Matches) -> Float64:
    """(N,) px in the second picture."""
    moved = cv2.perspectiveTransform(matches.a[None], matrix)[0]
    return np.asarray(np.linalg.norm(moved - matches.b, axis=1))


def polished(matrix: Float64, matches: Matches, scale: float) -> Float64:
    """The homography near `matrix` that fits best, by least squares with Cauchy weights.

    Args:
        matrix: a first guess.
        matches: with weights.
        scale: px; residuals beyond count little.
    """
    for _ in range(_ROUNDS):
        weight = matches.weight / (1 + (residuals(matrix, matches) / scale) ** 2)
        found = weighted(matches, weight)
        if found is None:
            return matrix
        matrix = found
    return matrix


def weighted(matches: Matches, weight: NDArray[np.float64]) -> Float64 | None:
    """The direct linear solution with weights, on centered points."""
    used = weight > 1e-6
    if used.sum() < 4:
        return None
    a, b, w = matches.a[used], matches.b[used], np.sqrt(weight[used])
    to_a, to_b = _centering(a, w), _centering(b, w)
    x, y = (cv2.perspectiveTransform(a[None], to_a)[0]).T
    u, v = (cv2.perspectiveTransform(b[None], to_b)[0]).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate(
        [
            np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], 1) * w[:, None],
            np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], 1) * w[:, None],
        ]
    )
    _, vectors = np.linalg.eigh(rows.T @ rows)
    inner = vectors[:, 0].reshape(3, 3)
    matrix = np.linalg.inv(to_b) @ inner @ to_a
    if not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-9:
        return None
    return np.asarray(matrix / matrix[2, 2])


def _centering(points: Float64, weight: NDArray[np.float64]) -> Float64:
    share = weight / weight.sum()
    middle = share @ points
    spread = max(float(np.sqrt(share @ ((points - middle) ** 2).sum(1) / 2)), 1e-6)
    return np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, spread]]) / spread

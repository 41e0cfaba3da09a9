"""How far a registration can be trusted: what speaks for it, and the probability made of it."""

from __future__ import annotations

import cv2
import numpy as np

from calibration.registration import fitting
from calibration.registration.matching import Float64, Matches
from calibration.registration.pictures import Prepared

_NEAR_PX = 3.0
_FEW_MATCHES = 60

COEFFICIENTS: dict[str, float] = {
    "offset": -6.956,
    "agreeing": 4.52,
    "started": 4.884,
    "spread": -0.072,
    "sure": 0.599,
    "settled": 4.463,
}
"""Of a logistic regression, made by benchmarks/registration_trust.py."""


def evidence(
    matrix: Float64,
    before: Float64,
    found: Matches,
    matches: Matches,
    agreed: float,
    first: Prepared,
    second: Prepared,
) -> dict[str, float]:
    """What speaks for a homography, each about 0 to 1.

    Args:
        matrix, before: of the last round, and of the one before it, at working size.
        found: of the last round.
        matches: of the comparison of everything with everything.
        agreed: how many of those fit the first guess.
        first, second: the pictures.
    """
    if len(found.a) < 8:
        return dict.fromkeys(("agreeing", "started", "spread", "sure", "settled"), 0.0)
    near = fitting.residuals(matrix, found) < _NEAR_PX
    weight = found.weight * near
    total = max(float(weight.sum()), 1e-9)
    middle = weight @ found.b / total
    spread = np.sqrt(weight @ (found.b - middle) ** 2 / total)
    size = np.array([second.shape[1], second.shape[0]])
    return {
        "agreeing": float(weight.sum() / max(float(found.weight.sum()), 1e-9)),
        "started": float(agreed / max(len(matches.a), _FEW_MATCHES)),
        "spread": float(np.clip((spread / size * np.sqrt(12)).min(), 0, 1)),
        "sure": float(found.weight.mean()),
        "settled": float(1 / (1 + moved_by(matrix, before, first.shape) / 4)),
    }


def moved_by(matrix: Float64, before: Float64, shape: tuple[int, int]) -> float:
    """By how many pixels the corner moved that moved most."""
    height, width = shape
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    now, then = (cv2.perspectiveTransform(corners, m) for m in (matrix, before))
    return float(np.linalg.norm(now - then, axis=2).max())


def confidence_of(facts: dict[str, float]) -> float:
    """The probability that the corners are within 2 % of the diagonal, see `Registration.confidence`."""
    total = COEFFICIENTS["offset"] + sum(COEFFICIENTS[k] * v for k, v in facts.items())
    return float(1 / (1 + np.exp(-total)))

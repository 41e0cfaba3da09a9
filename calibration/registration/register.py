"""The homography from one picture to another, found coarse to fine, and how far it can be trusted.

Descriptors of both pictures are compared everywhere with everywhere; matches that are mutual give a first
homography (MAGSAC++). The first picture is warped by it and described again: now both have one
geometry, and each place is looked for in a window around where it is expected, again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.registration import fitting
from calibration.registration.matching import Float64, Matches, everywhere, nearby
from calibration.registration.network import DescriptorGraph, Features
from calibration.registration.pictures import Prepared, prepare
from calibration.registration.trust import confidence_of, evidence, moved_by

TRUSTED = 0.5
"""The least confidence with which an answer is trusted."""

_FIRST_PX, _LAST_PX = 8.0, 3.0
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 6
_SETTLED_PX = 1.0
_CELLS, _SMOOTH = 4, 1.5
"""Cells of 4 pixels that are looked at each way, and the smoothing in cells of 8."""

_LARGEST_CHANGE = 6.0


@dataclass(frozen=True)
class Registration:
    """What was found.

    Attributes:
        matrix: 3x3 from pixels of the first picture to those of the second; (0, 0) is the center of
            the top left pixel.
        inliers: places that agree with it to 3 pixels at working size.
        matches: places that were looked for and found.
        confidence: 0 to 1, how likely the corners are within 2 % of the diagonal.
        evidence: what the confidence is made of, by name.
    """

    matrix: Float64
    inliers: int
    matches: int
    confidence: float
    evidence: dict[str, float]

    @property
    def trusted(self) -> bool:
        """Whether the matrix may be used."""
        return self.confidence >= TRUSTED

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "matrix": self.matrix.tolist(),
            "inliers": self.inliers,
            "matches": self.matches,
            "confidence": self.confidence,
            "trusted": self.trusted,
            "evidence": self.evidence,
        }


def register(
    a: NDArray[Any], b: NDArray[Any], graph: DescriptorGraph, names: tuple[str, str] = ("A", "B")
) -> Registration:
    """Find the homography from one picture to another.

    Args:
        a, b: (H, W) of any numbers; of any sensors, sizes may differ.
        graph: what describes them.
        names: of the pictures, for errors.

    Raises:
        InputError: a picture that cannot be used.
    """
    first, second = prepare(a, name=names[0]), prepare(b, name=names[1])
    of_a = graph.describe(first.gray, first.valid)
    of_b = graph.describe(second.gray, second.valid)
    matches = everywhere(of_a, of_b)
    matrix = _start(matches, of_a, of_b, first, second)
    agreed = float((fitting.residuals(matrix, matches) < _FIRST_PX).sum()) if len(matches.a) else 0
    found = Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    last = matrix
    for index in range(_MOST_ROUNDS):
        warped, valid = _warp(first, matrix, second.shape)
        if valid.mean() < 0.02:
            break
        found = nearby(graph.describe(warped, valid), of_b, matrix, _CELLS, _SMOOTH)
        last, matrix = matrix, _refined(matrix, found)
        if not sensible(matrix, first.shape):
            matrix = last
            break
        if index + 1 >= _FEWEST_ROUNDS and moved_by(matrix, last, first.shape) < _SETTLED_PX:
            break
    facts = evidence(matrix, last, found, matches, agreed, first, second)
    at_pixels = np.linalg.inv(second.to_work) @ matrix @ first.to_work
    near = fitting.residuals(matrix, found) < _LAST_PX if len(found.a) else np.zeros(0, bool)
    return Registration(
        at_pixels / at_pixels[2, 2],
        int(near.sum()),
        len(found.a),
        confidence_of(facts) if sensible(matrix, first.shape) else 0.0,
        facts,
    )


def _start(
    matches: Matches, of_a: Features, of_b: Features, first: Prepared, second: Prepared
) -> Float64:
    """The likeliest of some first guesses: that of all matches, a simpler one, and nothing moved."""
    resized = _resized(first, second)
    matched = [fit(matches, _FIRST_PX) for fit in (fitting.consensus, fitting.similarity)]
    usable = [g for g in (*resized, *matched) if g is not None and sensible(g, first.shape)]
    if not usable:
        return resized[0]
    return max(usable, key=lambda guess: likeness(guess, of_a, of_b))


def _resized(first: Prepared, second: Prepared) -> list[Float64]:
    """One picture laid on the other whole, and in its own proportions on its middle."""
    sizes = [np.array(p.shape[::-1], np.float64) for p in (first, second)]
    ratio = sizes[1] / sizes[0]
    uniform = np.diag([ratio.max(), ratio.max(), 1.0])
    uniform[:2, 2] = (sizes[1] - ratio.max() * sizes[0]) / 2
    return [np.diag([*ratio, 1.0]), uniform]


def likeness(matrix: Float64, of_a: Features, of_b: Features) -> float:
    """How alike the coarse descriptors are that a homography lays on each other, over the whole of A."""
    y, x = np.nonzero(of_a.coarse_valid)
    if not len(y):
        return -1.0
    points = (np.stack([x, y], 1) + 0.5) * 8 - 0.5
    moved = (cv2.perspectiveTransform(points[None], matrix)[0] + 0.5) / 8 - 0.5
    near = np.rint(moved).astype(np.int64)
    height, width = of_b.coarse_valid.shape
    inside = ((near >= 0) & (near < [width, height])).all(1)
    inside[inside] = of_b.coarse_valid[near[inside, 1], near[inside, 0]]
    own = of_a.coarse[y[inside], x[inside]]
    other = of_b.coarse[near[inside, 1], near[inside, 0]]
    return float((own * other).sum() / len(y))


def sensible(matrix: Float64, shape: tuple[int, int]) -> bool:
    """Whether a homography leaves a picture's outline convex, not mirrored, and about as large."""
    if not np.isfinite(matrix).all():
        return False
    height, width = shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]])
    mapped = corners @ matrix.T
    if (mapped[:, 2] * np.sign(matrix[2, 2]) < 0.05 * abs(matrix[2, 2])).any():
        return False
    points = mapped[:, :2] / mapped[:, 2:]
    sides = np.roll(points, -1, 0) - points
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    area = cv2.contourArea(points.astype(np.float32)) / (height * width)
    return bool((turns > 0).all() and _LARGEST_CHANGE**-2 < area < _LARGEST_CHANGE**2)


def _warp(
    first: Prepared, matrix: Float64, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    size = shape[1], shape[0]
    gray = cv2.warpPerspective(first.gray, matrix, size, flags=cv2.INTER_LINEAR)
    valid = cv2.warpPerspective(first.valid.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return np.asarray(gray, np.float32), valid > 0


def _refined(matrix: Float64, found: Matches) -> Float64:
    """The homography of what was found in windows, where it can be told."""
    if len(found.a) < 8:
        return matrix
    start = fitting.consensus(found, _LAST_PX)
    candidates = [c for c in (start, matrix) if c is not None]
    best = max(candidates, key=lambda c: _support(c, found))
    return fitting.polished(best, found, _LAST_PX)


def _support(matrix: Float64, found: Matches) -> float:
    return float((found.weight / (1 + (fitting.residuals(matrix, found) / _LAST_PX) ** 2)).sum())

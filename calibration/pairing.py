"""Which of the flat pieces in each cloud is the board that the camera saw: the one that all poses agree on.

Two poses of the board fix where the sensors sit to each other; a pair of candidates is tried where their
distance and the angle between them are those that the camera saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from perception.geometry.transforms import Float64, RigidTransform

_NEAR_M, _NEAR_SHARE = 0.10, 0.04
_NEAR_COSINE = float(np.cos(np.radians(10)))
_PAIR_COSINE = 0.15
_MOST_PAIRS = 4000
_BETTER_M = 0.5
_ROUNDS = 4


@dataclass(frozen=True)
class Places:
    """Where a board or plate is: its middle (3,) in metres and its normal (3,) away from the sensor."""

    center: Float64
    normal: Float64


@dataclass(frozen=True)
class Match:
    """What most poses agree on.

    Attributes:
        transform: from the sensor of the candidates to the camera.
        chosen: (V,) which candidate of each pose is the board, -1 where none is.
    """

    transform: RigidTransform
    chosen: NDArray[np.intp]

    @property
    def count(self) -> int:
        """How many poses agree."""
        return int((self.chosen >= 0).sum())


def aligned(own: Sequence[Places], other: Sequence[Places]) -> RigidTransform:
    """The transform that brings the places `own` to `other` in the least squares sense."""
    a, b = (np.array([place.center for place in part]) for part in (own, other))
    middle_a, middle_b = a.mean(axis=0), b.mean(axis=0)
    spread = max(float(np.sqrt(np.mean(np.sum((b - middle_b) ** 2, axis=1)))), 0.1)
    moment = (b - middle_b).T @ (a - middle_a) / spread**2
    for mine, its in zip(own, other, strict=True):
        moment += np.outer(its.normal, mine.normal)
    turn = nearest_rotation(moment)
    return RigidTransform(turn, middle_b - turn @ middle_a)


def nearest_rotation(moment: Float64) -> Float64:
    """(3, 3) rotation that brings points to others best, of the sum of their outer products, others first.

    Kabsch, "A solution for the best rotation to relate two sets of vectors" (1976).
    """
    left, _, right = np.linalg.svd(moment)
    turn: Float64 = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    return turn


def match(boards: Sequence[Places], candidates: Sequence[Sequence[Places]]) -> Match | None:
    """Find the candidates that move as the boards do.

    Args:
        boards: one for each pose, as the camera saw it.
        candidates: of each pose, what the other sensor saw.

    Returns:
        None where no two poses agree.
    """
    flat = [(v, k) for v, own in enumerate(candidates) for k in range(len(own))]
    pairs = [(a, b) for a, b in combinations(flat, 2) if a[0] != b[0]]
    order: list[int] = np.random.default_rng(0).permutation(len(pairs)).tolist()
    center = np.array([candidates[v][k].center for v, k in flat]).reshape(-1, 3)
    normal = np.array([candidates[v][k].normal for v, k in flat]).reshape(-1, 3)
    view = np.array([v for v, _ in flat], np.intp)
    best: tuple[float, RigidTransform] | None = None
    tried = 0
    for index in order:
        (v, k), (w, j) = pairs[index]
        mine, its = [candidates[v][k], candidates[w][j]], [boards[v], boards[w]]
        if not _alike(mine, its):
            continue
        tried += 1
        if tried > _MOST_PAIRS:
            break
        found = aligned(mine, its)
        score = _score(found, boards, center, normal, view)
        if best is None or score > best[0]:
            best = score, found
    if best is None:
        return None
    transform = best[1]
    for _ in range(_ROUNDS):
        chosen = _chosen(transform, boards, candidates)
        good = np.flatnonzero(chosen >= 0).tolist()
        if len(good) < 2:
            return None
        transform = aligned([candidates[v][chosen[v]] for v in good], [boards[v] for v in good])
    chosen = _chosen(transform, boards, candidates)
    return Match(transform, chosen) if (chosen >= 0).sum() >= 2 else None


def _tolerance(distance: Float64 | float) -> Float64:
    return np.asarray(_NEAR_M + _NEAR_SHARE * np.asarray(distance))


def _alike(mine: Sequence[Places], its: Sequence[Places]) -> bool:
    """Whether two candidates lie to each other as two boards do, which must not be all the same."""
    apart = [float(np.linalg.norm(two[0].center - two[1].center)) for two in (mine, its)]
    angle = [float(two[0].normal @ two[1].normal) for two in (mine, its)]
    if abs(apart[0] - apart[1]) > _tolerance(apart[1]) or abs(angle[0] - angle[1]) > _PAIR_COSINE:
        return False
    line = (its[0].center - its[1].center) / max(apart[1], 1e-9)
    across = max(float(np.linalg.norm(np.cross(line, place.normal))) for place in its)
    return apart[1] > 0.2 and across > 0.3


def _missed(
    transform: RigidTransform, board: Places, center: Float64, normal: Float64
) -> tuple[Float64, Float64]:
    """(K,) metres and cosines by which candidates are off a board."""
    off = np.linalg.norm(transform.apply(center) - board.center, axis=1)
    return off, normal @ transform.rotation.T @ board.normal


def _score(
    transform: RigidTransform,
    boards: Sequence[Places],
    center: Float64,
    normal: Float64,
    view: NDArray[np.intp],
) -> float:
    """How many poses agree, and how well."""
    middle = np.array([board.center for board in boards])[view]
    away = np.array([board.normal for board in boards])[view]
    off = np.linalg.norm(transform.apply(center) - middle, axis=1)
    cosine = np.sum(normal @ transform.rotation.T * away, axis=1)
    near = _tolerance(np.linalg.norm(middle, axis=1))
    good = np.where((off < near) & (cosine > _NEAR_COSINE), 1 - _BETTER_M * off / near, 0.0)
    by_view = np.zeros(len(boards))
    np.maximum.at(by_view, view, good)
    return float(by_view.sum())


def _chosen(
    transform: RigidTransform, boards: Sequence[Places], candidates: Sequence[Sequence[Places]]
) -> NDArray[np.intp]:
    found = np.full(len(boards), -1, np.intp)
    for v, (board, own) in enumerate(zip(boards, candidates, strict=True)):
        if not own:
            continue
        center = np.array([place.center for place in own])
        normal = np.array([place.normal for place in own])
        off, cosine = _missed(transform, board, center, normal)
        off = np.where(cosine > _NEAR_COSINE, off, np.inf)
        if off.min() < _tolerance(float(np.linalg.norm(board.center))):
            found[v] = int(off.argmin())
    return found

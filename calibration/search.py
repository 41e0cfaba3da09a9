"""The pose at which clues fit best: a search from coarse to fine over all six parts of a pose.

The score has many small maxima and is no parabola about the highest: places are drawn about the best ones so
far (the cross-entropy method, Rubinstein 1999), which asks for no slopes.  In a direction in which the score
is flat, the search ends where it leans to: so searches in parts of the data that lean to different places
tell by how they differ what is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from calibration.clues import Clues, Sums, edge_score, information
from perception.geometry.transforms import Float64

STEPS = np.array([0.04, 0.04, 0.06, *np.radians([0.15, 0.15, 0.25])])
"""Usual widths of a maximum: metres and radians."""

LOOKS = ((0.70, 0.32), (0.32, 0.20), (0.20, 0.08))
"""Degrees by which edges and brightness are blurred, coarse to fine."""

ROUNDS = 9
"""Of drawing places; about so many narrow the spread by ten."""

_GRID_STEP = np.radians(0.5)
_GRID_REACH = 2.5  # sigmas of the guess
_WRONG, _WRONG_DEG = 24, (2.0, 5.0)
_SURE = 4.0  # deviations of wrong poses' information
_DRAWN, _ELITE, _KEEP = 40, 10, 0.4
_PULL = 0.01

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scale:
    """Scores of wrong poses, by which both clues are made comparable.

    Attributes:
        edges, information: the median of wrong poses.
        per_edges, per_information: one by what a right pose has more; 0 where it is not told from wrong ones.
    """

    edges: float
    information: float
    per_edges: float
    per_information: float

    def score(self, sums: Sums) -> float:
        """About 2 at a right pose, about 0 at a wrong one."""
        found = (edge_score(sums.edges) - self.edges) * self.per_edges
        if self.per_information:
            found += (information(sums.counts) - self.information) * self.per_information
        return found


class Search:
    """A search for the pose about a guess.

    Args:
        clues: what poses are scored by.
        sigma: (6,) how far the guess may be off: metres, then radians.
        seed: of what is drawn.
    """

    def __init__(self, clues: Clues, sigma: Float64, seed: int = 0) -> None:
        self.clues, self.sigma = clues, sigma
        self._rng = np.random.default_rng(seed)
        self.scale = Scale(0.0, 0.0, 1.0, 0.0)
        self._home = np.zeros(6)

    def lean(self, *, by_chance: bool) -> None:
        """Where the score is flat, lean towards the guess; or to where by its sigma the truth may as well be.

        Searches that lean differently differ by the guess's sigma in what the data do not tell (perturb and
        MAP, Papandreou and Yuille, ICCV 2011), and by next to nothing in what they do.
        """
        self._home = self._rng.normal(0, self.sigma) if by_chance else np.zeros(6)

    def look(self, index: int, at: Float64) -> None:
        """Blur as `LOOKS` says, and learn what wrong poses score."""
        self.clues.look(*LOOKS[index], rough=index == 0)
        self.scale = self._scale(at)

    def _scale(self, at: Float64) -> Scale:
        angle = self._rng.uniform(0, 2 * np.pi, _WRONG)
        away = np.radians(self._rng.uniform(*_WRONG_DEG, _WRONG))
        moves = np.tile(at, (_WRONG, 1))
        moves[:, 3] += away * np.cos(angle)
        moves[:, 4] += away * np.sin(angle)
        wrong = [self.clues.sums(move) for move in moves]
        own = self.clues.sums(at)
        edges = np.array([edge_score(one.edges) for one in wrong])
        told = np.array([information(one.counts) for one in wrong])
        more = edge_score(own.edges) - float(np.median(edges))
        more_told = information(own.counts) - float(np.median(told))
        sure = more_told > _SURE * float(told.std())
        return Scale(
            float(np.median(edges)),
            float(np.median(told)),
            1 / max(more, 0.1),
            1 / more_told if sure else 0.0,
        )

    def score(self, move: Float64) -> float:
        """Of a pose, by what the clues now keep; slightly less far from where it leans."""
        told = self.scale.score(self.clues.sums(move))
        return told - _PULL * float(np.sum(((move - self._home) / self.sigma) ** 2))

    def grid(self) -> Float64:
        """(6,) the best pitch and yaw, on a grid."""
        self.clues.look(*LOOKS[0], rough=True)
        self.scale = Scale(0.0, 0.0, 1.0, 0.0)
        reach = _GRID_REACH * self.sigma[3:5]
        axes = [np.linspace(-r, r, 2 * int(np.ceil(r / _GRID_STEP)) + 1) for r in reach]
        moves = [np.array([0, 0, 0, pitch, yaw, 0]) for pitch, yaw in product(*axes)]
        return moves[int(np.argmax([self.score(move) for move in moves]))]

    def climb(self, at: Float64, spread: Float64, free: Bools, rounds: int = ROUNDS) -> Float64:
        """(6,) the best of what is drawn about `at`, with deviations `spread` (6,) at first."""
        held = np.ix_(free, free)
        covariance = np.diag(spread**2)[held]
        best, score = at, self.score(at)
        middle = at[free]
        share = np.log(_ELITE + 0.5) - np.log(np.arange(1, _ELITE + 1))
        share /= share.sum()
        least = np.diag((0.02 * STEPS[free]) ** 2)
        for _ in range(rounds):
            drawn = np.tile(at, (_DRAWN, 1))
            drawn[:, free] = self._rng.multivariate_normal(middle, covariance + least, _DRAWN)
            scores = np.array([self.score(move) for move in drawn])
            order = np.argsort(-scores)[:_ELITE]
            if scores[order[0]] > score:
                best, score = drawn[order[0]], float(scores[order[0]])
            elite = drawn[order][:, free]
            off = elite - middle
            covariance = _KEEP * covariance + (1 - _KEEP) * (off.T * share) @ off
            middle = share @ elite
        last = at.copy()
        last[free] = middle
        return last if self.score(last) > score else best

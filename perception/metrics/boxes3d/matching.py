"""Greedy matching of boxes of the same frame: those on one side take, in turn, what is left on the other.

What the fields call matching are two cases of it.  With nuScenes predictions choose among the truth by
distance, the surest first; with KITTI objects of the truth choose among the detections by score or by
overlap, in the order in which they are listed.  All frames choose at once, and so do all levels
(thresholds of a distance, of a score) of one matching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK = 2**18  # pairs that are measured at once
_MOST_PAIRS = 2**24


@dataclass(frozen=True)
class Pairs:
    """Pairs of boxes of the same frame that may be matched, ordered by `turn`, `chooser` and `choice`.

    Attributes:
        chooser: (P,) int64, index of the box that chooses.
        choice: (P,) int64, index of a box that it may choose.
        value: (P,) float64, what was measured between both, such as their overlap.
        turn: (P,) int64, when the chooser has its turn; those of one turn are of different frames.
    """

    chooser: Ints
    choice: Ints
    value: Floats
    turn: Ints

    def __len__(self) -> int:
        return len(self.chooser)

    def where(self, keep: Bools) -> Pairs:
        """Those of the pairs for which `keep`, (P,) bool, is true."""
        return Pairs(self.chooser[keep], self.choice[keep], self.value[keep], self.turn[keep])

    def chosen(self, worth: Floats, may: Bools, choices: int) -> Bools:
        """Let each chooser, in its turn, take the free choice that is worth most; of equal ones the first.

        Args:
            worth: (P,) float64, of each pair.
            may: (L, P) bool, which pairs there are at each of L levels.
            choices: how many boxes there are to choose among.

        Returns:
            (L, P) bool, the pairs that came about at each level.
        """
        out = np.zeros(may.shape, bool)
        free = np.ones((len(may), choices), bool)
        ends = [0, *(np.flatnonzero(np.diff(self.turn)) + 1), len(self)] if len(self) else []
        for first, last in pairwise(ends):
            choice = self.choice[first:last]
            offered = np.where(may[:, first:last] & free[:, choice], worth[first:last], -np.inf)
            starts = np.flatnonzero(np.diff(self.chooser[first:last], prepend=-1))
            best = np.maximum.reduceat(offered, starts, axis=1)
            best = np.repeat(best, np.diff(starts, append=last - first), axis=1)
            position = np.where((offered == best) & (best > -np.inf), np.arange(last - first), last)
            taken = np.minimum.reduceat(position, starts, axis=1)
            level, chooser = np.nonzero(taken < last)
            pair = taken[level, chooser]
            out[level, first + pair] = True
            free[level, choice[pair]] = False
        return out


def pairs_of_frames(
    choosers: Ints,
    choices: Ints,
    measure: Callable[[Ints, Ints], Floats],
    keep: Callable[[Floats], Bools],
) -> Pairs:
    """The pairs of boxes of the same frame between which a measure is good enough.

    Args:
        choosers, choices: (N,) and (M,) int64, the frame of each box.  Of a frame's choosers the one that is
            listed first has the first turn.
        measure: of pairs' indices, (P,) and (P,) int64, what is between both, (P,) float64.
        keep: which values, (P,) float64, are good enough, (P,) bool.

    Raises:
        InputError: there are too many.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    total = 0
    for chooser, choice in _same_frame(choosers, choices):
        value = measure(chooser, choice)
        good = keep(value)
        found.append((chooser[good], choice[good], value[good]))
        total += len(found[-1][0])
        if total > _MOST_PAIRS:
            raise InputError(
                f"more than {_MOST_PAIRS} pairs of boxes are close to each other",
                hint="leave out predictions of low scores",
            )
    chooser, choice, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    turn = _turns(choosers, chooser)
    by = np.lexsort((choice, chooser, turn))
    return Pairs(chooser[by], choice[by], value[by], turn[by])


def _same_frame(a: Ints, b: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Indices of all pairs of one of `a` and one of `b` that are of the same frame, some at a time."""
    order = np.argsort(b, kind="stable")
    low = np.searchsorted(b[order], a, "left")
    count = np.searchsorted(b[order], a, "right") - low
    block = np.cumsum(count) // _BLOCK
    ends = [0, *(np.flatnonzero(np.diff(block)) + 1), len(a)]
    for first, last in pairwise(ends):
        own = count[first:last]
        within = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
        yield (
            np.repeat(np.arange(first, last), own),
            order[np.repeat(low[first:last], own) + within],
        )


def _turns(frames: Ints, chooser: Ints) -> Ints:
    """(P,) turn of the chooser of each pair; those without a pair need none."""
    own = np.unique(chooser)
    own = own[np.argsort(frames[own], kind="stable")]
    starts = np.flatnonzero(np.diff(frames[own], prepend=frames[own][:1] - 1))
    turn = np.zeros(len(frames), np.int64)
    turn[own] = np.arange(len(own)) - np.repeat(starts, np.diff(starts, append=len(own)))
    return turn[chooser]

"""Matching of all frames at once is that of one box after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.errors import InputError
from perception.metrics.boxes3d import matching
from perception.metrics.boxes3d.matching import pairs_of_frames


def _naive(
    choosers: list[int], choices: list[int], worth: np.ndarray[Any, Any], may: np.ndarray[Any, Any]
) -> list[int]:
    """What each chooser takes, one after the other."""
    taken: set[int] = set()
    out = []
    for i, frame in enumerate(choosers):
        best = -1
        for j, other in enumerate(choices):
            if other == frame and j not in taken and may[i, j]:
                best = j if best < 0 or worth[i, j] > worth[i, best] else best
        taken |= {best} - {-1}
        out.append(best)
    return out


@given(
    st.lists(st.integers(0, 3), max_size=12),
    st.lists(st.integers(0, 3), max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_all_frames_choose_at_once_as_one_after_the_other(
    choosers: list[int], choices: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = len(choosers), len(choices)
    worth = rng.integers(0, 4, shape).astype(float)  # of which many are equal
    may = rng.random((3, *shape)) < 0.7
    near = rng.random(shape) < 0.8
    a, b = np.array(choosers, np.int64), np.array(choices, np.int64)
    pairs = pairs_of_frames(
        a, b, lambda i, j: np.where(near[i, j], worth[i, j], -1.0), lambda value: value >= 0
    )
    for frame in range(4):  # all begin at once
        turns = np.unique(pairs.turn[a[pairs.chooser] == frame])
        assert turns.tolist() == list(range(len(turns)))
    picked = pairs.chosen(pairs.value, may[:, pairs.chooser, pairs.choice], len(b))
    for level in range(3):
        found = dict(zip(pairs.chooser[picked[level]], pairs.choice[picked[level]], strict=True))
        wanted = _naive(choosers, choices, worth, may[level] & near)
        assert [found.get(i, -1) for i in range(len(a))] == wanted


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MOST_PAIRS", 90)
    monkeypatch.setattr(matching, "_BLOCK", 7)
    ten = np.zeros(10, np.int64)

    def every(choices: NDArray[np.int64], least: float = 0) -> int:
        return len(pairs_of_frames(ten, choices, lambda i, j: 1.0 + j, lambda value: value > least))

    with pytest.raises(InputError, match="more than 90 pairs"):
        every(ten)
    assert every(ten[:9]) == 90 and every(ten, least=2) == 80

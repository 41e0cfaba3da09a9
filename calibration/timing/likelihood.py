"""How well one sensor's turning is told from another's, by how far their stamps are shifted.

Rates of turning are about axes and in units of their own, so that what is compared is how well one's can be
told from the other's by any linear map: the likelihood ratio of a joint normal distribution (Wilks' lambda).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.timing.motion import Motion, rates_on
from perception.geometry.transforms import Float64, as_numbers

_FINE, _FINEST_S, _COARSEST_S = 32, 0.001, 0.005
_SMOOTH = 0.6  # periods of the slower sensor
_LOBE = 0.4  # the same: so near the maximum is a parabola
_BLOCK_S, _MOST_BLOCKS = 1.0, 40


class Shifted:
    """The rates of two sensors: of the reference at times that are shifted, of the other at its own.

    Args:
        reference, sensor: how they turned.
        base_ns: what is added to the sensor's stamps beforehand.
        within_s: shifts that are looked at, to both sides.

    Attributes:
        period_s: of the slower one.
        seconds: in which the rates of both are known, whatever the shift.
        lags: (L,) shifts, seconds: what else is added to the sensor's stamps.
        blocks: parts of the recording, of a second or more.
        middles: (blocks,) their times, seconds after the first.
        gram: (L, blocks, K, K) sums of products of the rows [1, reference's rates, sensor's rates].
    """

    def __init__(self, reference: Motion, sensor: Motion, base_ns: int, within_s: float) -> None:
        self.period_s = max(reference.period_ns, sensor.period_ns) / 1e9
        self.lobe_s = _LOBE * self.period_s
        step = float(np.clip(self.period_s / _FINE, _FINEST_S, _COARSEST_S))
        self._reach = int(np.ceil(within_s / step))
        self.lags = np.arange(-self._reach, self._reach + 1) * step
        self.axes, self.others = reference.turns.shape[1], sensor.turns.shape[1]
        self.seconds, self.blocks = 0.0, 0
        start = int(sensor.stamps_ns[0]) + base_ns
        long_s = (int(sensor.stamps_ns[-1]) + base_ns - start) / 1e9
        grid = as_numbers(
            np.arange(-self._reach, int(long_s / step) + self._reach + 1) * step, "grid"
        )
        smooth = _SMOOTH * self.period_s
        self._fixed, known = rates_on(sensor, start - base_ns, grid, smooth)
        self._moving, seen = rates_on(reference, start, grid, smooth)
        stride = max(1, round(self.period_s / 2 / step))
        at = np.arange(self._reach, len(grid) - self._reach, stride)
        # Rows that are there for every shift, so that none wins by having others.
        unseen = np.concatenate([[0], np.cumsum(~seen)])
        all_seen = unseen[at + self._reach + 1] == unseen[at - self._reach]
        self._at = at[known[at] & all_seen]
        self.seconds = len(self._at) * stride * step
        if not len(self._at):
            return
        block = (grid[self._at] / max(_BLOCK_S, self.seconds / _MOST_BLOCKS)).astype(np.int64)
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        self.blocks = len(starts)
        self.middles = np.array([part.mean() for part in np.split(grid[self._at], starts[1:])])
        self.gram = np.array([self._sums(shift, starts) for shift in self._shifts])

    @property
    def _shifts(self) -> range:
        return range(-self._reach, self._reach + 1)

    def _rows(self, shift: int, order: NDArray[np.int64] | None = None) -> Float64:
        own = self._at if order is None else self._at[order]
        return np.column_stack(
            [np.ones(len(own)), self._moving[self._at + shift], self._fixed[own]]
        )

    def _sums(self, shift: int, starts: NDArray[np.int64]) -> Float64:
        rows = self._rows(shift)
        return np.add.reduceat(rows[:, :, None] * rows[:, None, :], starts, axis=0)

    def scores(self, gram: Float64) -> Float64:
        """(...) half the logarithm of the likelihood ratio per row, of sums (..., K, K)."""
        mean = gram[..., :1, 1:] / np.maximum(gram[..., :1, :1], 1e-12)
        both = gram[..., 1:, 1:] - gram[..., 1:, :1] * mean
        scale = np.sqrt(np.maximum(np.diagonal(both, axis1=-2, axis2=-1), 1e-30))
        both = both / scale[..., :, None] / scale[..., None, :] + 1e-6 * np.eye(both.shape[-1])
        one, other = both[..., : self.axes, : self.axes], both[..., self.axes :, self.axes :]
        logs = [np.linalg.slogdet(part)[1] for part in (one, other, both)]
        return np.asarray((logs[0] + logs[1] - logs[2]) / 2, np.float64)

    def peak(self, scores: Float64) -> float:
        """Where a parabola about the highest score is highest, seconds."""
        top = int(scores.argmax())
        near = np.abs(self.lags - self.lags[top]) <= self.lobe_s
        away = self.lags[near] - self.lags[top]
        bend, slope, _ = np.polyfit(away / self.lobe_s, scores[near], 2)
        move = -slope / (2 * bend) if bend < 0 else 0.0
        found = self.lags[top] + np.clip(move, -1, 1) * self.lobe_s
        return float(np.clip(found, self.lags[0], self.lags[-1]))

    def by_chance(self, rng: np.random.Generator, times: int) -> Float64:
        """(times,) the highest scores over all shifts, of parts that do not belong together."""
        stride = max(1, round(self.lobe_s / (self.lags[1] - self.lags[0])))
        moving = [self._rows(shift) for shift in self._shifts[::stride]]
        found = np.empty(times)
        for number in range(times):
            turned = np.roll(np.arange(len(self._at)), int(rng.integers(len(self._at))))
            parts = np.array_split(turned, self.blocks)
            order = np.concatenate([parts[index] for index in rng.permutation(self.blocks)])
            own = self._fixed[self._at[order]]
            rows = [np.hstack([one[:, : 1 + self.axes], own]) for one in moving]
            found[number] = self.scores(np.array([one.T @ one for one in rows])).max()
        return found

    def drift(self, gram: Float64, weights: Float64, peak: float) -> tuple[float, Float64]:
        """How fast the offset grows, and (draws,) the same of other weights (draws, blocks) of the blocks.

        With the map from one's rates to the other's as it is for the whole recording, each block has a
        likelihood of its own over the shifts; the line through all of them is the most likely one.
        """
        whole = gram.sum(axis=1)[int(np.abs(self.lags - peak).argmin())]
        first = 1 + self.axes
        left = whole[:first, :first] + 1e-9 * np.trace(whole[:first, :first]) * np.eye(first)
        mapped = np.linalg.solve(left, whole[:first, first:]).T
        apply = np.hstack([-mapped, np.eye(len(mapped))])
        rest = apply @ whole @ apply.T
        weight = np.linalg.inv(rest + 1e-9 * np.trace(rest) * np.eye(len(rest)))
        near = np.abs(self.lags - peak) <= self.lobe_s
        losses = np.einsum("pi,lbij,qj,pq->lb", apply, gram[near], apply, weight, optimize=True)
        shifts = (self.lags[near] - peak) / self.lobe_s
        bend, slope, _ = np.polyfit(shifts, -losses, 2) / self.lobe_s ** np.array([[2], [1], [0]])
        away = self.middles - self.middles.mean()
        lines = np.column_stack([np.ones(len(away)), away])
        normal = np.einsum("b,bi,bj->bij", -2 * bend, lines, lines)
        sides = slope[:, None] * lines
        every = np.vstack([np.ones(len(away)), weights])
        normals, right = np.einsum("db,bij->dij", every, normal), every @ sides
        tiny = 1e-9 * np.abs(normals).max() * np.eye(2)
        found = np.linalg.solve(normals + tiny, right[..., None])[:, 1, 0]
        return float(found[0]), found[1:]

"""By how much a depth camera's metres are off, from planes of a board: true = bias + scale * seen (+ ...).

Pixels of one plane share what its pose, the sensor's pattern and its warming up are off by: what a plane says
is bounded by how planes scatter, which is estimated, and sigma is that of a jackknife over planes (Efron and
Stein, "The jackknife estimate of variance", 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.outcome import Doubted, root_mean_square, sigma_of
from calibration.values.planes import PlaneView
from perception.errors import CalibrationError
from perception.geometry.transforms import Float64

FEWEST_POSES = 4
"""Fewer leave none to check the others with."""

MOST_DEGREE = 3

_GOOD_POSES = 10
_LEAST_RATIO, _GOOD_RATIO = 1.25, 2.0
_UNITS = {
    1e-3: ("are its floats millimetres?", "write float metres, or 16 bit millimetres"),
    1e3: ("were metres stored as whole millimetres?", "write float metres, or 16 bit millimetres"),
    1e-2: ("are its floats centimetres?", "write float metres, or 16 bit millimetres"),
    10.0: ("are its steps centimetres?", "--depth-scale 0.01"),
    0.1: ("are its steps 0.1 mm?", "--depth-scale 0.0001"),
    0.2: ("are its steps 0.2 mm?", "--depth-scale 0.0002"),
    0.25: ("are its steps 0.25 mm?", "--depth-scale 0.00025"),
}
_UNIT_NEAR = 1.12
_FAR_OFF = 0.15
_ROUNDS = 4
_BLUNDER = 3.5
_OUTLIER, _OUTLIER_M, _OUTLIER_SHARE = 4.0, 0.004, 0.004
_LEAST_NOISE_M = 2e-4
_DOUBT_SHARE, _DOUBT_SIGMA = 0.015, 0.01
_CHANCE = 3.0  # a coefficient that means nothing may take 3 / planes of the error
_ALONG_RAYS = 0.6


@dataclass(frozen=True)
class DepthFit(Doubted):
    """How true metres follow from seen ones.

    Attributes:
        coefficients: (degree + 1,) of the polynomial in seen metres, the constant (metres) first.
        covariance: theirs.
        range_m: least and largest seen metres that it was fitted to.
        views: the planes that were used.
        off_before: (V,) metres by which each plane is off as it was seen.
        off_after: (V,) the same after the correction.
        noise: (V,) standard deviation of the pixels about their plane, metres.
        held_out: by degree, (V,) metres by which each plane is off where it was not in the fit.
        left_out: poses that were not used, with the reason.
        doubts: why it is not to be trusted.
        remarks: what would make it better.
    """

    coefficients: Float64
    covariance: Float64
    range_m: tuple[float, float]
    views: tuple[PlaneView, ...]
    off_before: Float64
    off_after: Float64
    noise: Float64
    held_out: dict[int, Float64]
    left_out: dict[str, str]
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def degree(self) -> int:
        """Of the polynomial."""
        return len(self.coefficients) - 1

    @property
    def off_held_out(self) -> Float64:
        """(V,) metres by which each plane is off where it was not fitted."""
        return self.held_out[self.degree]

    @property
    def held_out_m(self) -> dict[int, float]:
        """By degree, root mean square of `held_out`."""
        return {degree: root_mean_square(off) for degree, off in self.held_out.items()}

    @property
    def sigma(self) -> Float64:
        """(degree + 1,) standard deviations of the coefficients."""
        return sigma_of(self.covariance)

    def true_of(self, seen: Float64) -> Float64:
        """Metres after the correction, of metres as they were seen."""
        return np.asarray(np.polynomial.polynomial.polyval(seen, self.coefficients))

    def sigma_at(self, seen: Float64) -> Float64:
        """Standard deviations of the correction, metres."""
        powers = np.vander(np.atleast_1d(seen), self.degree + 1, increasing=True)
        inner = np.einsum("ni,ij,nj->n", powers, self.covariance, powers)
        return np.sqrt(np.maximum(inner, 0))

    @property
    def needed(self) -> bool:
        """Whether it changes depth by more than two sigma anywhere within its range."""
        at = np.linspace(*self.range_m, 20)
        return bool((np.abs(self.true_of(at) - at) > 2 * self.sigma_at(at)).any())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ends = np.array(self.range_m)
        return {
            "scale": float(self.coefficients[1]),
            "bias_m": float(self.coefficients[0]),
            "coefficients": self.coefficients.tolist(),
            "sigma": self.sigma.tolist(),
            "covariance": self.covariance.tolist(),
            "range_m": list(self.range_m),
            "sigma_m": dict(zip(("near", "far"), self.sigma_at(ends).tolist(), strict=True)),
            "before_rms_m": root_mean_square(self.off_before),
            "rms_m": root_mean_square(self.off_after),
            "held_out_rms_m": {str(k): v for k, v in self.held_out_m.items()},
            "needed": self.needed,
            "poses": {
                view.name: {
                    "distance_m": view.distance,
                    "off_before_m": float(before),
                    "off_m": float(after),
                    "off_held_out_m": float(held),
                    "noise_m": float(noise),
                    "pixels": len(view.seen),
                }
                for view, before, after, held, noise in zip(
                    self.views,
                    self.off_before,
                    self.off_after,
                    self.off_held_out,
                    self.noise,
                    strict=True,
                )
            },
            "left_out": self.left_out,
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def calibrate_depth(
    views: Sequence[PlaneView], left_out: Mapping[str, str], degree: int = 1
) -> DepthFit:
    """Fit what makes seen depth true.

    Args:
        views: planes of a board, see `planes.plane_views`.
        left_out: poses without one, with the reason.
        degree: of the polynomial: 1 for scale and bias, up to `MOST_DEGREE`.

    Raises:
        CalibrationError: too few planes, all at one distance, or depth that is in another unit, inverse, or
            along rays.
    """
    out = dict(left_out)
    _check(views, out)
    own = list(views)
    for _ in range(_ROUNDS):
        problem = _Problem(own, degree)
        found = problem.solve()
        keep = problem.agreeing(found)
        if keep.all() or keep.sum() < max(FEWEST_POSES, len(own) / 2):
            break
        for view, off, good in zip(own, problem.off(found), keep, strict=True):
            if not good:
                out[view.name] = f"{1000 * off:+.0f} mm off the others: did the board move?"
        own = [view for view, good in zip(own, keep, strict=True) if good]
    problem = _Problem(own, degree)
    found = problem.solve()
    parts = problem.without_each()
    held = {
        other: _held_out(_Problem(own, other))
        for other in range(1, MOST_DEGREE + 1)
        if other == degree or len(own) > other + 2
    }
    seen = np.concatenate([view.seen[good] for view, good in zip(own, problem.good, strict=True)])
    done = DepthFit(
        found,
        _jackknifed(parts),
        (float(np.percentile(seen, 0.5)), float(np.percentile(seen, 99.5))),
        tuple(own),
        problem.off(np.array([0.0, 1.0])),
        problem.off(found),
        problem.noise,
        held,
        dict(sorted(out.items())),
    )
    doubts, remarks = _judged(done, len(views))
    return replace(done, doubts=tuple(doubts), remarks=tuple(remarks))


def _check(views: Sequence[PlaneView], left_out: Mapping[str, str]) -> None:
    if len(views) < FEWEST_POSES:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:2])
        raise CalibrationError(
            f"{len(views)} usable poses, {FEWEST_POSES} are needed",
            hint=f"record 10 or more, near and far, standing still. {why}".strip(),
        )
    distance = np.array([view.distance for view in views])
    if distance.max() < _LEAST_RATIO * distance.min():
        raise CalibrationError(
            f"all poses are at one distance, {distance.min():.2f} to {distance.max():.2f} m: that does not "
            "tell a scale from a bias",
            hint="record the board near and far, over the whole range that is used",
        )
    seen = np.array([float(np.median(view.seen)) for view in views])
    ratio = float(np.median(distance / seen))
    for unit, (question, hint) in _UNITS.items():
        if 1 / _UNIT_NEAR < ratio / unit < _UNIT_NEAR:
            raise CalibrationError(
                f"depth says {np.median(seen):.4g} m where the board is at {np.median(distance):.3g} m: "
                f"{question}",
                hint=hint,
            )
    order = np.argsort(distance)
    if np.corrcoef(np.argsort(order), np.argsort(np.argsort(seen)))[0, 1] < 0:
        raise CalibrationError(
            "values fall with distance: are these disparities or inverse depth?",
            hint="write metres along the optical axis",
        )
    _check_rays(views)


def _check_rays(views: Sequence[PlaneView]) -> None:
    """Refuse distances along rays, which differ from depth at the sides of the picture."""
    plain = _Problem(views, 1)
    along = _Problem([replace(view, seen=view.seen / view.stretch) for view in views], 1)
    left = [root_mean_square(np.concatenate(one.parts(one.solve()))) for one in (plain, along)]
    if left[1] < _ALONG_RAYS * left[0]:
        raise CalibrationError(
            f"depth fits the board {left[0] / left[1]:.1f} times as well when it is taken for distances "
            "along the rays",
            hint="write depth along the optical axis (REP 118): divide by the length of (x/z, y/z, 1)",
        )


class _Problem:
    """Weighted least squares over planes; noise of pixels, and by how much planes scatter, grow with the
    square of the distance, as those of triangulation and of a board's pose do."""

    def __init__(self, views: Sequence[PlaneView], degree: int) -> None:
        self.views, self.degree = views, degree
        self.powers = [np.vander(view.seen, degree + 1, increasing=True) for view in views]
        self.good = [_inner(view) for view in views]
        self.noise = np.array(
            [
                max(_LEAST_NOISE_M, float(np.std(_flat(view)[good])))
                for view, good in zip(views, self.good, strict=True)
            ]
        )
        self.square = np.array([view.distance for view in views]) ** 2
        self.scatter = 0.0

    def parts(self, coefficients: Float64) -> list[Float64]:
        """By view, metres by which pixels are off their plane, without blunders."""
        return [
            (view.true - powers @ coefficients)[good]
            for view, powers, good in zip(self.views, self.powers, self.good, strict=True)
        ]

    def off(self, coefficients: Float64) -> Float64:
        """(V,) metres by which planes are off."""
        count = len(coefficients)
        return np.array(
            [
                np.median(
                    (view.true - np.vander(view.seen, count, increasing=True) @ coefficients)[good]
                )
                for view, good in zip(self.views, self.good, strict=True)
            ]
        )

    def _moments(self) -> tuple[Float64, Float64]:
        """(V, P, P) and (V, P): what each plane says of the coefficients."""
        inner, right = [], []
        for view, powers, good, noise, square in zip(
            self.views, self.powers, self.good, self.noise, self.square, strict=True
        ):
            count = int(good.sum())
            weight = 1 / (noise**2 + count * (self.scatter * square) ** 2)
            inner.append(weight * powers[good].T @ powers[good])
            right.append(weight * powers[good].T @ view.true[good])
        return np.array(inner), np.array(right)

    def solve(self) -> Float64:
        """The coefficients, with the scatter of planes that goes with them."""
        found = np.zeros(self.degree + 1)
        for _ in range(_ROUNDS):
            inner, right = self._moments()
            found = np.linalg.solve(inner.sum(axis=0), right.sum(axis=0))
            self.scatter = 1.4826 * float(np.median(np.abs(self.off(found) / self.square)))
        return found

    def agreeing(self, coefficients: Float64) -> NDArray[np.bool_]:
        """(V,) whether a plane is where the others say."""
        off = np.abs(self.off(coefficients))
        distance = np.sqrt(self.square)
        most = _OUTLIER * self.scatter * self.square
        return np.asarray(off <= np.maximum(most, _OUTLIER_M + _OUTLIER_SHARE * distance))

    def without_each(self) -> Float64:
        """(V, P) the coefficients without one plane each."""
        inner, right = self._moments()
        whole, all_right = inner.sum(axis=0), right.sum(axis=0)
        return np.array(
            [np.linalg.solve(whole - a, all_right - b) for a, b in zip(inner, right, strict=True)]
        )


def _flat(view: PlaneView) -> Float64:
    """(N,) metres by which pixels are off the plane, freed from what all of it is off by and its tilt."""
    slope = np.column_stack([np.ones(len(view.true)), view.true])
    off = view.true - view.seen
    keep = np.abs(off - np.median(off)) <= _BLUNDER * _spread(off)
    return np.asarray(off - slope @ np.linalg.lstsq(slope[keep], off[keep], rcond=None)[0])


def _spread(values: Float64) -> float:
    return max(_LEAST_NOISE_M, 1.4826 * float(np.median(np.abs(values - np.median(values)))))


def _inner(view: PlaneView) -> NDArray[np.bool_]:
    """(N,) pixels that are no blunders: a hand before the board, a hole, an edge."""
    off = _flat(view)
    return np.asarray(np.abs(off - np.median(off)) <= _BLUNDER * _spread(off))


def _held_out(problem: _Problem) -> Float64:
    problem.solve()
    return np.array(
        [problem.off(found)[index] for index, found in enumerate(problem.without_each())]
    )


def _jackknifed(parts: Float64) -> Float64:
    """(P, P) the covariance, of coefficients without one plane each."""
    off = parts - parts.mean(axis=0)
    return np.asarray((len(parts) - 1) / len(parts) * off.T @ off)


def _judged(done: DepthFit, given: int) -> tuple[list[str], list[str]]:
    doubts, remarks = [], []
    middle = float(np.median([view.distance for view in done.views]))
    held = done.held_out_m[done.degree]
    if not held < _DOUBT_SHARE * middle:
        doubts.append(f"planes that were not fitted are {1000 * held:.0f} mm off")
    for at in done.range_m:
        share = float(done.sigma_at(np.array([at]))[0]) / at
        if not share < _DOUBT_SIGMA:
            doubts.append(
                f"at {at:.2g} m it is known to {100 * share:.1f} % only: record more poses, near and far"
            )
    ends = np.array(done.range_m)
    off = float(np.abs(done.true_of(ends) / ends - 1).max())
    if off > _FAR_OFF:
        doubts.append(
            f"depth would be {100 * off:.0f} % off: are the board's squares and the intrinsics right?"
        )
    if np.diff(done.true_of(np.linspace(*done.range_m, 50))).min() <= 0:
        doubts.append("the polynomial falls with distance: take a lower degree")
    if len(done.views) < 2 / 3 * given:
        doubts.append(f"only {len(done.views)} of {given} poses agree")
    if len(done.views) < _GOOD_POSES:
        remarks.append(f"{len(done.views)} poses: {_GOOD_POSES} or more are better")
    distance = [view.distance for view in done.views]
    if max(distance) < _GOOD_RATIO * min(distance):
        remarks.append(
            f"the board was {min(distance):.2f} to {max(distance):.2f} m away: cover the range that is used"
        )
    higher = done.held_out_m.get(done.degree + 1, held)
    if higher < (1 - _CHANCE / len(done.views)) * held:
        remarks.append(
            f"a polynomial of degree {done.degree + 1} predicts planes better, {1000 * higher:.1f} "
            f"instead of {1000 * held:.1f} mm: --degree {done.degree + 1}"
        )
    return doubts, remarks

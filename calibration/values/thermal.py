"""Counts of a thermal camera in kelvin: which curve, how well it is known, and over which range it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration.outcome import Doubted, root_mean_square
from calibration.values.correction import Curve
from calibration.values.curves import FORMS, CurveFit, Form, chosen, fit_curve, held_out
from calibration.values.points import Points
from perception.errors import CalibrationError, ConfigError, names_hint
from perception.geometry.transforms import Float64

TOLERANCE_K = 2.0
"""By how much points that were not fitted may be off: what makers of radiometric cameras promise."""

FEWEST_POINTS = 4
"""A line has two parameters; fewer leave none to check it with."""

_GOOD_POINTS = 8
_LEAST_SPAN_K, _GOOD_SPAN_K = 5.0, 30.0
_SAME_K = 0.5
_OUTLIER, _OUTLIER_K = 5.0, 1.0
_ROUNDS = 3
_UNEVEN = 0.02  # of the counts' range, within one region
_TABLE = 9


@dataclass(frozen=True)
class Radiometry(Doubted):
    """What counts are worth.

    Attributes:
        fit: of the chosen curve.
        points: that were used.
        held_out: by form, (N,) kelvin by which points are off the curve of the others.
        left_out: points that were not used, with the reason.
        doubts: why it is not to be trusted.
        remarks: what would make it better.
    """

    fit: CurveFit
    points: Points
    held_out: dict[str, Float64]
    left_out: dict[str, str]
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def curve(self) -> Curve:
        """Counts to kelvin."""
        return self.fit.curve

    @property
    def held_out_k(self) -> float:
        """Root mean square of what is held out, kelvin."""
        return root_mean_square(self.held_out[self.curve.model])

    @property
    def range_k(self) -> tuple[float, float]:
        """The coldest and the hottest that it was fitted to, kelvin."""
        low, high = sorted(self.curve.kelvin(np.array(self.curve.counts)).tolist())
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        at = np.linspace(*self.curve.counts, _TABLE)
        kelvin, sigma = self.curve.kelvin(at), self.fit.sigma_at(at)
        return {
            "model": self.curve.model,
            "parameters": dict(self.curve.parameters),
            "counts": list(self.curve.counts),
            "kelvin": list(self.range_k),
            "sigma_k": self.fit.sigma_k,
            "held_out_rms_k": {name: root_mean_square(off) for name, off in self.held_out.items()},
            "curve": [
                {"counts": float(c), "kelvin": float(k), "sigma_k": float(s)}
                for c, k, s in zip(at, kelvin, sigma, strict=True)
            ],
            "points": {
                name: {
                    "counts": float(counts),
                    "kelvin": float(said),
                    "off_k": float(off),
                    "off_held_out_k": float(held),
                }
                for name, counts, said, off, held in zip(
                    self.points.names,
                    self.points.counts,
                    self.points.kelvin,
                    self.fit.residuals,
                    self.held_out[self.curve.model],
                    strict=True,
                )
            },
            "left_out": self.left_out,
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def calibrate_counts(
    points: Points, model: str = "auto", tolerance_k: float = TOLERANCE_K
) -> Radiometry:
    """Find the curve from counts to kelvin.

    Args:
        points: counts with temperatures.
        model: a name of `curves.FORMS`, or `auto`: the one with the fewest parameters, unless another
            predicts points better that it was not fitted to.
        tolerance_k: by how much these may be off.

    Raises:
        CalibrationError: too few points, all of one temperature, or counts that do not follow it.
        ConfigError: no such model.
    """
    if model not in ("auto", *FORMS):
        hint = names_hint(model, ("auto", *FORMS))
        raise ConfigError(f"no curve '{model}'", where="--model", hint=hint)
    forms = list(FORMS.values()) if model == "auto" else [FORMS[model]]
    _check(points, forms[0])
    given, left_out = len(points.counts), dict[str, str]()
    for _ in range(_ROUNDS):
        fits, held = _fitted(forms, points)
        name = chosen(held, [form.name for form in forms if form.name in held])
        off = np.abs(held[name])
        most = max(_OUTLIER * 1.4826 * float(np.median(off)), _OUTLIER_K)
        worst = off > max(most, float(off.max()) / 2 if np.isfinite(off.max()) else most)
        if (
            not worst.any()
            or given < _GOOD_POINTS
            or (~worst).sum() < max(FEWEST_POINTS, given / 2)
        ):
            break
        for index in np.flatnonzero(worst):
            left_out[points.names[index]] = f"{off[index]:.1f} K off the curve of the others"
        points = points.where(~worst)
    done = Radiometry(fits[name], points, held, left_out)
    doubts, remarks = _judged(done, given, tolerance_k)
    return replace(done, doubts=tuple(doubts), remarks=tuple(remarks))


def _fitted(forms: list[Form], points: Points) -> tuple[dict[str, CurveFit], dict[str, Float64]]:
    fits: dict[str, CurveFit] = {}
    held: dict[str, Float64] = {}
    problem: CalibrationError | None = None
    for form in forms:
        if len(points.counts) < form.count + 2 and len(forms) > 1:
            continue
        try:
            fits[form.name] = fit_curve(form, points)
        except CalibrationError as error:
            problem = error
            continue
        held[form.name] = held_out(form, points, fits[form.name])
    if not fits:
        raise problem or CalibrationError("no curve goes through the points")
    return fits, held


def _check(points: Points, form: Form) -> None:
    count = len(points.counts)
    needed = max(FEWEST_POINTS, form.count + 1)
    if count < needed:
        raise CalibrationError(
            f"{count} points, {needed} are needed",
            hint=f"record {_GOOD_POINTS} or more temperatures over the whole range that is used",
        )
    span = float(np.ptp(points.kelvin))
    if span < _LEAST_SPAN_K:
        raise CalibrationError(
            f"all points are within {span:.2g} K: that does not tell a gain from an offset",
            hint="record temperatures over the whole range that is used",
        )
    temperatures = np.unique(np.round(points.kelvin / _SAME_K))
    if len(temperatures) < form.count + 1:
        raise CalibrationError(
            f"points have {len(temperatures)} temperatures, {form.count + 1} are needed",
            hint="record temperatures over the whole range that is used",
        )
    if not np.ptp(points.counts) > 0:
        raise CalibrationError(
            "all points have the same counts", hint="are these the counts of the camera?"
        )
    follows = float(np.corrcoef(points.counts, points.kelvin)[0, 1])
    if abs(follows) < 0.5:
        raise CalibrationError(
            f"counts do not follow the temperatures (correlation {follows:+.2f})",
            hint="do the temperatures belong to these points, and is the camera's automatic gain off?",
        )


def _judged(done: Radiometry, given: int, tolerance_k: float) -> tuple[list[str], list[str]]:
    doubts, remarks = [], []
    if not done.held_out_k < tolerance_k:
        doubts.append(
            f"points that were not fitted are {done.held_out_k:.2g} K off, {tolerance_k:g} K are allowed"
        )
    sigma = float(done.fit.sigma_at(np.array(done.curve.counts)).max())
    if not sigma < tolerance_k:
        doubts.append(
            f"at the ends of its range it is known to {sigma:.2g} K only: record more points there"
        )
    counts = np.linspace(*done.curve.counts, 50)
    kelvin = done.curve.kelvin(counts)
    if not np.isfinite(kelvin).all():
        doubts.append("the curve has no temperature for some counts of its range")
    elif kelvin[-1] < kelvin[0]:
        remarks.append("counts fall with temperature: is that so with this camera?")
    used = len(done.points.counts)
    if used < 2 / 3 * given:
        doubts.append(f"only {used} of {given} points agree")
    if used < _GOOD_POINTS:
        remarks.append(f"{used} points: {_GOOD_POINTS} or more tell the curve from a line")
    span = float(np.ptp(done.points.kelvin))
    if span < _GOOD_SPAN_K:
        remarks.append(f"points span {span:.0f} K: cover the range that is used")
    wide = done.points.spread > _UNEVEN * max(float(np.ptp(done.points.counts)), 1e-9)
    for name in np.array(done.points.names)[wide].tolist():
        remarks.append(f"{name}: the region is of no one temperature")
    return doubts, remarks

"""From a thermal camera's counts to kelvin: a line, or Planck's law as radiometric cameras state it.

`T = B / ln(R / (S + O) + F)`, where S are counts; R is what cameras' metadata have as R1 / R2.  B is the
second radiation constant (14388 um K) divided by the effective wavelength; F is 1 but for the shape of the
spectral response.  See Horny, "FPA camera standardisation", Infrared Physics & Technology 44 (2003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from calibration.outcome import root_mean_square
from calibration.values.correction import Curve
from calibration.values.points import Points
from perception.errors import CalibrationError
from perception.geometry.transforms import Float64

_B_RANGE = (800.0, 6000.0)  # wavelengths of 18 to 2.4 um
_F_RANGE = (0.3, 3.0)
_B_TRIED = 40
_STEPS = 200
_CAUCHY = 2.5
_FAR_K = 1e4
_CHANCE = 3.0  # in simulation exceeded in some 3 % of cases, for 8 to 20 points


@dataclass(frozen=True)
class CurveFit:
    """A curve fitted to points.

    Attributes:
        curve: what was found.
        covariance: of its parameters, in their order.
        residuals: (N,) kelvin, said less predicted.
        sigma_k: standard deviation of a point about the curve, kelvin.
    """

    curve: Curve
    covariance: Float64
    residuals: Float64
    sigma_k: float

    def sigma_at(self, counts: Float64) -> Float64:
        """(N,) standard deviations of the curve, without the scatter of points about it, kelvin."""
        form = FORMS[self.curve.model]
        x = form.values(self.curve)
        slope = _slope(lambda values: form.kelvin(values, np.atleast_1d(counts)), x)
        inner = np.einsum("ni,ij,nj->n", slope, self.covariance, slope)
        return np.sqrt(np.maximum(inner, 0))


@dataclass(frozen=True)
class Form:
    """A form of curve.

    Attributes:
        name: as users say it.
        model: of `Curve`, with the names of its parameters.
        count: how many are fitted.
        kelvin: (parameters, counts) -> kelvin.
        start: (points) -> parameters near the best.
        bounds: of the parameters.
    """

    name: str
    names: tuple[str, ...]
    count: int
    kelvin: Callable[[Float64, Float64], Float64]
    start: Callable[[Points], Float64]
    bounds: tuple[Float64, Float64]

    def curve(self, x: Float64, points: Points) -> Curve:
        """The curve of parameters."""
        values = _natural(self.names, x)
        ends = tuple(float(f(points.counts)) for f in (np.min, np.max))
        return Curve(self.name, dict(zip(self.names, values, strict=True)), (ends[0], ends[1]))

    def values(self, curve: Curve) -> Float64:
        """The parameters of a curve as they are fitted."""
        x = np.array([curve.parameters[name] for name in self.names][: self.count])
        if self.names[0] == "R":
            x[0] = np.log(x[0])
        return x


def _natural(names: tuple[str, ...], x: Float64) -> list[float]:
    if names[0] != "R":
        return [float(value) for value in x]
    whole = [float(np.exp(x[0])), *(float(value) for value in x[1:])]
    return whole if len(whole) == len(names) else [*whole, 1.0]


def _line(x: Float64, counts: Float64) -> Float64:
    return np.asarray(x[0] * counts + x[1])


def _line_start(points: Points) -> Float64:
    return np.asarray(np.polyfit(points.counts, points.kelvin, 1), np.float64)


def _planck(x: Float64, counts: Float64) -> Float64:
    shape = x[3] if len(x) > 3 else 1.0
    with np.errstate(all="ignore"):
        inner = np.exp(x[0]) / (counts + x[2]) + shape
        kelvin = x[1] / np.log(inner)
    good = (counts + x[2] > 0) & (inner > 1)
    return np.where(good, kelvin, _FAR_K)


def _planck_start(points: Points) -> Float64:
    """For a given B counts are linear in R and -O: the best of some."""
    best, found = np.inf, np.array([12.0, 1400.0, 0.0])
    for b in np.geomspace(*_B_RANGE, _B_TRIED):
        signal = 1 / np.expm1(b / points.kelvin)
        slope = np.column_stack([signal, -np.ones(len(signal))])
        scale = np.abs(slope).max(axis=0)
        (r, o), *_ = np.linalg.lstsq(slope / scale, points.counts, rcond=None)
        r, o = r / scale[0], o / scale[1]
        if r <= 0 or (points.counts + o <= 0).any():
            continue
        x = np.array([np.log(r), b, o])
        missed = float(np.sum((_planck(x, points.counts) - points.kelvin) ** 2))
        if missed < best:
            best, found = missed, x
    return found


_WIDE = 1e12
FORMS = {
    form.name: form
    for form in (
        Form(
            "linear",
            ("gain", "offset"),
            2,
            _line,
            _line_start,
            (np.array([-np.inf, -np.inf]), np.array([np.inf, np.inf])),
        ),
        Form(
            "planck",
            ("R", "B", "O", "F"),
            3,
            _planck,
            _planck_start,
            (np.array([-50.0, _B_RANGE[0] / 2, -_WIDE]), np.array([50.0, _B_RANGE[1] * 2, _WIDE])),
        ),
        Form(
            "planck-f",
            ("R", "B", "O", "F"),
            4,
            _planck,
            lambda points: np.append(_planck_start(points), 1.0),
            (
                np.array([-50.0, _B_RANGE[0] / 2, -_WIDE, _F_RANGE[0]]),
                np.array([50.0, _B_RANGE[1] * 2, _WIDE, _F_RANGE[1]]),
            ),
        ),
    )
}
"""By name; the fewest parameters first."""


def fit_curve(form: Form, points: Points, start: CurveFit | None = None) -> CurveFit:
    """Fit a curve to points, each by its sigma, with Cauchy's loss.

    Args:
        form: of curve.
        points: more than it has parameters.
        start: a fit to go on from.

    Raises:
        CalibrationError: no such curve goes through them.
    """
    x = form.start(points) if start is None else form.values(start.curve)
    x = np.clip(x, *form.bounds)
    weight = 1 / points.sigma
    scale = 1.0
    for _ in range(2):  # how far points scatter is known only after the first

        def missed(values: Float64) -> Float64:
            return (form.kelvin(values, points.counts) - points.kelvin) * weight

        x = least_squares(
            missed,
            x,
            x_scale="jac",
            loss="cauchy",
            f_scale=_CAUCHY * scale,
            bounds=form.bounds,
            max_nfev=_STEPS,
            xtol=1e-12,
            ftol=1e-12,
        ).x
        scale = max(1.4826 * float(np.median(np.abs(missed(x)))), 1e-6)
    said = form.kelvin(x, points.counts)
    if (said >= _FAR_K).any():
        raise CalibrationError(f"no {form.name} curve goes through the points")
    residuals = points.kelvin - said
    free = max(1, len(residuals) - form.count)
    variance = float(np.sum((residuals * weight) ** 2)) / free
    slope = _slope(lambda values: form.kelvin(values, points.counts), x) * weight[:, None]
    lengths = np.linalg.norm(slope, axis=0)
    lengths[lengths == 0] = 1.0
    slope = slope / lengths
    inverse = np.linalg.pinv(slope.T @ slope, hermitian=True) / lengths / lengths[:, None]
    return CurveFit(
        form.curve(x, points),
        np.asarray(variance * inverse),
        residuals,
        float(np.sqrt(np.sum(residuals**2) / free)),
    )


def _slope(function: Callable[[Float64], Float64], x: Float64) -> Float64:
    columns = []
    for index in range(len(x)):
        step = np.zeros(len(x))
        step[index] = 1e-6 * max(1.0, abs(x[index]))
        columns.append((function(x + step) - function(x - step)) / (2 * step[index]))
    return np.stack(columns, axis=1)


def held_out(form: Form, points: Points, whole: CurveFit) -> Float64:
    """(N,) kelvin by which each point is off the curve of the others; inf where there is none."""
    off = np.full(len(points.counts), np.inf)
    for index in range(len(off)):
        rest = points.where(np.arange(len(off)) != index)
        try:
            part = fit_curve(form, rest, whole)
        except CalibrationError:
            continue
        said = form.kelvin(form.values(part.curve), points.counts[index : index + 1])[0]
        off[index] = points.kelvin[index] - said
    return off


def chosen(held: dict[str, Float64], order: Sequence[str]) -> str:
    """The form with the fewest parameters, unless one with more predicts points clearly better:
    by more than a parameter that means nothing does by chance."""
    best = order[0]
    for name in order[1:]:
        if name in held:
            better = (1 - _CHANCE / len(held[name])) * root_mean_square(held[best])
            best = name if root_mean_square(held[name]) < better else best
    return best

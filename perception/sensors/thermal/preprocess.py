"""Thermal values to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from perception.errors import BlindError, InputError, meant
from perception.frame import Sample
from perception.geometry.grid import ViewSpec
from perception.geometry.views import Placement
from perception.sensors.ground import fill_lift, lift_tensors, lifted
from perception.sensors.images import Moves, check_image, keep_where, on_grid, one_image, registered
from perception.sensors.kind import Content, Grid, KindSpec, Tensors, TensorSpec, Value

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec

Float = NDArray[np.float32]

PLAUSIBLE_KELVIN = (100.0, 5000.0)
"""Median temperatures outside this are no temperatures that a thermal camera can have seen."""

COUNTS = {"counts8": 255.0, "counts16": 65535.0}
"""The largest value of each unit of counts."""

_COARSE = (slice(None, None, 8), slice(None, None, 8))
"""The pixels that are looked at to tell what an image's values can be."""


class ThermalRule(KindSpec):
    """Maps raw thermal values to 0..1: between two fixed values, or between two percentiles."""

    kind: Literal["linear", "percentile"] = "linear"
    low: Value = 0.0
    high: Value = 255.0

    @model_validator(mode="after")
    def _ordered(self) -> ThermalRule:
        if self.low >= self.high:
            raise ValueError("thermal rule: low must be below high")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError("thermal rule: percentiles must be within 0..100")
        return self


class ThermalSpec(KindSpec):
    """The scale rule for each thermal unit; channels are the scaled value, centered, and validity."""

    counts8: ThermalRule = ThermalRule()
    counts16: ThermalRule = ThermalRule(kind="percentile", low=1.0, high=99.0)
    kelvin: ThermalRule = ThermalRule(kind="percentile", low=1.0, high=99.0)


def tensors(spec: ThermalSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`image` (2, H, W); and those of a `Lift`, where it is lifted onto the ground grid."""
    return {**one_image(2, view), **lift_tensors(view)}


def validate(sample: Sample) -> None:
    """Refuse what is not (H, W) float32, or cannot be in the unit that it says."""
    check_image(sample, np.float32, 1)
    _check_unit(sample)


def resample(sample: Sample, input: InputSpec) -> Grid:
    """`image` (H, W) float32 in the sample's unit, NaN in the padding."""
    return lifted(on_grid(sample, input, fill=np.nan), sample, input)


def register(sample: Sample, input: InputSpec, placement: Placement) -> Grid:
    """`image` (H, W) float32 in the sample's unit, NaN where there is nothing."""
    return registered(sample, input, placement, fill=np.nan)


def normalize(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """See `ThermalSpec`."""
    normalize_thermal(grid.image, grid.unit, input.preprocess, out["image"])
    fill_lift(grid, input, out)


def check(sample: Sample, thresholds: Any) -> Content:
    """Dark where all values are alike, washed out where too many are the largest of their unit."""
    values = sample.data[::8, ::8]
    values = values[np.isfinite(values)]
    if values.size == 0 or float(values.max() - values.min()) <= thresholds.min_thermal_spread:
        return "dark"
    top = COUNTS[sample.unit] - 1 if sample.unit in COUNTS else np.inf
    share = float((values >= top).mean())
    return "saturated" if share > thresholds.saturated_share else "ok"


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Random but plausible."""
    data = rng.integers(0, 250, size).astype(np.float32)
    return Sample("thermal", data, unit="counts8")


def _limits(values: Float, valid: NDArray[np.bool_], rule: ThermalRule) -> tuple[float, float]:
    if rule.kind == "linear":
        return rule.low, rule.high
    sample = values[::4, ::4][valid[::4, ::4]]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(sample, (rule.low, rule.high))
    return float(low), max(float(high), float(low) + 1e-3)


def normalize_thermal(
    values: Float, unit: str, spec: ThermalSpec, out: Float | None = None
) -> Float:
    """(H, W) thermal values in `unit` to (2, H, W): scaled to -2..2 around 0, and validity."""
    rule: ThermalRule = getattr(spec, unit)
    out = np.empty((2, *values.shape), np.float32) if out is None else out
    valid = np.isfinite(values)
    low, high = _limits(values, valid, rule)
    gain = 4.0 / (high - low)
    np.multiply(values, gain, out=out[0])
    out[0] -= low * gain + 2.0
    out[1] = valid
    keep_where(valid, out[0])
    np.clip(out[0], -2.0, 2.0, out=out[0])
    return out


def _check_unit(sample: Sample) -> None:
    unit, data = sample.unit, sample.data
    if unit not in (*COUNTS, "kelvin"):
        raise InputError(
            f"unknown unit '{unit}'",
            where=sample.sensor,
            hint=f"{meant(unit, (*COUNTS, 'kelvin'))} counts8, counts16 or kelvin".lstrip(),
        )
    if not np.isfinite(data).any():
        raise BlindError("no finite value in the image", where=sample.sensor)
    values = data[_COARSE]
    values = values[np.isfinite(values)]
    if not values.size:
        return
    if unit == "kelvin":
        middle = float(np.median(values))
        low, high = PLAUSIBLE_KELVIN
        if not low <= middle <= high:
            raise InputError(
                f"median temperature of {middle:.3g} K is impossible: the unit is not kelvin",
                where=sample.sensor,
                hint=_kelvin_hint(middle),
            )
        return
    least, most = float(values.min()), float(values.max())
    if least < -0.5 or most > COUNTS[unit] + 0.5:
        raise InputError(
            f"values from {least:.4g} to {most:.4g} are no {unit}, which go from 0 to "
            f"{COUNTS[unit]:g}",
            where=sample.sensor,
            hint="is the unit right?",
        )


def _kelvin_hint(middle: float) -> str:
    low, high = PLAUSIBLE_KELVIN
    if low <= middle * 0.01 <= high:
        return "centikelvin? then times 0.01"
    if -60 <= middle < low:
        return "degrees Celsius? then plus 273.15; or was a scale applied twice?"
    return "are these raw counts?"


def warp(grid: Grid, geometry: Moves) -> Grid:
    """Padding and dead pixels are NaN, and do not eat into their neighbors."""
    values = grid.image
    known = np.isfinite(values)
    if known.all():
        return Grid({"image": geometry.warp(values, False, np.nan)}, grid.unit)
    share = geometry.warp(known.astype(np.float32), False, 0.0)
    mixed = geometry.warp(np.where(known, values, np.float32(0)), False, 0.0)
    kept = (geometry.warp(known.astype(np.uint8), True, 0) > 0) & (share > 0)
    out = np.divide(mixed, share, out=np.full_like(mixed, np.nan), where=kept)
    return Grid({"image": out}, grid.unit)

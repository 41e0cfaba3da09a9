"""Applying what was found: counts made even, bad pixels filled in, counts to kelvin, depth to true depth.

Needs numpy alone: a robot applies what a workshop found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError, InputError
from perception.frame import Sample
from perception.geometry.transforms import Float64
from perception.sensors.thermal.preprocess import COUNTS

_KELVIN = "kelvin"
_FEWEST_NEIGHBOURS = 3
_FARTHEST = 8
_ROOM = 0.02  # of the range

BAD = {1: "dead", 2: "stuck", 3: "hot", 4: "cold", 5: "noisy"}
"""What is wrong with a pixel, by its number in the map: it does not follow the temperature, never changes, is
above or below its neighbours, or is noisier than the others."""


@dataclass(frozen=True)
class Curve:
    """Kelvin of counts.

    Attributes:
        model: `linear` (gain, offset), or `planck` and `planck-f` (R, B, O, F).
        parameters: by name.
        counts: least and largest of the points that it was fitted to; beyond it is a guess.
    """

    model: str
    parameters: Mapping[str, float]
    counts: tuple[float, float]

    def __post_init__(self) -> None:
        wanted = ("gain", "offset") if self.model == "linear" else ("R", "B", "O", "F")
        if self.model not in ("linear", "planck", "planck-f") or set(self.parameters) != set(
            wanted
        ):
            raise CalibrationError(
                f"no curve '{self.model}' with {', '.join(sorted(self.parameters))}",
                hint="linear with gain and offset, or planck with R, B, O and F",
            )

    def kelvin(self, counts: NDArray[Any]) -> Float64:
        """Kelvin, of the counts' shape; NaN where the curve has none."""
        values, p = np.asarray(counts, np.float64), self.parameters
        if self.model == "linear":
            kelvin = p["gain"] * values + p["offset"]
        else:
            with np.errstate(all="ignore"):
                inner = p["R"] / (values + p["O"]) + p["F"]
                kelvin = p["B"] / np.log(inner)
            kelvin = np.where((values + p["O"] > 0) & (inner > 1), kelvin, np.nan)
        return np.where(kelvin > 0, kelvin, np.nan)

    def beyond(self, counts: NDArray[Any]) -> float:
        """The share of counts outside of those that it was fitted to."""
        return _outside(counts, self.counts)


@dataclass(frozen=True)
class PixelMaps:
    """What each pixel of a thermal camera is worth.

    Attributes:
        gain, offset: (H, W) float32; even counts are `gain * counts + offset`.
        bad: (H, W) uint8, 0 for good pixels, else a key of `BAD`.
    """

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    bad: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shapes = {self.gain.shape, self.offset.shape, self.bad.shape}
        if len(shapes) > 1 or self.gain.ndim != 2 or not self.gain.size:
            raise CalibrationError(
                f"maps of pixels have shapes {sorted(shapes)}, expected one, (H, W)"
            )
        if not (np.isfinite(self.gain).all() and np.isfinite(self.offset).all()):
            raise CalibrationError("maps of pixels are not finite")

    @cached_property
    def _neighbours(self) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
        """Flat indices of bad pixels, and of the good ones next to each; none where there are none near."""
        good = self.bad == 0
        width = good.shape[1]
        places, near = [], []
        for y, x in zip(*np.nonzero(~good), strict=True):
            for reach in range(1, _FARTHEST + 1):
                top, left = max(0, y - reach), max(0, x - reach)
                part = good[top : y + reach + 1, left : x + reach + 1]
                if part.sum() >= _FEWEST_NEIGHBOURS:
                    rows, columns = np.nonzero(part)
                    places.append(y * width + x)
                    near.append((rows + top) * width + columns + left)
                    break
        return np.array(places, np.intp), near

    def even(self, counts: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W) float32 counts as if all pixels were alike; bad ones are the median of good ones near.

        Raises:
            InputError: a picture of another size.
        """
        if counts.shape != self.gain.shape:
            raise InputError(
                f"picture of {counts.shape[1]}x{counts.shape[0]}"
                if counts.ndim == 2
                else f"shape {counts.shape}",
                hint=f"the maps of pixels are those of {self.gain.shape[1]}x{self.gain.shape[0]}",
            )
        values = counts.astype(np.float32) * self.gain + self.offset
        places, near = self._neighbours
        flat = values.ravel()
        flat[places] = [np.median(flat[own]) for own in near] if len(places) else []
        return values


@dataclass(frozen=True)
class Correction:
    """All that is to be applied to one sensor's samples.

    Attributes:
        kind: of the sensor.
        size: (width, height) of its pictures; None for any.
        polynomial: of depth, coefficients in metres, the constant first; none where empty.
        range_m: metres that it was fitted to.
        curve: counts to kelvin, None for none.
        maps: of a thermal camera's pixels, None for none.
    """

    kind: str
    size: tuple[int, int] | None = None
    polynomial: tuple[float, ...] = ()
    range_m: tuple[float, float] = (0.0, np.inf)
    curve: Curve | None = None
    maps: PixelMaps | None = None

    def apply(self, sample: Sample) -> Sample:
        """A sample with true values: depth in metres, counts made even, or kelvin.

        Raises:
            InputError: a sample of another kind or size, or one that is in kelvin already.
        """
        if sample.kind != self.kind:
            raise InputError(
                f"is {sample.kind}, its values those of {self.kind}", where=sample.sensor
            )
        height, width = sample.data.shape[:2]
        if self.size not in (None, (width, height)):
            raise InputError(
                f"picture of {width}x{height}, values were found of {self.size}",
                where=sample.sensor,
            )
        if self.polynomial:
            return replace(sample, data=self._true_depth(sample.data))
        if sample.unit not in COUNTS:
            raise InputError(
                f"is in {sample.unit}, these values are those of counts",
                where=sample.sensor,
                hint="are they applied twice?",
            )
        values = sample.data if self.maps is None else self.maps.even(sample.data)
        if self.curve is None:
            return replace(sample, data=values.clip(0, COUNTS[sample.unit]).astype(np.float32))
        kelvin = self.curve.kelvin(values).astype(np.float32)
        return replace(sample, data=kelvin, unit=_KELVIN)

    def _true_depth(self, seen: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W) metres; what says by NaN or infinity that it is none stays so."""
        with np.errstate(all="ignore"):
            true = np.polynomial.polynomial.polyval(
                seen.astype(np.float64), np.array(self.polynomial)
            )
            true = np.where(true > 0, true, np.nan)
        return np.where(np.isfinite(seen), true, seen).astype(np.float32)

    def beyond(self, sample: Sample) -> float:
        """The share of a sample's values outside of what the calibration covers."""
        if self.curve is not None:
            values = sample.data if self.maps is None else self.maps.even(sample.data)
            return self.curve.beyond(values)
        if not self.polynomial:
            return 0.0
        return _outside(sample.data, self.range_m)


def _outside(values: NDArray[Any], limits: tuple[float, float]) -> float:
    """The share of values outside of limits by more than noise is."""
    low, high = limits
    room = _ROOM * (high - low)
    known = values[np.isfinite(values)]
    return float(((known < low - room) | (known > high + room)).mean()) if known.size else 0.0

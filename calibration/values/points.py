"""Reference points of a thermal camera: counts that belong to known temperatures, from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.detection import read_gray
from perception.errors import AnySenseError, CalibrationError
from perception.files.text import read_csv
from perception.geometry.transforms import Float64

_ZERO_CELSIUS_K = 273.15
_COLDEST_K, _HOTTEST_K = 100.0, 5000.0
_BOX = ("picture", "x", "y", "width", "height")
_SCALES = {"kelvin": 0.0, "celsius": _ZERO_CELSIUS_K}
_LEAST_SIGMA_K = 1e-3

Corrected = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Points:
    """Counts with the temperature that belongs to them.

    Attributes:
        counts: (N,).
        kelvin: (N,).
        sigma: (N,) how well the temperature is known, kelvin; all alike where it is not said.
        names: (N,) of where each is from.
        spread: (N,) standard deviation of the counts within a region, 0 of single ones.
    """

    counts: Float64
    kelvin: Float64
    sigma: Float64
    names: tuple[str, ...]
    spread: Float64

    def where(self, keep: NDArray[np.bool_]) -> Points:
        """Those of them."""
        names = tuple(name for name, good in zip(self.names, keep, strict=True) if good)
        return Points(
            self.counts[keep], self.kelvin[keep], self.sigma[keep], names, self.spread[keep]
        )


def read_points(path: Path, corrected: Corrected | None = None) -> Points:
    """Read a table of reference points.

    Args:
        path: CSV with a header: `counts`, or a region `picture, x, y, width, height` in pixels (pictures by
            their path from the table's folder), then `kelvin` or `celsius`, and `sigma_kelvin` if known.
        corrected: makes pictures even before regions are taken.

    Raises:
        CalibrationError: no such table, fields that are no numbers, regions outside of their picture, or
            temperatures that cannot be.
        AnySenseError: a picture that cannot be read.
    """
    boxed, scale, rows = _rows(path)
    found: list[tuple[float, float, float, str, float]] = []
    pictures: dict[str, NDArray[Any]] = {}
    for line, row in rows:
        where = f"{path}:{line}"
        kelvin = _number(row[scale], scale, where) + _SCALES[scale]
        if not _COLDEST_K < kelvin < _HOTTEST_K:
            raise CalibrationError(
                f"{row[scale]} {scale} is no temperature that a thermal camera sees",
                where=where,
                hint="are these degrees Celsius? then call the column celsius",
            )
        said = row.get("sigma_kelvin", "")
        sigma = _number(said, "sigma_kelvin", where) if said else 0.0
        if sigma < 0:
            raise CalibrationError(f"sigma_kelvin is {said}", where=where)
        if not boxed:
            counts = _number(row["counts"], "counts", where)
            found.append((counts, kelvin, sigma, f"line {line}", 0.0))
            continue
        name = row["picture"]
        if name not in pictures:
            image = read_gray(path.parent / name)
            pictures[name] = image if corrected is None else corrected(image)
        middle, spread = _region(pictures[name], row, where)
        found.append((middle, kelvin, sigma, f"{name}, line {line}", spread))
    if not found:
        raise CalibrationError("has no points", where=str(path))
    known = np.array([own[2] for own in found])
    usual = np.median(known[known > 0]) if (known > 0).any() else 1.0
    return Points(
        np.array([own[0] for own in found]),
        np.array([own[1] for own in found]),
        np.maximum(np.where(known > 0, known, usual), _LEAST_SIGMA_K),
        tuple(own[3] for own in found),
        np.array([own[4] for own in found]),
    )


def _rows(path: Path) -> tuple[bool, str, list[tuple[int, dict[str, str]]]]:
    """Whether rows have regions, the scale of temperatures, and the rows with their line numbers."""
    problem: AnySenseError | None = None
    for boxed, columns in ((True, _BOX), (False, ("counts",))):
        for scale in _SCALES:
            try:
                return boxed, scale, list(read_csv(path, (*columns, scale), error=CalibrationError))
            except CalibrationError as error:
                if "no column" not in error.message:
                    raise
                problem = error
    raise CalibrationError(
        "is no table of reference points",
        where=f"{path}:1",
        hint="the header must name counts, or picture, x, y, width and height; then kelvin or celsius",
    ) from problem


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise CalibrationError(f"{name} is '{text[:40]}', which is no number", where=where)
    return value


def _region(image: NDArray[Any], row: dict[str, str], where: str) -> tuple[float, float]:
    """Median and spread of the counts in a region."""
    x, y, width, height = (int(_number(row[name], name, where)) for name in _BOX[1:])
    if width < 1 or height < 1 or x < 0 or y < 0:
        raise CalibrationError(f"{width}x{height} at {x}, {y} is no region", where=where)
    if x + width > image.shape[1] or y + height > image.shape[0]:
        raise CalibrationError(
            f"the region ends at {x + width}, {y + height}, its picture at {image.shape[1]}, "
            f"{image.shape[0]}",
            where=where,
        )
    values = image[y : y + height, x : x + width].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        raise CalibrationError("the region has no values", where=where)
    return float(np.median(values)), float(1.4826 * np.median(np.abs(values - np.median(values))))

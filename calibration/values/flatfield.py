"""What each pixel of a thermal camera is worth, from pictures of a uniform surface at some temperatures.

One temperature gives an offset for each pixel, two or more a gain too (Perry and Dereniak, "Linear theory of
nonuniformity correction in infrared staring sensors", Optical Engineering 32, 1993).  Which pixels are bad is
told by their response, their noise and their level, each beside the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.detection import read_gray
from calibration.values.correction import BAD, PixelMaps
from perception.adapters.files import PICTURE_SUFFIXES
from perception.errors import CalibrationError
from perception.files.listing import list_files

Float32 = NDArray[np.float32]

SUFFIXES = (*PICTURE_SUFFIXES, ".npy")
FEWEST_FRAMES = 4
"""Fewer do not tell noise from the pattern."""

_GOOD_FRAMES = 16
_ONE_LEVEL = 50.0  # times the noise: more is no drift
_APART = 20.0  # times the noise of a mean: what two temperatures must differ by
_WEAK, _STRONG = 0.5, 1.5
_SIGMAS = 6.0
_NOISY = 2.0
_BY_CHANCE = 0.1  # good pixels of a whole picture
_NEAR_PX = 5
_SMOOTH_PX = 15
_ORDER = 4
_UNEVEN = (
    1.0  # what smoothing leaves of a pattern of pixels is a sixteenth, of one of columns a quarter
)
_DRIFTS = 3.0
_MOST_BAD = 0.05
_CODE = {name: number for number, name in BAD.items()}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Flat:
    """Pictures of a uniform surface at one temperature.

    Attributes:
        name: of their folder.
        mean: (H, W) float32 counts, the mean over time.
        noise: (H, W) float32 counts, standard deviation over time of a pixel beside the picture's median.
        still: (H, W) pixels that have one value in all pictures.
        levels: (N,) counts, the median of each picture: how all of it drifts.
        eight_bit: pictures of 8 bit, whose counts a camera has stretched.
    """

    name: str
    mean: Float32
    noise: Float32
    still: NDArray[np.bool_]
    levels: NDArray[np.float64]
    eight_bit: bool = False

    @property
    def level(self) -> float:
        """Counts of the whole picture."""
        return float(np.median(self.mean))

    @property
    def tells_still(self) -> bool:
        """Whether noise and pictures are so many that no good pixel has one value all the time by chance."""
        usual = max(float(np.median(self.noise)), 1e-9)
        same = math.erf(0.5 / (math.sqrt(2) * usual))
        return bool(same ** (len(self.levels) - 1) * self.still.size < _BY_CHANCE)


@dataclass(frozen=True)
class FlatField:
    """The maps, and what they are made of.

    Attributes:
        maps: gain, offset and bad pixels.
        flats: the temperatures, the coldest first.
        noise: counts, the usual standard deviation of a pixel over time: the noise floor.
        pattern: (K,) counts by which good pixels differ at each temperature, robust standard deviation.
        left: (K,) the same after the correction; of temperatures that were fitted exactly it is 0.
        response: (H, W) counts that a pixel changes by, beside the usual; None of one temperature.
        counts: how many pixels are bad, by what is wrong with them.
        doubts: why it is not to be trusted.
        remarks: what would make it better.
    """

    maps: PixelMaps
    flats: tuple[Flat, ...]
    noise: float
    pattern: tuple[float, ...]
    left: tuple[float, ...]
    response: Float32 | None
    counts: Mapping[str, int]
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def drift(self) -> tuple[float, ...]:
        """(K,) counts by which the whole picture moved from the first to the last, by a line through all."""
        found = []
        for flat in self.flats:
            at = np.arange(len(flat.levels))
            found.append(float(np.polyfit(at, flat.levels, 1)[0] * (len(at) - 1)))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        height, width = self.maps.bad.shape
        return {
            "width": width,
            "height": height,
            "noise_counts": self.noise,
            "flats": {
                flat.name: {
                    "frames": len(flat.levels),
                    "level": flat.level,
                    "pattern_counts": pattern,
                    "left_counts": left,
                    "drift_counts": drift,
                }
                for flat, pattern, left, drift in zip(
                    self.flats, self.pattern, self.left, self.drift, strict=True
                )
            },
            "bad_pixels": dict(self.counts),
            "bad_share": float((self.maps.bad > 0).mean()),
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": not self.doubts,
        }


def read_flat(folder: Path, progress: Progress | None = None) -> Flat:
    """Read the pictures of one temperature, in the order of their names.

    Raises:
        CalibrationError: too few, of several sizes, of several channels, or all the same.
        AnySenseError: one that cannot be read.
    """
    files = list(list_files(folder, SUFFIXES, error=CalibrationError).values())
    if len(files) < FEWEST_FRAMES:
        raise CalibrationError(
            f"{len(files)} pictures of a uniform surface, {FEWEST_FRAMES} are needed to tell noise",
            where=str(folder),
            hint=f"record {_GOOD_FRAMES} or more, without moving anything",
        )
    total: NDArray[np.float64] = np.zeros(0)
    square, first, levels = total, total, []
    eight, still = False, np.zeros(0, bool)
    for index, path in enumerate(files):
        if progress is not None:
            progress("reading pictures", index, len(files))
        image = read_counts(path)
        eight = eight or image.dtype == np.uint8
        if not index:
            first = image.astype(np.float64)
            total, square = np.zeros_like(first), np.zeros_like(first)
            still = np.ones(first.shape, bool)
        if image.shape != first.shape:
            height, width = first.shape
            raise CalibrationError(
                f"is {image.shape[1]}x{image.shape[0]}, others {width}x{height}", where=str(path)
            )
        still &= image == first
        level = float(np.median(image))
        moved = image - first - (level - float(np.median(first)))  # small: squares stay exact
        total += moved
        square += moved**2
        levels.append(level)
    count = len(files)
    mean = first + total / count + (float(np.mean(levels)) - float(np.median(first)))
    variance = np.maximum(square - total**2 / count, 0) / (count - 1)
    if still.all():
        raise CalibrationError(
            "all pictures are the same: noise cannot be told",
            where=str(folder),
            hint="record pictures, not copies of one; switch off averaging and noise filters",
        )
    noise = float(np.median(np.sqrt(variance)))
    moved_by = float(np.ptp(levels))
    if moved_by > _ONE_LEVEL * max(noise, 1.0):
        raise CalibrationError(
            f"pictures of a uniform surface differ by {moved_by:.4g} counts, pixels by {noise:.2g} over time",
            where=str(folder),
            hint="give a folder for each temperature",
        )
    return Flat(
        folder.name,
        mean.astype(np.float32),
        np.sqrt(variance).astype(np.float32),
        still,
        np.array(levels),
        eight,
    )


def read_counts(path: Path) -> NDArray[Any]:
    """(H, W) counts of a picture: PNG, TIFF or .npy.

    Raises:
        AnySenseError: it cannot be read, or has values that are none.
    """
    if path.suffix.lower() == ".npy":
        from perception.files.arrays import read_npy

        image = read_npy(path, error=CalibrationError)
    else:
        image = read_gray(path)
    if image.ndim != 2 or not image.size or not np.isfinite(image).all():
        raise CalibrationError(
            f"shape {image.shape}, expected (H, W) finite counts", where=str(path)
        )
    return image


def flat_field(flats: Sequence[Flat]) -> FlatField:
    """Maps of gain, offset and bad pixels.

    Args:
        flats: one temperature, or several.

    Raises:
        CalibrationError: of several sizes, no different temperatures, or no uniform surface.
    """
    ordered = sorted(flats, key=lambda flat: flat.level)
    for flat in ordered:
        if flat.mean.shape != ordered[0].mean.shape:
            raise CalibrationError("pictures of several sizes", where=flat.name)
    noise = float(np.median([float(np.median(flat.noise)) for flat in ordered]))
    _check_apart(ordered, noise)
    patterns = [_beside(flat.mean) for flat in ordered]
    for flat, pattern in zip(ordered, patterns, strict=True):
        _check_even(flat, pattern, noise)
    response = None
    if len(ordered) > 1:
        response = ordered[-1].mean - ordered[0].mean
    bad = _bad(ordered, patterns, response)
    gain, offset = _maps(ordered, bad)
    maps = PixelMaps(gain, offset, bad)
    good = bad == 0
    done = FlatField(
        maps,
        tuple(ordered),
        noise,
        tuple(_spread(flat.mean[good] - flat.level) for flat in ordered),
        tuple(
            _spread((maps.gain * flat.mean + maps.offset)[good] - flat.level) for flat in ordered
        ),
        response,
        {name: int((bad == number).sum()) for number, name in BAD.items()},
    )
    doubts, remarks = _judged(done)
    return replace(done, doubts=tuple(doubts), remarks=tuple(remarks))


def _check_apart(flats: Sequence[Flat], noise: float) -> None:
    for cold, hot in pairwise(flats):
        of_mean = max(noise, 0.3) / np.sqrt(min(len(cold.levels), len(hot.levels)))
        if hot.level - cold.level < _APART * of_mean:
            raise CalibrationError(
                f"{cold.name} and {hot.name} differ by {hot.level - cold.level:.3g} counts only, and a "
                f"pixel's noise is {noise:.3g}",
                hint="record the surface at two temperatures 10 K apart or more",
            )


def _beside(mean: Float32) -> Float32:
    """(H, W) by how much pixels are above the median of their neighbours."""
    return np.asarray(mean - cv2.medianBlur(mean, _NEAR_PX), np.float32)


def _spread(values: NDArray[Any]) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _check_even(flat: Flat, pattern: Float32, noise: float) -> None:
    """Refuse pictures of a scene: after what a lens and housing do smoothly, its things are left."""
    smooth = cv2.GaussianBlur(cv2.medianBlur(flat.mean, _NEAR_PX), (0, 0), _SMOOTH_PX / 3)
    height, width = smooth.shape
    step = max(1, min(height, width) // 60)
    part = smooth[::step, ::step].astype(np.float64)
    y, x = np.meshgrid(
        np.linspace(-1, 1, part.shape[0]), np.linspace(-1, 1, part.shape[1]), indexing="ij"
    )
    terms = np.stack(
        [(x**i * y**j).ravel() for i in range(_ORDER + 1) for j in range(_ORDER + 1 - i)], axis=1
    )
    left = part.ravel() - terms @ np.linalg.lstsq(terms, part.ravel(), rcond=None)[0]
    usual = max(_spread(pattern), noise, 0.5)
    if float(np.sqrt(np.mean(left**2))) > _UNEVEN * usual:
        raise CalibrationError(
            f"does not show a uniform surface: it differs by {float(np.sqrt(np.mean(left**2))):.3g} counts "
            f"from place to place, pixels from their neighbours by {usual:.2g}",
            where=flat.name,
            hint="record a blackbody, or a matt plate before the lens that fills the picture, out of focus",
        )


def _bad(
    flats: Sequence[Flat], patterns: Sequence[Float32], response: Float32 | None
) -> NDArray[np.uint8]:
    """(H, W) what is wrong with each pixel; what says most of it wins."""
    bad = np.zeros(flats[0].mean.shape, np.uint8)
    for flat in flats:
        usual, frames = float(np.median(flat.noise)), len(flat.levels)
        # The standard deviation of a standard deviation of n values is 1 / sqrt(2 (n - 1)) of it.
        by_chance = usual * (1 + _SIGMAS / np.sqrt(2 * (frames - 1)))
        bad[flat.noise > max(_NOISY * usual, by_chance)] = _CODE["noisy"]
    for flat, pattern in zip(flats, patterns, strict=True):
        of_mean = float(np.median(flat.noise)) / np.sqrt(len(flat.levels))
        most = _SIGMAS * max(_spread(pattern), of_mean, 0.3)
        bad[pattern > most] = _CODE["hot"]
        bad[pattern < -most] = _CODE["cold"]
    for flat in flats:
        if flat.tells_still:
            bad[flat.still] = _CODE["stuck"]
    if response is not None:
        usual = cv2.medianBlur(response, _NEAR_PX)
        share = response / np.where(np.abs(usual) < 1e-6, 1e-6, usual)
        bad[((share < _WEAK) | (share > _STRONG)) & (bad != _CODE["stuck"])] = _CODE["dead"]
    return bad


def _maps(flats: Sequence[Flat], bad: NDArray[np.uint8]) -> tuple[Float32, Float32]:
    """Gain and offset by least squares over the temperatures; none of bad pixels."""
    good = bad == 0
    levels = np.array(
        [float(np.median(flat.mean[good])) if good.any() else flat.level for flat in flats]
    )
    means = np.stack([flat.mean for flat in flats]).astype(np.float64)
    gain = np.ones(bad.shape)
    if len(flats) > 1:
        middle = means.mean(axis=0)
        off, to = means - middle, (levels - levels.mean())[:, None, None]
        square = np.sum(off**2, axis=0)
        gain = np.where(good, np.sum(off * to, axis=0) / np.where(square > 0, square, 1.0), 1.0)
    offset = np.where(good, levels.mean() - gain * means.mean(axis=0), 0.0)
    return gain.astype(np.float32), offset.astype(np.float32)


def _judged(done: FlatField) -> tuple[list[str], list[str]]:
    doubts, remarks = [], []
    share = float((done.maps.bad > 0).mean())
    if share > _MOST_BAD:
        doubts.append(
            f"{100 * share:.0f} % of the pixels seem bad: is the surface uniform, and does nothing move?"
        )
    for flat, moved in zip(done.flats, done.drift, strict=True):
        if abs(moved) > _DRIFTS * done.noise:
            remarks.append(
                f"{flat.name} drifts by {moved:+.3g} counts, {abs(moved) / max(done.noise, 1e-9):.0f} times "
                "the noise: let the camera warm up, and shut its shutter before"
            )
        if len(flat.levels) < _GOOD_FRAMES:
            remarks.append(
                f"{flat.name} has {len(flat.levels)} pictures: {_GOOD_FRAMES} or more tell noisy pixels "
                "better"
            )
        if flat.eight_bit:
            remarks.append(
                f"{flat.name} is of 8 bit: maps hold only while the camera does not stretch its pictures"
            )
    if len(done.flats) == 1:
        remarks.append(
            "one temperature gives offsets alone, and does not tell dead pixels: record a second one"
        )
    if not any(flat.tells_still for flat in done.flats):
        remarks.append(
            f"with noise of {done.noise:.2g} counts, so few pictures do not tell pixels that never change"
        )
    return doubts, remarks

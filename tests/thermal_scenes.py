"""A thermal camera whose pixels, and whose curve from counts to kelvin, are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.values.correction import BAD
from calibration.values.points import Points

SHAPE = (120, 160)
PEDESTAL, NOISE = 5000.0, 3.0
GAIN_SPREAD, OFFSET_SPREAD, FAR = 0.03, 30.0, 1000.0
OF_EACH = 20

R, B, O, F = 366_545.0, 1428.0, -342.0, 1.0  # noqa: E741
"""Of a curve such as long-wave cameras have in their metadata; 255 K are some 1,700 counts, 400 K 10,000."""


def planck(kelvin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of kelvin."""
    return np.asarray(R / (np.exp(B / kelvin) - F) - O)


def points(
    count: int,
    low: float = 260.0,
    high: float = 400.0,
    noise_k: float = 0.2,
    seed: int = 0,
    line: bool = False,
) -> Points:
    """Points of that curve, or of a line of 25 counts a kelvin, with noise on what the thermometer says."""
    rng = np.random.default_rng(seed)
    kelvin = np.linspace(low, high, count)
    counts = 25 * (kelvin - 200) if line else planck(kelvin)
    said = kelvin + rng.normal(0, noise_k, count)
    names = tuple(f"line {i + 2}" for i in range(count))
    return Points(counts, said, np.ones(count), names, np.zeros(count))


def write_table(path: Path, given: Points) -> Path:
    """As CSV of counts and kelvin."""
    rows = [f"{c:.3f},{k:.4f}" for c, k in zip(given.counts, given.kelvin, strict=True)]
    path.write_text("\n".join(["counts,kelvin", *rows]) + "\n")
    return path


class Sensor:
    """One camera: a gain and offset for each pixel, shading, and bad pixels of each sort."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        height, width = SHAPE
        y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        shade = 1 - 0.04 * (x**2 + y**2)
        self.gain = shade * (1 + GAIN_SPREAD * rng.standard_normal(SHAPE))
        self.offset = OFFSET_SPREAD * rng.standard_normal(SHAPE)
        self.noise = np.full(SHAPE, NOISE)
        self.bad = np.zeros(SHAPE, np.uint8)
        some = rng.choice(height * width, len(BAD) * OF_EACH, replace=False)
        for number, own in zip(BAD, np.split(some, len(BAD)), strict=True):
            self.bad.flat[own] = number
        self.stuck = rng.integers(6000, 11000, SHAPE).astype(float)
        self.gain[self.bad == 1] *= 0.2
        self.offset[self.bad == 3] += FAR
        self.offset[self.bad == 4] -= FAR
        self.noise[self.bad == 5] *= 4

    def frame(
        self, signal: float | NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.uint16]:
        """Counts of what would be `signal` counts above the pedestal for a usual pixel."""
        values = PEDESTAL + self.offset + self.gain * signal
        values = values + self.noise * rng.standard_normal(SHAPE)
        values = np.where(self.bad == 2, self.stuck, values)
        return values.round().clip(0, 65535).astype(np.uint16)

    def write_flat(
        self, folder: Path, signal: float, count: int = 16, seed: int = 1, drift: float = 2.0
    ) -> Path:
        """Pictures of a uniform surface as PNG, that drift by so many counts."""
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for index in range(count):
            image = self.frame(signal + drift * index / count, rng)
            cv2.imwrite(str(folder / f"{index:03}.png"), image)
        return folder

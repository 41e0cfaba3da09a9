"""What goes wrong with a depth image: (H, W) float32 metres; NaN, -Inf and +Inf by REP 117."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from perception.sensors.depth.preprocess import Unlifted
from perception.sensors.faults import (
    MASKED,
    RANDOM_MISSING,
    ContentFault,
    ContentFaults,
    Float,
    Layer,
    Pixels,
    Rng,
    Severity,
    always,
    augmenting,
    largest_share,
    missing_patches,
    on_pictures,
    signed,
    single_pixels,
    smooth_field,
    streams,
    training_mask,
)
from perception.sensors.kind import Grid

NOISE = Severity(
    (0.002, 0.004, 0.006, 0.01, 0.02),
    "1/m: standard deviation is this times z^2",
    "noise that grows with the square of the distance, as that of stereo and structured light",
    "Khoshelham and Oude Elberink, Sensors 2012: 4 cm at 5 m is 0.0016",
    training=(0.002, 0.01),
    scenario="noise",
)
SCALE = Severity(
    (0.02, 0.05, 0.1, 0.15, 0.25),
    "relative error",
    "all distances too long or too short, as with a wrong baseline or a wrong scale",
    "up to 0.15: range of the augmentation in training",
    still=True,
    training=(-0.15, 0.15),
)
HOLES = Severity(
    (0.05, 0.1, 0.2, 0.35, 0.5),
    "share of the picture",
    "patches without a return, as on dark, shiny or transparent things",
    "Liao et al., CVPR Workshops 2025: partly missing modality",
    still=True,
)
FOG = Severity(
    (300, 150, 80, 40, 20),
    "m of visibility",
    "light lost on the way there and back; what is lost is NaN",
    "Koschmieder's law at 5 % contrast, both ways",
)
RAIN = Severity(
    (0.002, 0.005, 0.01, 0.02, 0.04),
    "1/m: drops met on the way",
    "drops in the ray: half of them give their own distance, half no return",
    "hits as in Kilic et al. 2021 (LISA): a Poisson process along the ray",
)


def noisy(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Noise by the square of the distance; what would come to lie behind the sensor is no return."""
    drawn = pixels.field(rng.standard_normal(pixels.source, dtype=np.float32), nearest=True)
    with np.errstate(all="ignore"):
        out = np.where(np.isfinite(depth), depth + drawn * depth**2 * np.float32(amount), depth)
    return np.where(np.isfinite(out) & (out <= 0) & (depth > 0), np.float32(np.nan), out)


def scaled(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """All distances by one factor."""
    return depth * np.float32(1 + signed(amount, rng))


def holed(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Patches without a return; those of a lower severity lie in those of a higher one."""
    field = smooth_field(pixels.source, 9, rng)
    return _without(depth, pixels.field(largest_share(field, amount), nearest=True))


def dead_pixels(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Pixels that never have a return."""
    return _without(depth, pixels.field(single_pixels(pixels.source, amount, rng), nearest=True))


def partly_missing(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Patches that did not arrive have no return."""
    gone = missing_patches(pixels.source, amount, rng)
    return _without(depth, pixels.field(gone, nearest=True))


def foggy(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Returns are lost with 1 - exp(-2 z / L), L the length by which light falls to 1/e."""
    drawn = pixels.field(rng.random(pixels.source, dtype=np.float32), nearest=True)
    with np.errstate(all="ignore"):
        left = np.exp(depth * np.float32(2 * np.log(0.05) / amount))
        return _without(depth, np.isfinite(depth) & (drawn >= left))


def rainy(depth: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """The nearest drop of a Poisson process stands before the scene."""
    drops, answers = streams(rng, 2)
    first = drops.standard_exponential(pixels.source, dtype=np.float32)
    first = pixels.field(first, nearest=True) / np.float32(amount)
    seen = pixels.field(answers.random(pixels.source, dtype=np.float32), nearest=True) < 0.5
    with np.errstate(invalid="ignore"):
        hit = np.isfinite(depth) & (first < depth)
    return np.where(hit, np.where(seen, first, np.float32(np.nan)), depth)


def _without(depth: Float, lost: np.ndarray) -> Float:  # type: ignore[type-arg]
    return np.where(lost, np.float32(np.nan), depth)


FAULTS = ContentFaults(
    {
        "noise": ContentFault(NOISE, noisy),
        "scale": ContentFault(SCALE, scaled),
        "holes": ContentFault(HOLES, holed),
        "dead_pixels": ContentFault(MASKED, dead_pixels),
        "random_missing": ContentFault(replace(RANDOM_MISSING, layers="equal"), partly_missing),
        "fog": ContentFault(FOG, foggy),
        "rain": ContentFault(RAIN, rainy),
        "dark": ContentFault(
            always("no return at all"), lambda depth, *_: np.full_like(depth, np.nan)
        ),
    }
)

_on_pictures = on_pictures(FAULTS)


def apply(fault: str, value: Any, layer: Layer, severity: int, rng: Rng) -> Any:
    """`SensorKind.apply`."""
    if layer == "grid" and "points" in value.layers:
        amount = FAULTS[fault].at(severity)

        def change(depth: Float) -> Float:
            return np.asarray(FAULTS.run(fault, depth, amount, Pixels.own(depth), rng))

        return _on_points(value, change)
    return _on_pictures(fault, value, layer, severity, rng)


def _on_points(grid: Grid, change: Callable[[Float], Float]) -> Grid:
    """What a change of the picture does to its points on the ground grid; those that it would bring onto the
    grid from elsewhere are not there."""
    own, points = grid.own, grid.layers["points"]
    assert isinstance(own, Unlifted)
    optical = own.pose.inverse().apply(points[:, :3].astype(np.float64))
    u, v, seen = own.camera.project_columns(*optical.T)
    picture = np.full(own.size, np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        row, column = np.rint(v), np.rint(u)
        seen &= (row >= 0) & (column >= 0) & (row < own.size[0]) & (column < own.size[1])
    at = np.flatnonzero(seen)
    place = row[at].astype(np.int64), column[at].astype(np.int64)
    was = optical[at, 2].astype(np.float32)
    picture[place] = was
    now = change(picture)[place]
    with np.errstate(invalid="ignore"):
        left = (now >= own.reach_m[0]) & (now <= own.reach_m[1])
    at, was, now = at[left], was[left], now[left]
    out, moved = points[at], np.flatnonzero(now != was)
    further = (now[moved] / was[moved])[:, None]
    out[moved, :3] = own.pose.apply(optical[at[moved]] * further)
    return replace(grid, layers={**grid.layers, "points": out})


def _augmented(depth: Float, chances: Mapping[str, float], rng: Rng) -> Float:
    """Random corruption in training: scale, noise and lost pixels."""
    low, high = SCALE.training
    return _roughened(depth * np.float32(rng.uniform(1 + low, 1 + high)), chances, rng)


def _roughened(depth: Float, chances: Mapping[str, float], rng: Rng) -> Float:
    """Noise and lost pixels."""
    if rng.random() < chances["noise"]:
        noise = rng.standard_normal(depth.shape, dtype=np.float32)
        depth = depth + noise * depth**2 * np.float32(rng.uniform(*NOISE.training))
    if rng.random() < chances["pixel_dropout"]:
        depth = depth.copy()
        depth[training_mask(depth.shape, rng)] = np.nan
    return depth


_on_grids = augmenting(_augmented)


def augment(grid: Grid, chances: Mapping[str, float], rng: Rng) -> Grid:
    """Random corruption in training; points on the ground grid keep their scale, as that of boxes in space is
    to be learned."""
    if "points" in grid.layers:
        return _on_points(grid, lambda depth: _roughened(depth, chances, rng))
    return _on_grids(grid, chances, rng)

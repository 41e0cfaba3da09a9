"""What goes wrong with a thermal image: (H, W) float32 in counts or kelvin, NaN = unknown.

Few cameras say what a count is worth, so that amounts are in spreads: the standard deviation of the
picture's values.  In a street that is some 5 K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from perception.sensors.faults import (
    MASKED,
    RANDOM_MISSING,
    ContentFault,
    ContentFaults,
    Float,
    Pixels,
    Rng,
    Severity,
    always,
    augmenting,
    blocks,
    covered,
    missing_patches,
    on_pictures,
    signed,
    single_pixels,
    smooth_field,
    streams,
    training_mask,
)

_DRIFT = "drift of uncooled bolometers between two shutter corrections: Vollmer and Moellmann 2018"
_TRAINED = "up to severity 2, range of the augmentation in training"

GAIN_DRIFT = Severity(
    (0.15, 0.3, 0.45, 0.6, 0.75),
    "relative change of contrast",
    "contrast too high or too low",
    f"{_DRIFT}; {_TRAINED}",
    "near",
    still=True,
    training=(-0.3, 0.3),
)
OFFSET_DRIFT = Severity(
    (0.2, 0.4, 0.8, 1.4, 2.0),
    "spreads",
    "all values too high or too low",
    f"{_DRIFT}; {_TRAINED}",
    "near",
    still=True,
    training=(-0.4, 0.4),
)
FLAT_FIELD = Severity(
    (0.15, 0.3, 0.6, 1.0, 1.5),
    "spreads, standard deviation",
    "some regions and columns read higher than others",
    f"{_DRIFT}: fixed-pattern noise",
    "near",
    still=True,
)
NOISE = Severity(
    (0.05, 0.1, 0.25, 0.5, 1.0),
    "spreads, standard deviation",
    "Gaussian noise",
    "0.05 K (a usual NETD) is 0.01 of a street; up to 0.25: range of the augmentation in training",
    "near",
    training=(0.05, 0.25),
    scenario="noise",
)
CROSSOVER = Severity(
    (0.5, 0.3, 0.15, 0.07, 0.03),
    "factor on contrast, under noise of 0.02 spreads",
    "things have the temperature of what is around them, as at dusk and dawn",
    "thermal crossover; noise stays, so that no scaling brings the contrast back",
    "near",
)
DEAD_BLOCKS = Severity(
    (0.05, 0.1, 0.2, 0.3, 0.4),
    "share of the picture",
    "rectangles that read the picture's mean",
    "Liao et al., CVPR Workshops 2025: partly missing modality",
    "near",
    still=True,
)
_CROSSOVER_NOISE = np.float32(0.02)
_COLUMNS = np.float32(0.5)  # of the flat field: columns against regions


def _center(values: Float) -> tuple[np.float32, np.float32]:
    """Mean and spread; of a picture that is all NaN both are NaN, and so is what comes of them."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.float32(np.nan), np.float32(np.nan)
    return np.float32(known.mean(dtype=np.float64)), np.float32(known.std(dtype=np.float64))


def gain_drifted(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Contrast about the mean times 1 + amount, or 1 - amount."""
    center, _ = _center(values)
    return (values - center) * np.float32(1 + signed(amount, rng)) + center


def offset_drifted(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """All values moved."""
    return values + _center(values)[1] * np.float32(signed(amount, rng))


def unevened(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Offsets of regions, as from a warm housing, and of columns, as from their amplifiers."""
    regions, columns = streams(rng, 2)
    field = smooth_field(pixels.source, 5, regions)
    field = field + columns.standard_normal((1, pixels.source[1]), dtype=np.float32) * _COLUMNS
    return values + pixels.field(field) * (_center(values)[1] * np.float32(amount))


def noisy(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Noise of each of the sensor's pixels."""
    field = rng.standard_normal(pixels.source, dtype=np.float32)
    return values + pixels.field(field) * (_center(values)[1] * np.float32(amount))


def crossed_over(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Contrast fades, noise does not."""
    center, spread = _center(values)
    field = pixels.field(rng.standard_normal(pixels.source, dtype=np.float32))
    return (values - center) * np.float32(amount) + center + field * (spread * _CROSSOVER_NOISE)


def dead_pixels(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Pixels that read the mean, as cameras fill them in."""
    return covered(values, single_pixels(pixels.source, amount, rng), _center(values)[0], pixels)


def dead_blocks(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Rectangles that read the mean."""
    return covered(values, blocks(pixels.source, amount, rng), _center(values)[0], pixels)


def partly_missing(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """Patches that did not arrive are unknown."""
    gone = missing_patches(pixels.source, amount, rng)
    return values + pixels.field(np.where(gone, np.float32(np.nan), np.float32(0)))


def uniform(values: Float, amount: float, pixels: Pixels, rng: Rng) -> Float:
    """One temperature, as before a closed shutter; what is unknown stays so."""
    known = values[np.isfinite(values)]
    middle = np.median(known) if known.size else np.float32(np.nan)
    return np.where(np.isfinite(values), np.float32(middle), np.float32(np.nan))


FAULTS = ContentFaults(
    {
        "gain_drift": ContentFault(GAIN_DRIFT, gain_drifted),
        "offset_drift": ContentFault(OFFSET_DRIFT, offset_drifted),
        "flat_field": ContentFault(FLAT_FIELD, unevened),
        "noise": ContentFault(NOISE, noisy),
        "crossover": ContentFault(CROSSOVER, crossed_over),
        "dead_pixels": ContentFault(replace(MASKED, layers="near"), dead_pixels),
        "dead_blocks": ContentFault(DEAD_BLOCKS, dead_blocks),
        "random_missing": ContentFault(RANDOM_MISSING, partly_missing),
        "dark": ContentFault(always("one temperature everywhere", "near"), uniform),
    }
)


_MOST = {"counts8": 255.0, "counts16": 65535.0}


def _readable(values: Float, unit: str) -> Float:
    """What a sensor can say: counts end where their type does, and nothing is colder than 0 K."""
    return values.clip(0, _MOST.get(unit))


apply = on_pictures(FAULTS, _readable)


def _augmented(values: Float, chances: Mapping[str, float], rng: Rng) -> Float:
    """Random corruption in training: drift, noise and lost pixels."""
    if not np.isfinite(values).any():
        return values  # a view of the padding alone
    spread = np.float32(np.nanstd(values) + 1e-3)
    center = np.float32(np.nanmean(values))
    low, high = GAIN_DRIFT.training
    values = (values - center) * np.float32(rng.uniform(1 + low, 1 + high)) + center
    values = values + spread * np.float32(rng.uniform(*OFFSET_DRIFT.training))
    if rng.random() < chances["noise"]:
        values = values + rng.standard_normal(values.shape, dtype=np.float32) * spread * np.float32(
            rng.uniform(*NOISE.training)
        )
    if rng.random() < chances["pixel_dropout"]:
        values = values.copy()
        values[training_mask(values.shape, rng)] = center
    return values


augment = augmenting(_augmented)

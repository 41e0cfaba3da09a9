"""What goes wrong with the picture of a colour camera: (H, W, 3) uint8, R, G, B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

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
    covered,
    missing_patches,
    on_pictures,
    single_pixels,
    smooth_field,
    streams,
    training_mask,
)

Image = NDArray[np.uint8]

HENDRYCKS = "Hendrycks and Dietterich, ICLR 2019"
DELIVER = "Zhang et al., CVPR 2023 (DELIVER)"

UNDEREXPOSURE = Severity(
    (0.5, 0.35, 0.2, 0.1, 0.05),
    "factor on counts; 0.5 is 2.2 stops at gamma 2.2",
    "too little light",
    DELIVER,
    training=(0.05, 0.5),
)
OVEREXPOSURE = Severity(
    (1.2, 1.5, 2.0, 3.0, 5.0),
    "factor on counts, after which 30 are added",
    "too much light",
    DELIVER,
    "near",
    training=(1.5, 2.5),
)
OVEREXPOSED_BY = 30
NOISE = Severity(
    (4, 8, 15, 25, 40),
    "counts of 255, standard deviation",
    "Gaussian noise",
    f"{HENDRYCKS}: Gaussian noise, but weaker, as of a camera at high gain",
    "near",
    training=(3, 15),
    scenario="noise",
)
MOTION_BLUR = Severity(
    (0.008, 0.015, 0.025, 0.04, 0.06),
    "of the width",
    "movement during the exposure, in a random direction",
    f"{HENDRYCKS}, {DELIVER}: motion blur",
    "near",
)
LENS_DIRT = Severity(
    (0.05, 0.1, 0.2, 0.3, 0.45),
    "share of the picture",
    "patches of dirt on the lens, with soft edges",
    "Secci and Ceccarelli, ISSRE 2020: dirty lens",
    "near",
    still=True,
)
OCCLUSION = Severity(
    (0.1, 0.2, 0.3, 0.45, 0.6),
    "share of the picture",
    "something opaque before the lens, from one side",
    "Liao et al., CVPR Workshops 2025: partly missing modality",
    "near",
    still=True,
)
FOG = Severity(
    (300, 150, 80, 40, 20),
    "m of visibility",
    "veil of fog over a street as it usually lies before a camera",
    "Koschmieder's law at 5 % contrast; Sakaridis et al., IJCV 2018",
    "near",
    still=True,
)
RAIN = Severity(
    (5, 15, 30, 60, 100),
    "mm/h",
    "streaks, and the veil of far rain",
    "extinction 0.312 R^0.67 per km and streaks as in Halder et al., ICCV 2019",
    "near",
)

# What lies before a camera on a vehicle: no single picture says how far its pixels are.
_CAMERA_HEIGHT_M, _FARTHEST_M, _SLOPE = 1.5, 80.0, 0.93
_AIRLIGHT = np.float32(215)
_STREAKS_PER_MM = 5
_DIRT = np.array((70, 58, 45), np.float32)


def _counts(values: Float) -> Image:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _looked_up(image: Image, table: Float) -> Image:
    out: Image = cv2.LUT(image, _counts(table)) if image.size else image
    return out


def underexposed(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Fewer photons."""
    return _looked_up(image, np.arange(256, dtype=np.float32) * np.float32(amount))


def overexposed(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """More photons than the sensor can count, and flare."""
    table = np.arange(256, dtype=np.float32) * np.float32(amount) + OVEREXPOSED_BY
    return _looked_up(image, table)


def noisy(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Noise of each of the sensor's pixels and colours."""
    drawn = rng.standard_normal((*pixels.source, 3), dtype=np.float32)
    return _counts(image + pixels.field(drawn) * np.float32(amount))


def motion_blurred(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """The mean along a line."""
    angle = rng.uniform(0, np.pi)
    length = amount * pixels.source[1]
    x, y = length * np.cos(angle) * pixels.scale[0], length * np.sin(angle) * pixels.scale[1]
    out: Image = cv2.filter2D(image, -1, _line(x, y), borderType=cv2.BORDER_REPLICATE)
    return out.reshape(image.shape)


def _line(x: float, y: float) -> Float:
    """A kernel of the line from (-x/2, -y/2) to (x/2, y/2); its sum is 1."""
    half = int(np.ceil(max(abs(x), abs(y)) / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 16 * half)
    column, row = steps * x + half, steps * y + half
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right, bottom = column - left, row - top
    for dx, dy, weight in (
        (0, 0, (1 - right) * (1 - bottom)),
        (1, 0, right * (1 - bottom)),
        (0, 1, (1 - right) * bottom),
        (1, 1, right * bottom),
    ):
        np.add.at(kernel, (top + dy, left + dx), weight)
    return np.asarray(kernel / kernel.sum(), np.float32)


def dirty(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Patches, out of focus on the lens, that grow together."""
    x, y = pixels.centers()
    places, shapes = streams(rng, 2)
    nearest = np.full(pixels.here, np.inf, np.float32)
    for cx, cy, size in places.random((28, 3)).astype(np.float32):
        radius = np.float32(0.03) + np.float32(0.09) * size**2
        np.minimum(nearest, np.hypot(x - cx, (y - cy) * np.float32(0.75)) / radius, out=nearest)
    rough = smooth_field(pixels.source, 24, shapes)
    nearest *= np.exp(np.float32(0.25) * pixels.field(rough))
    edge = max(float(np.quantile(nearest, amount)), 1e-6)
    cover = ((np.float32(1) - nearest / np.float32(edge)) / np.float32(0.35)).clip(0, 1)
    cover = (cover * np.float32(0.93))[..., None]
    return _counts(image * (1 - cover) + _DIRT * cover)


def occluded(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Nothing but what is before the lens, on one side, behind a somewhat slanting edge."""
    x, y = pixels.centers()
    side, slant = int(rng.integers(4)), rng.uniform(-0.3, 0.3)
    across, along = ((x, y), (1 - x, y), (y, x), (1 - y, x))[side]
    hidden = across + np.float32(slant) * (along - np.float32(0.5)) < np.float32(amount)
    out = image.copy()
    out[hidden] = (24, 22, 20)
    return out


def _veiled(image: Image, per_m: float, pixels: Pixels) -> Float:
    """Light of the scene dies away by `per_m`, and the air's own comes in."""
    y = pixels.centers()[1]
    below = np.maximum((y - np.float32(0.5)) * np.float32(_SLOPE), np.float32(1e-6))
    distance = np.minimum(np.float32(_CAMERA_HEIGHT_M) / below, np.float32(_FARTHEST_M))
    left = np.exp(-np.float32(per_m) * distance)[..., None]
    return np.asarray(image * left + _AIRLIGHT * (1 - left), np.float32)


def foggy(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Light scattered by fog on the way."""
    return _counts(_veiled(image, -np.log(0.05) / amount, pixels))


def rainy(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Streaks of near drops; heavier rain has those of lighter rain, and more."""
    height, width = pixels.source
    slant = rng.uniform(-0.25, 0.25)
    drops = rng.random((round(RAIN.amounts[-1] * _STREAKS_PER_MM), 3))
    mask = np.zeros(pixels.source, np.uint8)
    wide = max(1, round(width / 500))
    for x, y, size in drops[: round(amount * _STREAKS_PER_MM)]:
        length = (0.03 + 0.06 * size) * height
        start = round(x * width), round(y * height - length)
        end = round(x * width + slant * length), round(y * height)
        cv2.line(mask, start, end, 255, wide, cv2.LINE_AA)
    cover = pixels.field(mask.astype(np.float32) * np.float32(0.4 / 255))[..., None]
    veiled = _veiled(image, 0.312e-3 * amount**0.67, pixels)
    return _counts(veiled * (1 - cover) + np.float32(225) * cover)


def dead_pixels(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Pixels that stay black."""
    return _counts(covered(image, single_pixels(pixels.source, amount, rng), 0.0, pixels))


def partly_missing(image: Image, amount: float, pixels: Pixels, rng: Rng) -> Image:
    """Patches that did not arrive are black."""
    return _counts(covered(image, missing_patches(pixels.source, amount, rng), 0.0, pixels))


FAULTS = ContentFaults(
    {
        "underexposure": ContentFault(UNDEREXPOSURE, underexposed),
        "overexposure": ContentFault(OVEREXPOSURE, overexposed),
        "noise": ContentFault(NOISE, noisy),
        "motion_blur": ContentFault(MOTION_BLUR, motion_blurred),
        "lens_dirt": ContentFault(LENS_DIRT, dirty),
        "occlusion": ContentFault(OCCLUSION, occluded),
        "fog": ContentFault(FOG, foggy),
        "rain": ContentFault(RAIN, rainy),
        "dead_pixels": ContentFault(replace(MASKED, layers="near"), dead_pixels),
        "random_missing": ContentFault(RANDOM_MISSING, partly_missing),
        "saturated": ContentFault(
            always("the whole picture is white"), lambda image, *_: np.full_like(image, 255)
        ),
        "dark": ContentFault(
            always("the whole picture is black"), lambda image, *_: np.zeros_like(image)
        ),
    }
)

apply = on_pictures(FAULTS)


def _augmented(image: Image, chances: Mapping[str, float], rng: Rng) -> Image:
    """Random corruption in training: colours, exposure, noise and lost pixels."""
    x = image.astype(np.float32)
    gain, offset = rng.uniform(0.65, 1.35), rng.uniform(-25, 25)
    gray = x.mean(axis=2, keepdims=True)
    x = (x - gray) * rng.uniform(0.5, 1.5) + gray
    x = (x - 128) * rng.uniform(0.75, 1.25) + 128
    x = x * gain * rng.uniform(0.92, 1.08, 3).astype(np.float32) + offset
    if rng.random() < chances["exposure"]:
        if rng.random() < 0.7:
            x = x * rng.uniform(*UNDEREXPOSURE.training)
        else:
            x = x * rng.uniform(*OVEREXPOSURE.training) + OVEREXPOSED_BY
    if rng.random() < chances["noise"]:
        x += rng.standard_normal(x.shape, dtype=np.float32) * rng.uniform(*NOISE.training)
    if rng.random() < chances["pixel_dropout"]:
        x[training_mask(x.shape[:2], rng)] = 0.0
    return x.clip(0, 255).astype(np.uint8)


augment = augmenting(_augmented)

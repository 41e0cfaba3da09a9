"""Pictures of made-up sensors: what a colour picture may look like to a sensor that sees other things.

Shapes stay where they are while brightness becomes another function of what is seen, so that the
correspondence of an undistorted copy is known exactly: the way of MINIMA (Ren et al., 2025), here with
functions in place of generative networks.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def made_up(rgb: NDArray[np.uint8], rng: np.random.Generator) -> Float32:
    """A picture of another sensor of the same scene.

    Args:
        rgb: (H, W, 3).
        rng: decides which sensor.

    Returns:
        (H, W) float32, 0 to 255.
    """
    kind = rng.choice(["waves", "smooth", "night", "channel"], p=[0.5, 0.2, 0.15, 0.15])
    values = _shares_of_255(rgb)
    if kind == "waves":
        out = _function_of_color(values, rng)
    elif kind == "smooth":
        calm = cv2.bilateralFilter(rgb, 7, float(rng.uniform(30, 90)), 5)
        out = _function_of_color(_shares_of_255(calm), rng) + float(rng.uniform(-1, 1)) * _ramp(
            rgb.shape, rng
        )
    elif kind == "night":
        out = _night(_gray_of(values, rng), rng)
    else:
        out = _gray_of(values, rng)
        out = 1 - out if rng.random() < 0.5 else out
    out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.3, 1.6)))
    low, high = np.percentile(out, (0.5, 99.5))
    return np.clip((out - low) / max(high - low, 1e-3) * 255, 0, 255).astype(np.float32)


def disturbed(gray: Float32, rng: np.random.Generator) -> Float32:
    """The picture with another exposure, noise and blur; values 0 to 255 stay about there."""
    out = gray / 255
    if rng.random() < 0.5:
        out = np.clip(out, 0, 1) ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.3:
        field = rng.uniform(0.4, 1.2, (3, 4)).astype(np.float32)
        out = out * cv2.resize(field, (gray.shape[1], gray.shape[0]), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        out = out + rng.normal(0, rng.uniform(0.002, 0.04), gray.shape).astype(np.float32)
    return np.asarray(out * 255, np.float32)


def _shares_of_255(picture: NDArray[Any]) -> Float32:
    return np.asarray(picture, np.float32) / np.float32(255)


def _gray_of(values: Float32, rng: np.random.Generator) -> Float32:
    return np.asarray(values @ _shares(rng), np.float32)


def _shares(rng: np.random.Generator) -> Float32:
    return rng.dirichlet([1.0, 1.0, 1.0]).astype(np.float32)


def _function_of_color(values: Float32, rng: np.random.Generator) -> Float32:
    """A smooth random function of the colour: a sum of waves."""
    out = np.zeros(values.shape[:2], np.float32)
    for _ in range(3):
        wave = rng.normal(0, 2.5, 3).astype(np.float32)
        out += float(rng.uniform(0.3, 1)) * np.sin(values @ wave + float(rng.uniform(0, 6.28)))
    return out


def _ramp(shape: Any, rng: np.random.Generator) -> Float32:
    down = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, shape[1], dtype=np.float32)[None]
    return np.asarray(down + float(rng.normal(0, 0.3)) * across, np.float32)


def _night(gray: Float32, rng: np.random.Generator) -> Float32:
    out = gray ** float(rng.uniform(1.5, 4)) * float(rng.uniform(0.1, 0.4))
    height, width = gray.shape
    glow = np.zeros_like(gray)
    for _ in range(int(rng.integers(0, 5))):
        center = int(rng.integers(0, width)), int(rng.integers(0, height))
        cv2.circle(glow, center, int(rng.integers(1, 8)), float(rng.uniform(0.3, 1)), -1)
    out = out + cv2.GaussianBlur(glow, (0, 0), float(rng.uniform(2, 12)))
    return np.asarray(out + rng.normal(0, 0.02, gray.shape), np.float32)

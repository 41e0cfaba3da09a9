"""Samples as pictures for people: what kinds share, and what is drawn of one that does not say how."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.geometry.projection import project_lidar
from perception.sensors.kind import ColorScale, size_of_camera

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

_SIDE = 320  # of a picture from above
_NEAR, _FAR = 0.01, 0.2  # 1 / m


def false_colors(values: NDArray[np.floating], low: float, high: float, colormap: int) -> Image:
    """Values (H, W) by a color map of OpenCV from `low` to `high`; what is not finite is black."""
    steps = np.nan_to_num((values - low) / max(high - low, 1e-6) * 255, posinf=255.0, neginf=0.0)
    colors = cv2.applyColorMap(steps.clip(0, 255).astype(np.uint8), colormap)
    colors[~np.isfinite(values)] = 0
    return cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)


def spread(values: NDArray[np.floating], low: float, high: float) -> tuple[float, float]:
    """Two percentiles of what is finite; 0 and 1 where nothing is."""
    finite = values[np.isfinite(values)]
    return tuple(np.percentile(finite, (low, high))) if finite.size else (0.0, 1.0)


def draw_projected(sample: Sample) -> Image:
    """Points (N, C >= 3) as dots in the picture of the camera that they are projected into, near is bright.

    Raises:
        CalibrationError: there is no camera.
    """
    height, width = size_of_camera(sample)
    assert sample.camera is not None
    if sample.extrinsics is None or len(sample.data) == 0:
        return np.zeros((height, width, 3), np.uint8)
    points = project_lidar(sample.data, sample.camera, sample.extrinsics, height, width)
    with np.errstate(divide="ignore"):
        inverse = np.where(points.valid, 1 / points.range_m, np.nan).astype(np.float32)
    dots = false_colors(inverse, _NEAR, _FAR, cv2.COLORMAP_TURBO)
    side = 1 + max(1, round(width / 320))
    return cv2.dilate(dots, np.ones((side, side), np.uint8))


def scale_of_projected(sample: Sample) -> ColorScale:
    """What the colors of `draw_projected` stand for: metres, in even steps of 1 / range."""
    ticks = tuple((at, 1 / (_NEAR + (_FAR - _NEAR) * at)) for at in (0.0, 0.5, 1.0))
    return ColorScale(cv2.COLORMAP_TURBO, ticks, "m")


def draw_picture(sample: Sample) -> Image:
    """A picture as it is when it is RGB, else its first channel in false colors."""
    data = sample.data
    if data.ndim == 3 and data.shape[2] == 3 and data.dtype == np.uint8:
        return np.ascontiguousarray(data)
    first = (data if data.ndim == 2 else data[..., 0]).astype(np.float32)
    return false_colors(first, *spread(first, 1, 99), cv2.COLORMAP_VIRIDIS)


def draw_points(sample: Sample) -> Image:
    """Points in the picture of their camera, or where they have none from above, x up and y to the left."""
    if sample.camera is not None and sample.extrinsics is not None:
        return draw_projected(sample)
    image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    places = sample.data[np.isfinite(sample.data[:, :2]).all(axis=1), :2]
    reach = max(float(np.abs(places).max(initial=0.0)), 1e-6)
    for x, y in (places / reach * (_SIDE / 2 - 2)).round().astype(int).tolist():
        cv2.circle(image, (_SIDE // 2 - y, _SIDE // 2 - x), 1, (255, 255, 255), -1)
    return image


def is_picture(value: Any) -> bool:
    """Whether it is (H, W), (H, W, 3) or (H, W, 4) uint8, not empty."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.size > 0
        and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4)))
    )


def check_picture(value: Any) -> None:
    """Refuse what is no (H, W, 3) uint8.

    Raises:
        TypeError: it is something else.
    """
    if not is_picture(value) or value.shape[2:] != (3,):
        shape = getattr(value, "shape", "")
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"draw gave {kind} {shape}, not (H, W, 3) uint8")

"""Colors to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.geometry.grid import ViewSpec
from perception.geometry.views import Placement
from perception.sensors.ground import fill_lift, lift_tensors, lifted
from perception.sensors.images import check_image, on_grid, one_image, registered
from perception.sensors.kind import Content, Grid, KindSpec, Scale, Tensors, TensorSpec, Value

if TYPE_CHECKING:
    from perception.preprocess.contract import InputSpec

Float = NDArray[np.float32]


class RgbSpec(KindSpec):
    """Mean and standard deviation of R, G, B on the 0..255 scale (ImageNet by default)."""

    mean: tuple[Value, Value, Value] = (123.675, 116.28, 103.53)
    std: tuple[Scale, Scale, Scale] = (58.395, 57.12, 57.375)


def tensors(spec: RgbSpec, view: ViewSpec) -> dict[str, TensorSpec]:
    """`image` (3, H, W); and those of a `Lift`, where it is lifted onto the ground grid."""
    return {**one_image(3, view), **lift_tensors(view)}


def validate(sample: Sample) -> None:
    """Refuse what is not (H, W, 3) uint8."""
    check_image(sample, np.uint8, 3)


def resample(sample: Sample, input: InputSpec) -> Grid:
    """`image` (H, W, 3) uint8, black in the padding."""
    return lifted(on_grid(sample, input), sample, input)


def register(sample: Sample, input: InputSpec, placement: Placement) -> Grid:
    """`image` (H, W, 3) uint8, black where there is nothing."""
    return registered(sample, input, placement)


def normalize(grid: Grid, input: InputSpec, out: Tensors) -> None:
    """See `RgbSpec`."""
    normalize_rgb(grid.image, input.preprocess, out["image"])
    fill_lift(grid, input, out)


def check(sample: Sample, thresholds: Any) -> Content:
    """Dark or washed out, by every 8th pixel's green."""
    green = sample.data[::8, ::8, 1]
    # The percentile is dark when at least that share of the pixels is; counting needs no sorting.
    bright_enough = np.count_nonzero(green >= thresholds.dark_level)
    if bright_enough <= green.size * (1 - thresholds.dark_percentile / 100):
        return "dark"
    bright = (green >= thresholds.saturated_level).mean()
    return "saturated" if bright > thresholds.saturated_share else "ok"


def example(size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Random but plausible."""
    data = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return Sample("rgb", data)


def normalize_rgb(image: NDArray[np.uint8], spec: RgbSpec, out: Float | None = None) -> Float:
    """(H, W, 3) uint8 RGB to (3, H, W) float32, (value - mean) / std per channel."""
    height, width = image.shape[:2]
    out = np.empty((3, height, width), np.float32) if out is None else out
    for i, plane in enumerate(cv2.split(image)):
        # A table look-up has 256 entries to get right and is several times faster than arithmetic.
        table = ((np.arange(256, dtype=np.float32) - spec.mean[i]) / spec.std[i]).astype(np.float32)
        cv2.LUT(plane, table, out[i])
    return out

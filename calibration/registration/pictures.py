"""Pictures of any sensor as the descriptor network sees them: one channel, without level and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 448
"""The longer side of the pictures that are compared, in pixels."""

MULTIPLE = 32
"""Sides are padded to a multiple of this, the stride of the network's coarsest maps."""

SMALLEST = 32
"""Pixels of the shorter side of a picture that may be registered."""

_LOCAL_PX = 12.0
_LARGEST = 4.0
_BORDER_SHARE = 0.002
_EDGE_PX = 3


@dataclass(frozen=True)
class Prepared:
    """A picture at working size.

    Attributes:
        gray: (h, w) float32, 0 to 1 over the middle 98 % of its values.
        valid: (h, w) where the picture shows something: false where it was filled by a warp.
        to_work: 3x3 from the picture's pixels to those of `gray`.
    """

    gray: Float32
    valid: Mask
    to_work: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of `gray`."""
        return self.gray.shape[0], self.gray.shape[1]


def prepare(image: NDArray[Any], side: int = SIDE, name: str = "") -> Prepared:
    """Bring a picture to working size.

    Args:
        image: (H, W) of any numbers; those that are not finite count as nothing seen.
        side: the longer side in pixels.
        name: of the picture, for errors.

    Raises:
        InputError: no picture of one channel, too small, or of one value.
    """
    if image.ndim != 2:
        raise InputError(f"no gray picture: {image.shape}", where=name)
    height, width = image.shape
    if min(height, width) < SMALLEST:
        raise InputError(
            f"{width}x{height} is too small",
            where=name,
            hint=f"at least {SMALLEST} pixels each side",
        )
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    valid = finite & ~filled(np.where(finite, values, np.float32(0)))
    if not valid.any():
        raise InputError("shows nothing: one value everywhere", where=name)
    values[~valid] = np.median(values[valid])
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    across, down = size[0] / width, size[1] / height
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    if size != (width, height):
        values = cv2.resize(values, size, interpolation=kind)
        valid = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    gray = stretched(values, valid)
    if gray is None:
        raise InputError("shows nothing: one value everywhere", where=name)
    shift = np.array(
        [[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1]], np.float64
    )
    return Prepared(gray, valid, shift)


def filled(values: Float32) -> Mask:
    """Where a picture has its least value in whole areas at its border, as warps and masks leave them."""
    low, high = float(values.min()), float(values.max())
    tolerance = (high - low) * 2 / 255
    if high <= low:
        return np.ones(values.shape, bool)
    same = (values <= low + tolerance).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(same, connectivity=4)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    least = _BORDER_SHARE * values.size
    areas = [k for k in border if k and stats[k, cv2.CC_STAT_AREA] >= least]
    if count < 2 or not areas:
        return np.zeros(values.shape, bool)
    mask = np.isin(labels, areas).astype(np.uint8)
    return cv2.dilate(mask, np.ones((2 * _EDGE_PX + 1,) * 2, np.uint8)) > 0


def stretched(values: Float32, valid: Mask) -> Float32 | None:
    """0 to 1 over the middle 98 % of the values that are valid; None where these are all the same."""
    low, high = np.percentile(values[valid], (1, 99)) if valid.any() else (0.0, 0.0)
    if high <= low:
        low, high = (values[valid].min(), values[valid].max()) if valid.any() else (0.0, 0.0)
    if high <= low:
        return None
    return np.clip((values - low) / (high - low), -0.2, 1.2).astype(np.float32)


def normalized(gray: Float32, valid: Mask) -> Float32:
    """What the network gets: (2, h, w), the picture without its mean, and without local mean and contrast.

    Nothing of what is not valid enters; it is 0.
    """
    weight = valid.astype(np.float32)
    inside = gray * weight
    total = max(float(weight.sum()), 1.0)
    mean = float(inside.sum()) / total
    spread = float(np.sqrt((weight * (gray - mean) ** 2).sum() / total)) + 1e-3
    share = cv2.GaussianBlur(weight, (0, 0), _LOCAL_PX) + 1e-3
    local = cv2.GaussianBlur(inside, (0, 0), _LOCAL_PX) / share
    square = cv2.GaussianBlur(inside * gray, (0, 0), _LOCAL_PX) / share
    contrast = np.sqrt(np.maximum(square - local * local, 0)) + 0.05 * spread + 2e-3
    both = np.stack([(gray - mean) / spread, (gray - local) / contrast])
    both = np.clip(both, -_LARGEST, _LARGEST) * weight
    return np.ascontiguousarray(both, np.float32)


def padded(values: Float32, multiple: int = MULTIPLE) -> Float32:
    """(C, h, w) with zeros at the right and below, up to whole multiples."""
    down, right = (-values.shape[1] % multiple, -values.shape[2] % multiple)
    return np.pad(values, ((0, 0), (0, down), (0, right)))

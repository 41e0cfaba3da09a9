"""The geometry of an augmented view, one for all that a frame holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """Scale, then crop at (top, left), then mirror: one for all arrays of a sample.

    Attributes:
        scale: of the grid's pixels.
        top, left: of the view, in pixels after scaling.
        mirror: left and right change places.
        crop: (height, width) of the view.
        jitter: (x, y) by which a sensor's picture lies beside its place, in pixels.
        size: (height, width) of the grid; arrays of another resolution are warped in their own pixels.
            (0, 0): that of the array.
    """

    scale: float
    top: int
    left: int
    mirror: bool
    crop: tuple[int, int]
    jitter: tuple[float, float] = field(default=(0.0, 0.0))
    size: tuple[int, int] = (0, 0)

    def warp(self, image: NDArray[Any], nearest: bool, fill: float) -> NDArray[Any]:
        """An array (H, W) or (H, W, C) of the grid in the view, `fill` where there was nothing."""
        finer = [
            own / full if full else 1.0 for own, full in zip(image.shape, self.size, strict=False)
        ]
        down, right = self.jitter[1] - self.top, self.jitter[0] - self.left
        matrix = np.array(
            [
                [self.scale, 0, 0.5 * self.scale - 0.5 + right * finer[1]],
                [0, self.scale, 0.5 * self.scale - 0.5 + down * finer[0]],
            ]
        )
        height, width = (max(1, round(c * f)) for c, f in zip(self.crop, finer, strict=True))
        mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        if not nearest and self.scale < 0.75:
            image = cv2.GaussianBlur(image, (3, 3), 0.6)  # keeps bilinear shrinking from aliasing
        out = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=mode,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(fill, fill, fill, fill),
        )
        return out[:, ::-1] if self.mirror else out

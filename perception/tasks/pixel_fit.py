"""The temperature of class logits, from pixels of a recording's frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import RecordingInfo, Truth
from perception.errors import ConfigError
from perception.geometry.grid import GridMap
from perception.metrics.temperature import FittedTemperature, fit_temperature
from perception.tasks.matching import class_map
from perception.tasks.spec import ClassSpec
from perception.tasks.task import TemperatureFit

MOST_VALUES = 4_000_000
"""Logits kept of all frames together: 100 000 pixels of 40 classes, 16 MB."""

Float32 = NDArray[np.float32]


class PixelFit(TemperatureFit):
    """Fits to labeled pixels whose class is one of the bundle's.

    Of each frame as many are drawn as `MOST_VALUES` allows, all labeled ones alike and the same ones at every
    call.  Logits are interpolated between the network's cells.

    Args:
        output: the name of the class logits.
        classes: the bundle's.
        info: of the recording.
        frames: how many there will be.
    """

    def __init__(
        self, output: str, classes: Sequence[ClassSpec], info: RecordingInfo, frames: int
    ) -> None:
        table = class_map(classes, [c.name for c in info.seg_classes])
        self._output = output
        self._class = np.full(256, -1, np.int64)
        for id in set(table[table < 255].tolist()):
            own = np.flatnonzero(table == id)
            if (
                len(own) == 1
            ):  # where several are one class of the recording, the truth is none of them
                self._class[id] = own[0]
        self._each = max(1, MOST_VALUES // (max(1, frames) * len(classes)))
        self._frames = 0
        self._logits: list[Float32] = []
        self._truth: list[NDArray[np.int64]] = []

    def add(self, tensors: Mapping[str, NDArray[Any]], grid: GridMap, truth: Truth) -> None:
        if self._output not in tensors:
            raise ConfigError(
                f"its graph gives no {self._output}, which temperatures divide",
                hint="fit those of the bundle that it was made from",
            )
        if truth.labels is None:
            return
        rng = np.random.default_rng(self._frames)
        self._frames += 1
        usable = np.flatnonzero(self._class[truth.labels].ravel() >= 0)
        if len(usable) > self._each:
            usable = np.sort(rng.choice(usable, self._each, replace=False))
        y, x = np.divmod(usable, truth.labels.shape[1])
        self._truth.append(self._class[truth.labels[y, x]])
        logits = grid.crop(tensors[self._output][0])
        self._logits.append(interpolated(logits, x, y, truth.labels.shape))

    def fitted(self) -> FittedTemperature | None:
        truth = np.concatenate([*self._truth, np.zeros(0, np.int64)])
        return fit_temperature(np.concatenate(self._logits), truth) if truth.size else None


def interpolated(
    values: Float32, x: NDArray[np.int64], y: NDArray[np.int64], size: tuple[int, ...]
) -> Float32:
    """Values of a coarse map at pixels of a finer picture of the same view, bilinear as OpenCV resizes.

    Args:
        values: (K, h, w).
        x, y: (N,) columns and rows of the picture.
        size: (height, width) of the picture.

    Returns:
        (N, K) float32.
    """
    _, h, w = values.shape
    u = ((x + 0.5) * (w / size[1]) - 0.5).clip(0, w - 1)
    v = ((y + 0.5) * (h / size[0]) - 0.5).clip(0, h - 1)
    left, top = u.astype(np.int64), v.astype(np.int64)
    right, below = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    du, dv = (u - left).astype(np.float32), (v - top).astype(np.float32)
    upper = values[:, top, left] * (1 - du) + values[:, top, right] * du
    lower = values[:, below, left] * (1 - du) + values[:, below, right] * du
    return np.ascontiguousarray((upper * (1 - dv) + lower * dv).T)

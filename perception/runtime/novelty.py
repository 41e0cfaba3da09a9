"""How far what a sensor shows is from what its encoder was trained on: an out-of-distribution score.

Each channel of an encoder's features has a mean over the picture, or over each of some horizontal bands of
it, as what is above and what is below differ in most scenes. Over frames like those of training these means
have a mean and a standard deviation, which a bundle may hold. A frame's distance is the root of the mean
square of its channels' deviations, each in standard deviations: the Mahalanobis distance of Lee et al., "A
simple unified framework for detecting out-of-distribution samples" (NeurIPS 2018), of one class and with a
diagonal covariance. It needs no label and no task, so that it is the same for whatever comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from perception.runtime.result import SensorWarning
from perception.tasks.spec import Frozen, Spec

MOST_CHANNELS = 65_536
"""Means of one feature map."""

MOST_BANDS = 64

_Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
_Spread = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e30)]


class ChannelStatistics(Spec):
    """Of a feature map's channels, each averaged over the bands of the picture.

    Attributes:
        mean: (bands * C,) over frames, those of the uppermost band first.
        std: (bands * C,) standard deviation over frames.
    """

    mean: tuple[_Finite, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    std: tuple[_Spread, ...] = Field(min_length=1, max_length=MOST_CHANNELS)

    @model_validator(mode="after")
    def _alike(self) -> ChannelStatistics:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means, but {len(self.std)} standard deviations")
        return self


class InputNovelty(Spec):
    """What an input's features are like, and how far from that is far.

    Attributes:
        features: by the fuser's name for them, such as `rgb.f16`.
        bands: into how many the rows of features are dealt out.
        limit: the distance that counts as 1: of frames like those of training, one of a hundred lies beyond.
    """

    features: Frozen[str, ChannelStatistics] = Field(min_length=1)
    bands: int = Field(1, ge=1, le=MOST_BANDS)
    limit: float = Field(gt=0, allow_inf_nan=False)


class NoveltyScore:
    """The score of one input's features.

    Args:
        known: what they are like.
    """

    def __init__(self, known: InputNovelty) -> None:
        self._bands, self._limit = known.bands, known.limit
        self._means = {n: np.array(own.mean, np.float32) for n, own in known.features.items()}
        self._scales = {n: 1 / np.array(own.std, np.float32) for n, own in known.features.items()}

    def of(self, features: Mapping[str, Any]) -> float | None:
        """The novelty of one frame's features; None where these are not in the CPU's memory, or others.

        Args:
            features: (1, C, ...) float32, by the fuser's names for them.

        Returns:
            The distance over `limit`: beyond 1 the frame is far from training.
        """
        found = {}
        for name, mean in self._means.items():
            feature = features.get(name)
            if not isinstance(feature, np.ndarray):
                return None
            found[name] = channel_means(feature, self._bands)
            if found[name].shape != mean.shape:
                return None
        return self.distance(found) / self._limit

    def distance(self, means: Mapping[str, NDArray[np.float32]]) -> float:
        """Root mean square of the channels' deviations, in standard deviations.

        Args:
            means: (bands * C,) of every feature that it tells of, see `channel_means`.
        """
        total, count = 0.0, 0
        for name, mean in self._means.items():
            deviations = (means[name] - mean) * self._scales[name]
            total += float(np.square(deviations, dtype=np.float64).sum())
            count += len(mean)
        return math.sqrt(total / count)


def channel_means(feature: NDArray[Any], bands: int = 1) -> NDArray[np.float32]:
    """(bands * C,) float32, the means of a (1, C, rows, ...) feature over each band of its rows.

    Bands differ by a row at most; one that has none takes the row before which it lies.
    """
    channels, rows = feature.shape[1], feature.shape[2] if feature.ndim > 2 else 1
    flat = feature[0].reshape(channels, -1).astype(np.float32, copy=False)
    each = flat.shape[1] // rows
    found = []
    for band in range(bands):
        first, last = band * rows // bands, (band + 1) * rows // bands
        part = flat[:, first * each : max(last, first + 1) * each]
        # A product with ones is the sum, and faster than adding along an axis.
        found.append(part @ np.full(part.shape[1], 1 / part.shape[1], np.float32))
    return np.concatenate(found)


def unfamiliar(novelty: Mapping[str, float]) -> list[SensorWarning]:
    """What there is to say about sensors that are far from training; they are used all the same."""
    return [
        SensorWarning(sensor, "ok", f"{sensor}: shows what is far from training")
        for sensor, value in novelty.items()
        if value > 1
    ]


class FarFromTraining:
    """Which sensors stay far from training: a single frame beyond the limit is one of a hundred anyway.

    Args:
        after: so many outputs in a row, or most of twice as many, tell that a sensor is far.
    """

    def __init__(self, after: int = 3) -> None:
        self._after = after
        self._far: dict[str, int] = {}
        self._novelty: dict[str, float] = {}

    def note(self, novelty: Mapping[str, float]) -> None:
        """Take `Result.novelty` of one output; sensors that it does not tell of stay as they are."""
        for sensor, value in novelty.items():
            before = self._far.get(sensor, 0)
            step = before + 1 if value > 1 else before - 1
            self._far[sensor] = min(max(step, 0), 2 * self._after)
            self._novelty[sensor] = value

    def novelty(self, sensor: str) -> float | None:
        """The sensor's last; None where it is not known."""
        return self._novelty.get(sensor)

    def line(self, sensor: str) -> str:
        """What there is to say about a sensor: empty where it is near to training, or nothing is known."""
        if self._far.get(sensor, 0) < self._after:
            return ""
        return f"{sensor}: shows what is far from training (novelty {self._novelty[sensor]:.1f})"

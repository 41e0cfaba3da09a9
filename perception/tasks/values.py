"""A result's values by task, under the names that they are best known by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.tasks.boxes2d import BOXES2D
from perception.tasks.boxes3d import BOXES3D, Boxes3d
from perception.tasks.detections import Detections
from perception.tasks.pictures import PICTURES
from perception.tasks.points import POINTS, LabeledPoints
from perception.tasks.segmentation import SEGMENTATION, Segmentation

_NOTHING, _NO_PICTURES = Segmentation(), MappingProxyType[str, Any]({})


class TaskValues:
    """What has `values`; each of these is None (no pictures: empty) where the task has no value."""

    values: Mapping[str, Any]

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """(H, W) uint8 class ids in the source image's size."""
        found: Segmentation = self.values.get(SEGMENTATION.name, _NOTHING)
        return found.labels

    @property
    def confidence(self) -> NDArray[np.float32] | None:
        """(H, W) float32 in 0..1, the probability of the label, derated when degraded."""
        found: Segmentation = self.values.get(SEGMENTATION.name, _NOTHING)
        return found.confidence

    @property
    def energy(self) -> NDArray[np.float32] | None:
        """(H, W) float32, how little the network supports any class; where it was asked for."""
        found: Segmentation = self.values.get(SEGMENTATION.name, _NOTHING)
        return found.energy

    @property
    def boxes(self) -> Detections | None:
        """2D boxes, in the source image's pixels."""
        return self.values.get(BOXES2D.name)

    @property
    def boxes3d(self) -> Boxes3d | None:
        """3D boxes, where LiDAR or depth with calibration was used."""
        return self.values.get(BOXES3D.name)

    @property
    def points(self) -> LabeledPoints | None:
        """Measured points with labels, where LiDAR or depth with calibration was used, each sample once."""
        return self.values.get(POINTS.name)

    @property
    def images(self) -> Mapping[str, NDArray[np.uint8]]:
        """By name, (H, W, C) uint8 pictures in the source image's size; `fused` is RGB."""
        found: Mapping[str, NDArray[np.uint8]] = self.values.get(PICTURES.name, _NO_PICTURES)
        return found

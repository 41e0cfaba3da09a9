"""Measured points with the labels of the pixels that they fall into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry.measured import PixelPoints
from perception.tasks.segmentation import Segmentation
from perception.tasks.spatial import seen_points, spatial_sensor
from perception.tasks.spec import Classes, TaskSpec, class_name
from perception.tasks.task import Task, TaskContext


class PointsSpec(TaskSpec):
    """Classes of points: those of segmentation."""

    classes: Classes = ()


@dataclass(frozen=True)
class LabeledPoints(PixelPoints):
    """Measured points with their labels.

    Attributes:
        labels: (N,) uint8 class ids.
        confidence: (N,) float32 in 0..1.
        sensor: that measured them, in whose own frame they are.
    """

    labels: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    sensor: str


def _implied(tasks: Mapping[str, TaskSpec]) -> PointsSpec | None:
    found = tasks.get("segmentation")
    return None if found is None else PointsSpec(classes=found.labels)


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> LabeledPoints | None:
    """Of a sample that was in no result before."""
    name = spatial_sensor(ctx)
    pixels: Segmentation | None = ctx.values.get("segmentation")
    if name is None or name not in ctx.fresh or pixels is None:
        return None
    found = seen_points(ctx, name)
    if found is None or pixels.labels is None or pixels.confidence is None:
        return None
    at = (found.row, found.column)
    return LabeledPoints(
        **vars(found), labels=pixels.labels[at], confidence=pixels.confidence[at], sensor=name
    )


def _to_dict(value: LabeledPoints, spec: PointsSpec) -> dict[str, Any]:
    ids, counts = np.unique(value.labels, return_counts=True)
    named = {class_name(spec.classes, int(i)): int(n) for i, n in zip(ids, counts, strict=True)}
    return {"points": {"sensor": value.sensor, "count": len(value.labels), "classes": named}}


POINTS = Task(
    name="points",
    spec=PointsSpec,
    forms=lambda spec, grid: ({},),
    decode=_decode,
    after=("segmentation",),
    implied=_implied,
    on_request=True,
    alone=False,
    to_dict=_to_dict,
    summary=lambda value, spec: {},
    publisher="anysense_ros.publishing.points:PointsPublisher",
)

"""3D boxes, lifted from 2D ones by the points that LiDAR, depth or the like measured within them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry.camera import CameraModel
from perception.geometry.measured import PixelPoints
from perception.tasks.boxes2d import Detections
from perception.tasks.spatial import pixel_points, spatial_sensor
from perception.tasks.spec import Classes, TaskSpec, class_name
from perception.tasks.task import Task, TaskContext

Float32 = NDArray[np.float32]

_LEAST_POINTS = 3
_CORE = 0.6  # share of a box's width and height whose points say how far away it is
_BIN_M = 0.5
_LEAST_SIZE_M = 0.1


class Boxes3dSpec(TaskSpec):
    """Classes of boxes: those of the 2D boxes."""

    classes: Classes = ()


@dataclass(frozen=True)
class Boxes3d:
    """Boxes in the reference camera's optical frame, axes along its axes, best first.

    Attributes:
        center: (N, 3) float32 metres.
        size: (N, 3) float32 metres along x, y, z.
        scores: (N,) float32 in 0..1.
        class_ids: (N,) int64, indices into the task's classes.
        index: (N,) int64, which 2D box each one was lifted from.
    """

    center: Float32
    size: Float32
    scores: Float32
    class_ids: NDArray[np.int64]
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def lift_boxes(points: PixelPoints, boxes: Detections, camera: CameraModel) -> Boxes3d:
    """3D boxes from 2D ones and the points within.

    The distance is that of the fullest half-metre among the points in the box's core; width and
    height follow from the 2D box at that distance, length from the points near it.  A box without
    three points is left out.

    Args:
        points: measured points.
        boxes: 2D boxes in the result's pixels.
        camera: intrinsics of the result's image.
    """
    centers, sizes, index = [], [], []
    for i, (left, top, right, bottom) in enumerate(boxes.xyxy):
        dx, dy = (right - left) * (1 - _CORE) / 2, (bottom - top) * (1 - _CORE) / 2
        inside = (points.column >= left + dx) & (points.column < right - dx)
        inside &= (points.row >= top + dy) & (points.row < bottom - dy)
        z = points.optical[inside, 2]
        if len(z) < _LEAST_POINTS:
            continue
        near = _densest(z)
        middle, length = float(np.median(near)), float(np.ptp(near))
        corners = camera.unproject([[left, top], [right, bottom]], middle)
        if not np.isfinite(corners).all():
            continue
        wide, high = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1]
        centers.append([*(corners.mean(axis=0)[:2]), middle])
        sizes.append([max(v, _LEAST_SIZE_M) for v in (wide, high, length)])
        index.append(i)
    kept = np.array(index, np.int64)
    return Boxes3d(
        np.array(centers, np.float32).reshape(-1, 3),
        np.array(sizes, np.float32).reshape(-1, 3),
        boxes.scores[kept],
        boxes.class_ids[kept],
        kept,
    )


def _densest(z: Float32) -> Float32:
    """The distances in and next to the fullest bin; of equals the nearest."""
    bins = np.floor(z / _BIN_M).astype(np.int64)
    values, counts = np.unique(bins, return_counts=True)
    return z[np.abs(bins - values[counts.argmax()]) <= 1]


def _implied(tasks: Mapping[str, TaskSpec]) -> Boxes3dSpec | None:
    found = tasks.get("boxes2d")
    return None if found is None else Boxes3dSpec(classes=found.labels)


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Boxes3d | None:
    boxes: Detections | None = ctx.values.get("boxes2d")
    name = spatial_sensor(ctx)
    if boxes is None or name is None:
        return None
    source = ctx.samples[name]
    reference = ctx.samples.get(ctx.reference, source)
    camera = reference.camera or source.camera
    points: PixelPoints | None = ctx.values.get("points")
    if not len(boxes):
        nothing = np.zeros((0, 3), np.float32)
        points = points or PixelPoints(nothing, nothing, *(np.zeros((2, 0), np.int32)))
    if points is None:
        points = pixel_points(source, ctx.grid.source, ctx.stride)
    return None if points is None or camera is None else lift_boxes(points, boxes, camera)


def _to_dict(value: Boxes3d, spec: Boxes3dSpec) -> dict[str, Any]:
    rows = zip(value.center, value.size, value.scores, value.class_ids, value.index, strict=True)
    return {
        "boxes3d": [
            {
                "class": class_name(spec.classes, int(kind)),
                "score": round(float(score), 4),
                "center_m": [round(float(v), 3) for v in center],
                "size_m": [round(float(v), 3) for v in size],
                "box": int(index),
            }
            for center, size, score, kind, index in rows
        ]
    }


BOXES3D = Task(
    name="boxes3d",
    spec=Boxes3dSpec,
    forms=lambda spec, grid: ({},),
    decode=_decode,
    after=("boxes2d",),
    implied=_implied,
    alone=False,
    to_dict=_to_dict,
    publisher="anysense_ros.publishing.boxes3d:Boxes3dPublisher",
)

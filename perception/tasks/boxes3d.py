"""3D boxes, lifted from 2D ones by the points that LiDAR, depth or the like measured within them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import RecordingInfo
from perception.geometry.camera import CameraModel
from perception.geometry.measured import PixelPoints
from perception.tasks.boxes2d import Detections
from perception.tasks.boxes3d_meter import Boxes3dMeter
from perception.tasks.spatial import seen_points, spatial_sensor
from perception.tasks.spec import Classes, TaskSpec, class_name
from perception.tasks.task import Task, TaskContext

Float32 = NDArray[np.float32]

_LEAST_POINTS = 3
_CORE = 0.6  # share of a box's width and height whose points say how far away it is
_BIN_M = 0.5
_MOST_BINS = 10_000
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
    # By column, so that a box looks at the points of its columns alone.
    key = points.column
    if key.max(initial=0) < 1 << 16:
        key = key.astype(np.uint16)  # which is sorted in linear time
    order = np.argsort(key, kind="stable")
    column, row, depth = points.column[order], points.row[order], points.optical[order, 2]
    low, high = boxes.xyxy[:, :2], boxes.xyxy[:, 2:]
    margin = (high - low) * (1 - _CORE) / 2
    cores = np.ceil(np.hstack([low + margin, high - margin])).astype(np.int32)
    found = []
    for i, (left, top, right, bottom) in enumerate(cores):
        first, last = np.searchsorted(column, (left, right))
        rows = row[first:last]
        z = depth[first:last][(rows >= top) & (rows < bottom)]
        if len(z) >= _LEAST_POINTS:
            near = _densest(z)
            found.append((i, np.median(near), np.ptp(near)))
    index = np.array([i for i, *_ in found], np.int64)
    middle, length = np.array([values for _, *values in found], np.float64).reshape(-1, 2).T
    pixels = boxes.xyxy[index].reshape(-1, 2)
    corners = camera.unproject(pixels, np.repeat(middle, 2)).reshape(-1, 2, 3)
    center = np.column_stack([corners.mean(axis=1)[:, :2], middle])
    size = np.column_stack([(corners[:, 1] - corners[:, 0])[:, :2], length])
    keep = np.isfinite(corners).all(axis=(1, 2))
    index = index[keep]
    return Boxes3d(
        center[keep].astype(np.float32),
        np.maximum(size[keep], _LEAST_SIZE_M).astype(np.float32),
        boxes.scores[index],
        boxes.class_ids[index],
        index,
    )


def _densest(z: Float32) -> Float32:
    """The distances in and next to the fullest bin; of equals the nearest."""
    bins = np.floor(z / _BIN_M).astype(np.int64)
    bins -= bins.min()
    if bins.max() < _MOST_BINS:
        fullest = np.bincount(bins).argmax()
    else:
        values, counts = np.unique(bins, return_counts=True)
        fullest = values[counts.argmax()]
    return z[np.abs(bins - fullest) <= 1]


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
        points = seen_points(ctx, name)
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


def _meter(spec: Any, info: RecordingInfo) -> Boxes3dMeter | None:
    """Of boxes on the ground; those that are lifted from 2D ones lie in a camera's frame, and have no yaw."""
    ground = getattr(spec, "birdseye", None)
    meter = None if ground is None else Boxes3dMeter(spec.classes, info, ground)
    return meter if meter is not None and (meter.map < 255).any() else None


BOXES3D = Task(
    name="boxes3d",
    spec=Boxes3dSpec,
    forms=lambda spec, grid: ({},),
    decode=_decode,
    after=("boxes2d",),
    implied=_implied,
    on_request=True,
    alone=False,
    meter=_meter,
    judged={"map3d": "mAP 3D"},
    shown=("nds3d",),
    to_dict=_to_dict,
    publisher="anysense_ros.publishing.boxes3d:Boxes3dPublisher",
)

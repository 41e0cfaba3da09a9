"""3D boxes: a network's on the ground, or lifted from 2D ones by the points measured within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.data.base import RecordingInfo
from perception.geometry.boxes import corners_of
from perception.geometry.camera import CameraModel
from perception.geometry.grid import BirdseyeSpec
from perception.geometry.measured import PixelPoints
from perception.geometry.transforms import RigidTransform
from perception.tasks.boxes3d_meter import Boxes3dMeter
from perception.tasks.centers import FIELD_NAMES, decode_centers
from perception.tasks.detections import Detections
from perception.tasks.spatial import seen_points, spatial_sensor
from perception.tasks.spec import Classes, ClassSpec, TaskSpec, class_name
from perception.tasks.task import Task, TaskContext

Float32 = NDArray[np.float32]

_LEAST_POINTS = 3
_CORE = 0.6  # share of a box's width and height whose points say how far away it is
_BIN_M = 0.5
_MOST_BINS = 10_000
_LEAST_SIZE_M = 0.1
_LEAST_SCORE = 0.1
_MOST_BOXES = 200


class Boxes3dSpec(TaskSpec):
    """Classes of boxes, and the grid on the ground that a network answers on; None where boxes are lifted."""

    classes: Classes = ()
    birdseye: BirdseyeSpec | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    max_boxes: Annotated[int, Field(ge=1, le=10_000)] | None = None

    def check(self, inputs: Sequence[str]) -> None:
        """Refuse a network's boxes without classes."""
        if self.birdseye is not None and not self.classes:
            raise ValueError("boxes on the ground need classes")


@dataclass(frozen=True)
class Boxes3d:
    """Boxes in space, best first.

    A network's stand upright in the vehicle's base frame (REP 105).  Lifted ones are in the reference
    camera's optical frame, axes along its axes.

    Attributes:
        center: (N, 3) float32 metres.
        size: (N, 3) float32 metres along its own x, y, z: of a network's length, width, height.
        scores: (N,) float32 in 0..1.
        class_ids: (N,) int64, indices into the task's classes.
        index: (N,) int64, which 2D box each one was lifted from, -1 for none.
        yaw: (N,) float32 radians about z, from the frame's x to the box's; 0 of lifted ones.
        velocity: (N, 2) float32 metres per second over the ground, in the frame's axes; NaN: not known.
        frame_id: the name of their frame; may be empty where nobody named the camera's.
        stamp_ns: the time at which they are there; None where it is not known.
        in_base: the frame is the vehicle's base frame.
    """

    center: Float32
    size: Float32
    scores: Float32
    class_ids: NDArray[np.int64]
    index: NDArray[np.int64]
    yaw: Float32 = None  # type: ignore[assignment]
    velocity: Float32 = None  # type: ignore[assignment]
    frame_id: str = ""
    stamp_ns: int | None = None
    in_base: bool = False

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.yaw is None:
            object.__setattr__(self, "yaw", np.zeros(count, np.float32))
        if self.velocity is None:
            object.__setattr__(self, "velocity", np.full((count, 2), np.nan, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: NDArray[Any]) -> Boxes3d:
        """Those of a mask, or at these places."""
        names = ("center", "size", "scores", "class_ids", "index", "yaw", "velocity")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def corners(self, transform: RigidTransform | None = None) -> NDArray[np.float64]:
        """(N, 8, 3) metres, see `geometry.boxes.corners_of`, in the frame that a transform leads to."""
        return corners_of(self.center, self.size, self.yaw, transform)


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


HEATMAP, FIELDS = "boxes3d_heatmap", "boxes3d_fields"
"""Outputs of a network on the ground: (1, classes, rows/2, columns/2) logits, (1, 10, rows/2, columns/2)."""


def _forms(spec: Boxes3dSpec, grid: tuple[int, int]) -> tuple[dict[str, tuple[int, ...]], ...]:
    if spec.birdseye is None:
        return ({},)
    rows, columns = (side // 2 for side in spec.birdseye.shape)
    heatmap = (1, len(spec.classes), rows, columns)
    return ({HEATMAP: heatmap, FIELDS: (1, len(FIELD_NAMES), rows, columns)},)


def _on_ground(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Boxes3d:
    spec: Boxes3dSpec = ctx.spec
    assert spec.birdseye is not None
    least = _LEAST_SCORE if spec.score_threshold is None else spec.score_threshold
    found = decode_centers(
        tensors[HEATMAP][0],
        tensors[FIELDS][0],
        spec.birdseye,
        min_score=least if ctx.min_score is None else ctx.min_score,
        most=spec.max_boxes or _MOST_BOXES,
    )
    reference = ctx.samples.get(ctx.reference)
    return Boxes3d(
        found.center,
        found.size,
        found.scores * np.float32(ctx.confidence),
        found.class_ids,
        np.full(len(found.scores), -1),
        found.yaw,
        found.velocity,
        ctx.base_frame,
        None if reference is None else reference.stamp_ns,
        True,
    )


def _decode(tensors: Mapping[str, NDArray[Any]], ctx: TaskContext) -> Boxes3d | None:
    if ctx.spec.birdseye is not None:
        return _on_ground(tensors, ctx)
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
    if points is None or camera is None:
        return None
    found = lift_boxes(points, boxes, camera)
    return replace(found, frame_id=camera.frame_id, stamp_ns=reference.stamp_ns)


def _to_dict(value: Boxes3d, spec: Boxes3dSpec) -> dict[str, Any]:
    if value.in_base:
        return _as_placed(value, spec)
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


def _meter(spec: Boxes3dSpec, info: RecordingInfo) -> Boxes3dMeter | None:
    """Of boxes on the ground; those that are lifted from 2D ones lie in a camera's frame, and have no yaw."""
    if spec.birdseye is None:
        return None
    meter = Boxes3dMeter(spec.classes, info, spec.birdseye)
    return meter if (meter.map < 255).any() else None


def _as_placed(value: Boxes3d, spec: Boxes3dSpec) -> dict[str, Any]:
    known = np.isfinite(value.velocity.sum(axis=1))
    boxes = [
        {
            "class": class_name(spec.classes, int(value.class_ids[i])),
            "score": round(float(value.scores[i]), 4),
            "center_m": [round(float(v), 3) for v in value.center[i]],
            "size_m": [round(float(v), 3) for v in value.size[i]],
            "yaw_rad": round(float(value.yaw[i]), 4),
            "velocity_m_s": [round(float(v), 3) for v in value.velocity[i]] if known[i] else None,
        }
        for i in range(len(value))
    ]
    return {"boxes3d": boxes, "boxes3d_frame": value.frame_id, "boxes3d_stamp_ns": value.stamp_ns}


def _present(value: Boxes3d, spec: Boxes3dSpec) -> list[tuple[ClassSpec, str]]:
    ids, counts = np.unique(value.class_ids, return_counts=True)
    found = zip(ids.tolist(), counts.tolist(), strict=True)
    return [(spec.classes[i], str(n)) for i, n in found if value.in_base and i < len(spec.classes)]


def _above(value: Boxes3d, spec: Boxes3dSpec, score: float | None) -> Boxes3d:
    if not value.in_base:
        return value
    usual = _LEAST_SCORE if spec.score_threshold is None else spec.score_threshold
    return value.chosen(np.flatnonzero(value.scores >= (usual if score is None else score)))


BOXES3D = Task(
    name="boxes3d",
    spec=Boxes3dSpec,
    forms=_forms,
    decode=_decode,
    after=("boxes2d",),
    implied=_implied,
    on_request=True,
    alone=False,
    meter=_meter,
    judged={"map3d": "mAP 3D"},
    shown=("nds3d",),
    direct=lambda spec: spec.birdseye is not None,
    classes_of=lambda info: info.det_classes,
    training="perception.training.tasks.boxes3d:BOXES3D",
    to_dict=_to_dict,
    present=_present,
    above=_above,
    publisher="anysense_ros.publishing.boxes3d:Boxes3dPublisher",
)

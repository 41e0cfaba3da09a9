"""The truth in space as people see it: boxes as edges in pictures, points and boxes from above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.data.base import ClassInfo, TruthBoxes3d
from perception.errors import CalibrationError
from perception.frame import Frame, Sample
from perception.geometry.boxes import corners_of
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform
from perception.sensors.registry import kind_of
from perception.tasks.task import Image
from perception.viz.birdseye import IGNORED, Extent, ShownBoxes, draw_birdseye, size_for
from perception.viz.wireframes import draw_boxes3d

_REACH_M = 15.0, 60.0
_BEHIND = 0.3  # of the reach, where nothing is behind the vehicle
_MOST_POINTS = 0.9  # of the points lie within the reach where there are no boxes
_LONGEST = 440  # pixels, as many as a page shows


def draw_edges(
    picture: Image, sample: Sample, boxes: TruthBoxes3d, rig: Rig, classes: Sequence[ClassInfo]
) -> Image | None:
    """A picture of a camera with the edges of boxes; None where it is not known how it sees them.

    Args:
        picture: of the sample.
        sample: of a kind that has pictures, with its camera.
        boxes: in any frame that the rig places.
        rig: of the recording.
        classes: of boxes.
    """
    moved = _to_camera(rig, boxes.frame, sample.sensor)
    if sample.camera is None or moved is None or not kind_of(sample.kind).has_picture:
        return None
    optical = corners_of(boxes.center, boxes.size, boxes.yaw, moved)
    return draw_boxes3d(np.ascontiguousarray(picture), sample.camera, optical, _rgb(boxes, classes))


def draw_from_above(
    frame: Frame, boxes: TruthBoxes3d, rig: Rig, classes: Sequence[ClassInfo]
) -> Image:
    """Points of all sensors whose place is known, and boxes, about the vehicle's base; where the rig names
    none, about the sensor in whose frame the boxes are."""
    placed = boxes.to_base(rig)
    boxes = boxes if placed is None else placed
    clouds = [_cloud(s, boxes.frame, rig) for s in frame.values() if _is_cloud(s)]
    points = np.concatenate([c for c in clouds if c is not None] or [np.zeros((0, 3))])
    extent = _extent(boxes, points)
    shown = ShownBoxes(
        boxes.center,
        boxes.size,
        boxes.yaw,
        np.where(boxes.ignore, -1, boxes.class_ids),
        [entry.color for entry in classes],
        velocity=boxes.velocity,
    )
    return draw_birdseye(points, shown, extent, size_for(extent, _LONGEST))


def _rgb(boxes: TruthBoxes3d, classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    table = np.array([*(entry.color for entry in classes), IGNORED], np.uint8)
    return table[np.where(boxes.ignore, -1, boxes.class_ids)]


def _to_camera(rig: Rig, frame: str, camera: str) -> RigidTransform | None:
    """From the boxes' frame to a camera's optical frame."""
    if not frame:
        placed = rig.in_base(camera)
        return None if placed is None else placed.inverse()
    try:
        return rig.between(frame, camera)
    except CalibrationError:
        return None


def _is_cloud(sample: Sample) -> bool:
    return not kind_of(sample.kind).has_picture and sample.data.ndim == 2


def _cloud(sample: Sample, frame: str, rig: Rig) -> NDArray[np.float64] | None:
    """Points (N, 3) in the base frame (empty) or that of a sensor."""
    moved = rig.in_base(sample.sensor) if not frame else _between(rig, sample.sensor, frame)
    return None if moved is None else moved.apply(sample.data[:, :3].astype(np.float64))


def _between(rig: Rig, sensor: str, frame: str) -> RigidTransform | None:
    if sensor == frame:
        return RigidTransform.identity()
    try:
        return rig.between(sensor, frame)
    except CalibrationError:
        return None


def _extent(boxes: TruthBoxes3d, points: NDArray[np.float64]) -> Extent:
    """So much that what is labeled is seen; less behind where nothing is."""
    own = boxes.center[~boxes.ignore]
    away = np.linalg.norm(own[:, :2], axis=1)
    reach = float(away.max(initial=0.0)) * 1.1
    if not len(own) and len(points):
        reach = float(np.quantile(np.linalg.norm(points[:, :2], axis=1), _MOST_POINTS))
    reach = float(np.clip(np.ceil(reach), *_REACH_M))
    behind = reach if (own[:, 0] < -_BEHIND * reach).any() else _BEHIND * reach
    return (-behind, reach), (-0.8 * reach, 0.8 * reach)

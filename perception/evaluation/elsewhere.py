"""Truth in the pixels of another camera than the one that it was labeled in.

Labels and boxes belong to one sensor of a recording.  A result in the pixels of another one, as of that
sensor alone, is judged by what of them it sees, where the calibration of both is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL, Boxes, Truth
from perception.frame import Sample
from perception.geometry.grid import GridSpec
from perception.geometry.lattice import Lattice
from perception.geometry.rig import Rig
from perception.geometry.sights import Sight
from perception.geometry.views import View, bound
from perception.runtime.alignment import Alignment
from perception.sensors.registry import kind_of

_LEAST_SEEN = 0.25
"""Of a box within the picture; of less nobody could tell what it is."""

_NEAR_SHARE = 75
"""Percentile of the inverse depths within a box that is the object's: it stands before what is behind."""


def truth_on_ground(truth: Truth, rig: Rig) -> Truth:
    """With its boxes in space in the base frame; without them where the rig does not say how to get there."""
    boxes = truth.boxes3d
    return truth if boxes is None else replace(truth, boxes3d=boxes.to_base(rig))


def truth_seen_by(
    shown: str, labels_of: str, truth: Truth, frame: Mapping[str, Sample], config: Alignment
) -> Truth:
    """The truth in the pixels of a sensor; itself where they are those that it was labeled in, or where
    it is not known how the two stand to each other.

    Args:
        shown: the sensor.
        labels_of: that in whose pixels the truth is.
        truth: of the frame.
        frame: all of its samples, of which the first that measures distances says where pixels lie.
        config: what passes for aligned, and how far away things are without such a sample.

    Returns:
        Labels of `own`'s size, 255 for what `labeled` does not show, and boxes of what it sees, ignored
        where that is less than a quarter.
    """
    own, labeled = frame.get(shown), frame.get(labels_of)
    if own is None or labeled is None or own is labeled or config.mode == "off":
        return truth
    if not kind_of(own.kind).has_picture or own.extrinsics is labeled.extrinsics is None:
        return truth
    to, of = Sight.of(own), Sight.of(labeled)
    if to is None or of is None:
        return truth
    view = bound(_spec(to.size), of, to, config.plane_m)
    if view.off_px <= config.tolerance_px:
        return truth
    ranger = next((s for s in frame.values() if kind_of(s.kind).distances is not None), None)
    ranger = ranger if config.depth else None
    found = truth
    if truth.labels is not None:
        labels = truth.labels
        if labels.shape != of.size:
            labels = cv2.resize(labels, of.size[::-1], interpolation=cv2.INTER_NEAREST)
        near = None if ranger is None else _near(view.lattice, ranger, to)
        moved = view.to_grid(labels, nearest=True, fill=IGNORE_LABEL, near=near)
        found = replace(found, labels=moved)
    if truth.boxes is not None:
        back = bound(_spec(of.size), to, of, config.plane_m)
        near = None if ranger is None else _near(back.lattice, ranger, of)
        boxes = _boxes(truth.boxes, truth.size or of.size, back, near)
        found = replace(found, boxes=boxes)
    return replace(found, size=to.size)


def _spec(size: tuple[int, int]) -> GridSpec:
    """A grid that is a picture."""
    return GridSpec.model_construct(height=size[0], width=size[1], fit="stretch")


def _near(lattice: Lattice, ranger: Sample, at: Sight) -> NDArray[np.float32]:
    """Inverse depths on a picture's lattice, of a sensor that may stand there or elsewhere."""
    sight, distances = Sight.of(ranger), kind_of(ranger.kind).distances
    assert distances is not None
    same = sight is None or sight.key == at.key
    return lattice.inverse_depth(distances(ranger), None if same else sight)


def _boxes(
    boxes: Boxes, size: tuple[int, int], view: View, near: NDArray[np.float32] | None
) -> Boxes:
    """Boxes of a picture of a (height, width), in the pixels of the view's source."""
    height, width = view.grid.source
    scale = np.array([width / size[1], height / size[0]] * 2)
    rows: list[Any] = []
    kinds, ignored = [], []
    most = view.source.size[::-1] * 2
    for xyxy, kind, ignore in zip(boxes.xyxy * scale, boxes.class_ids, boxes.ignore, strict=True):
        moved = _moved(xyxy, view, 1 / view.plane_m if near is None else _object(xyxy, view, near))
        if moved is None:
            continue
        inside = moved.clip(0, most)
        share = _area(inside) / max(_area(moved), 1e-9)
        if share <= 0:
            continue
        rows.append(inside)
        kinds.append(int(kind))
        ignored.append(bool(ignore) or share < _LEAST_SEEN)
    return Boxes.of(np.array(rows), kinds, ignored)


def _area(xyxy: NDArray[Any]) -> float:
    return float(max(0.0, xyxy[2] - xyxy[0]) * max(0.0, xyxy[3] - xyxy[1]))


def _object(xyxy: NDArray[Any], view: View, near: NDArray[np.float32]) -> float:
    """1/m of what a box holds; of its middle, so that little of what is beside it counts."""
    center, half = (xyxy[:2] + xyxy[2:]) / 2, (xyxy[2:] - xyxy[:2]) / 4
    step = view.lattice.step
    (x0, y0), (x1, y1) = (
        np.maximum(0, (center - half) / step).astype(int) + 1,
        np.maximum(0, (center + half) / step).astype(int) + 2,
    )
    values = near[y0:y1, x0:x1]
    values = values[values > 0]
    return float(np.percentile(values, _NEAR_SHARE)) if values.size else 1 / view.plane_m


def _moved(xyxy: NDArray[Any], view: View, near: float) -> NDArray[Any] | None:
    """The box around a box's outline, at an inverse depth, in the source's pixels; None for not seen.

    Edges of boxes are edges of pixels, whose centers are whole numbers to a camera.
    """
    steps = np.linspace(0, 1, 9)
    x, y = xyxy[0] + steps * (xyxy[2] - xyxy[0]), xyxy[1] + steps * (xyxy[3] - xyxy[1])
    across, down = np.meshgrid(x - 0.5, y - 0.5)
    edge = np.column_stack([across.ravel(), down.ravel()])
    rays = view.lattice.reference.camera.unproject(edge, 1.0)
    at = rays @ view.to_source.rotation.T + view.to_source.translation * near
    with np.errstate(all="ignore"):
        u, v, valid = view.source.camera.project_columns(at[:, 0], at[:, 1], at[:, 2])
    valid &= np.isfinite(u) & np.isfinite(v)
    if not valid.any():
        return None
    u, v = u[valid] + 0.5, v[valid] + 0.5
    return np.array([u.min(), v.min(), u.max(), v.max()])

"""Objects of other frames put into a scene, in all of its sensors (after "SECOND", Yan et al., Sensors 2018).

An object keeps its place on the vehicle's ground.  Where both frames come from sensors that sit and look
alike, its points are then where they were, and its piece of each picture is, too: what a camera saw of it
goes along, so that sensors agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import TruthBoxes3d
from perception.frame import Sample
from perception.geometry.boxes import corners_of, inside, wrapped
from perception.sensors.registry import kind_of

LEAST_POINTS = 5
"""Of an object that is worth being put somewhere else."""

_APART_RAD = 0.03
_MARGIN_M = 0.1
_SAME_M = 1e-4
_LOW_M = 0.4
_BEFORE_POINTS = 3
_BEFORE_M = 0.1


@dataclass(frozen=True)
class Scene:
    """Samples by sensor, with their poses, and boxes in the base frame."""

    samples: Mapping[str, Sample]
    boxes: TruthBoxes3d


def pasted(scene: Scene, donor: Scene, k: int) -> Scene | None:
    """The scene with object `k` of another in it; None where it does not fit.

    It fits where the sensors are the same, nothing stands in the same direction, and nothing measured is in
    front of it.  What was measured behind it is left out, as it is hidden.
    """
    one = donor.boxes.chosen(np.array([k]))
    if one.ignore[0] or one.occlusion[0] > 1 or not _alike(scene.samples, donor.samples):
        return None
    clouds = [n for n, s in scene.samples.items() if not kind_of(s.kind).has_picture]
    pictures = [n for n in scene.samples if n not in clouds]
    sees = [scene.samples[n] for n in pictures]
    if not clouds or any(kind_of(s.kind).distances or s.camera is None for s in sees):
        return None
    for name in (*clouds, *pictures):  # directions from where each sensor sits
        if _hidden(
            _directions(scene.boxes, scene.samples[name]), _directions(one, scene.samples[name])
        ):
            return None
    found = dict(scene.samples)
    for name in clouds:
        made = _points(found[name], donor.samples[name], one)
        if made is None:
            return None
        found[name] = made
    for name in pictures:
        made = _picture(found[name], donor.samples[name], one)
        if made is None:
            return None
        found[name] = made
    return Scene(found, _joined(scene.boxes, one))


def _alike(samples: Mapping[str, Sample], others: Mapping[str, Sample]) -> bool:
    """Whether two frames come from the same sensors, which sit where they sat."""
    if set(samples) != set(others):
        return False
    for name, sample in samples.items():
        a, b = sample.pose, others[name].pose
        same = a is not None and b is not None and np.allclose(a.matrix, b.matrix, atol=_SAME_M)
        pictures = kind_of(sample.kind).has_picture
        if not same or (pictures and sample.camera != others[name].camera):
            return False
        if pictures and sample.data.shape != others[name].data.shape:
            return False
    return True


def _directions(boxes: TruthBoxes3d, sample: Sample) -> tuple[NDArray[np.float64], ...]:
    """(N,) the middle direction about z in which a sensor sees boxes, and half of their width, in radians."""
    assert sample.pose is not None
    corners = corners_of(boxes.center, boxes.size, boxes.yaw)[..., :2] - sample.pose.translation[:2]
    middle = boxes.center[:, :2] - sample.pose.translation[:2]
    ahead = np.arctan2(middle[:, 1], middle[:, 0])
    angle = np.arctan2(corners[..., 1], corners[..., 0]) - ahead[:, None]
    off = np.abs(wrapped(angle))
    return ahead, off.max(axis=1, initial=0.0)


def _hidden(others: tuple[NDArray[np.float64], ...], one: tuple[NDArray[np.float64], ...]) -> bool:
    """Whether any of the others lies in the direction of one, seen from above."""
    apart = np.abs(wrapped(others[0] - one[0]))
    return bool((apart < others[1] + one[1] + _APART_RAD).any())


def _points(sample: Sample, donor: Sample, one: TruthBoxes3d) -> Sample | None:
    """A cloud with the points of an object instead of those behind it; None where it does not fit."""
    assert sample.pose is not None
    box = (one.center, one.size, one.yaw)
    base = sample.pose.apply(sample.data[:, :3].astype(np.float64))
    theirs = sample.pose.apply(donor.data[:, :3].astype(np.float64))
    taken = inside(theirs, *box, margin=_MARGIN_M)[0] & (
        theirs[:, 2] > one.center[0, 2] - one.size[0, 2] / 2
    )
    if taken.sum() < LEAST_POINTS or sample.data.shape[1] != donor.data.shape[1]:
        return None
    (ahead,), (wide,) = _directions(one, sample)
    away = base - sample.pose.translation
    flat = np.hypot(away[:, 0], away[:, 1])
    off = np.abs(wrapped(np.arctan2(away[:, 1], away[:, 0]) - ahead))
    own = theirs[taken] - sample.pose.translation
    rise = own[:, 2] / np.hypot(own[:, 0], own[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = away[:, 2] / flat
        across = (off < wide) & (slope >= rise.min()) & (slope <= rise.max())
    near = np.hypot(own[:, 0], own[:, 1]).min()
    before = across & (flat < near - _LOW_M)
    if (
        before.sum() > _BEFORE_POINTS
        or inside(base, *box)[0][base[:, 2] > _LOW_M].sum() > _BEFORE_POINTS
    ):
        return None
    kept = ~(across & (flat >= near - _LOW_M)) & ~inside(base, *box)[0]
    data = np.concatenate([sample.data[kept], donor.data[taken].astype(sample.data.dtype)])
    times = None
    if sample.times is not None and donor.times is not None:
        times = np.concatenate([sample.times[kept], donor.times[taken]])
    return replace(sample, data=data, times=times)


def _picture(sample: Sample, donor: Sample, one: TruthBoxes3d) -> Sample | None:
    """A picture with the piece of another in which an object lies; None where it is partly beside that."""
    assert sample.pose is not None and sample.camera is not None
    corners = sample.pose.inverse().apply(corners_of(one.center, one.size, one.yaw)[0])
    if (corners[:, 2] < _BEFORE_M).all():
        return sample
    u, v, seen = sample.camera.project_columns(*corners.T)
    if not seen.all():
        return None
    height, width = sample.data.shape[:2]
    left, right = np.clip([np.floor(u.min()), np.ceil(u.max()) + 1], 0, width).astype(int)
    top, bottom = np.clip([np.floor(v.min()), np.ceil(v.max()) + 1], 0, height).astype(int)
    data = sample.data.copy()
    data[top:bottom, left:right] = donor.data[top:bottom, left:right]
    return replace(sample, data=data)


def _joined(boxes: TruthBoxes3d, one: TruthBoxes3d) -> TruthBoxes3d:
    own = {f.name: getattr(boxes, f.name) for f in fields(boxes) if f.name != "frame"}
    both: dict[str, Any] = {n: np.concatenate([v, getattr(one, n)]) for n, v in own.items()}
    return replace(boxes, **both)

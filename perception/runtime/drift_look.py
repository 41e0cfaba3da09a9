"""One look at whether a sensor that measures distances fits a camera: edges of both, at some small rotations.

The cheap version of `anysense calibrate check`: a smaller picture, pixels that move linearly with rotations,
pitch and yaw only.  The arithmetic of edges is that of `perception.geometry.edges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.edges import (
    BIAS_DEG,
    Edges,
    edge_strengths,
    edges_of_cloud,
    edges_of_depth,
    spread_edges,
)
from perception.geometry.flow import small_gray, turn_between
from perception.geometry.transforms import Float64, RigidTransform
from perception.sensors.registry import kind_of

REACH_DEG, STEP_DEG = 4.0, 0.5
ANGLES = np.arange(-REACH_DEG, REACH_DEG + STEP_DEG / 2, STEP_DEG)
REACH_MS = 150.0
SKEWS_MS = np.arange(-REACH_MS, REACH_MS + 5, 10.0)

FEWEST_EDGES = 300
LEAST_CONTRAST = 0.25
LEAST_TURN = 4.0
"""Degrees per second by which rates of turning must differ for a skew of time to be told."""

_WIDTH, _WIDE_DEG = 640, 0.4
_BANDS, _MOST_EDGES, _NEAREST_M = 8, 1500, 1.0
_MARGIN = 0.15
_DEPTH_COLUMNS = 320
_SMALL = 1e-3
_LONGEST_S = 0.25
_SYSTEMATIC_MS = 5.0


@dataclass(frozen=True)
class Look:
    """What one pair of samples says.

    Attributes:
        sums: (P, Y, bands, 2) in upright bands of the picture, for each pitch and yaw of `ANGLES` that the
            points are turned by: sums of edge strengths where they fall, and of their weights.
        edges: that were used.
        rate: degrees per second by which the view turns about the camera's y axis; NaN where unknown.
        later_s: by how much later than the picture the points are stamped.
    """

    sums: NDArray[np.float32]
    edges: int
    rate: float
    later_s: float


def pair_of(points: Sample, pictures: Sequence[Sample]) -> tuple[Sample, CameraModel] | None:
    """The picture that a sensor's extrinsics lead into, and its intrinsics; None where there is none.

    Args:
        points: of a sensor that measures distances.
        pictures: of cameras.
    """
    own = kind_of(points.kind)
    if points.camera is None or (points.extrinsics is None and not own.has_picture):
        return None
    found = list[tuple[Sample, CameraModel]]()
    for picture in pictures:
        camera = picture.camera or (None if own.has_picture else points.camera)
        if camera is None or (camera.height, camera.width) != picture.data.shape[:2]:
            continue
        # Depth leads to the reference camera, a cloud to the one whose intrinsics it has been given.
        if picture.extrinsics is None if own.has_picture else camera == points.camera:
            found.append((picture, camera))
    if len(found) > 1 and any(picture.extrinsics is not None for picture, _ in found):
        return None  # cameras alike in several places: nobody knows which one is meant
    return max(found, key=lambda one: kind_of(one[0].kind).colors, default=None)


def look(
    points: Sample, picture: Sample, camera: CameraModel, before: Sample | None = None
) -> Look | None:
    """Compare the edges of two samples.

    Args:
        points: of a sensor that measures distances, with its extrinsics.
        picture: of the camera.
        camera: its intrinsics.
        before: the camera's picture before, from which is told how it turns.

    Returns:
        None where nothing of the points falls into the picture.
    """
    gray = small_gray(picture.data, min(_WIDTH, camera.width))
    small = camera.scaled(gray.shape[1] / camera.width, gray.shape[0] / camera.height)
    place = points.extrinsics or RigidTransform.identity()
    edges = _edges(points, place, camera)
    optical = place.apply(edges.points)
    pixels, seen = small.project(optical)
    margin = _MARGIN * small.width
    low, high = -margin, np.array([small.width, small.height]) + margin
    with np.errstate(invalid="ignore"):
        seen &= ((pixels > low) & (pixels < high)).all(axis=1) & (optical[:, 2] > _NEAREST_M)
    kept = np.flatnonzero(seen)
    if not len(kept):
        return None
    kept = kept[:: -(-len(kept) // _MOST_EDGES)]
    optical, weights, tops = optical[kept], edges.weights[kept], edges.tops[kept]
    wide = _WIDE_DEG * small.fx * np.pi / 180
    maps = spread_edges(edge_strengths(gray), wide)
    sums = _sums(maps, small, optical, weights, tops)
    later = (points.time_ns - picture.time_ns) / 1e9
    return Look(sums, len(kept), _rate(picture, before, camera), later)


def _edges(points: Sample, place: RigidTransform, camera: CameraModel) -> Edges:
    """Of a depth map, or of that part of a cloud that the camera may see."""
    if kind_of(points.kind).has_picture:
        assert points.camera is not None
        stride = max(1, points.camera.width // _DEPTH_COLUMNS)
        return edges_of_depth(points.data, points.camera, stride)
    turn, move = place.rotation.astype(np.float32), place.translation.astype(np.float32)
    xyz = np.ascontiguousarray(points.data[:, :3], np.float32)
    across, ahead = xyz @ turn[0] + move[0], xyz @ turn[2] + move[2]
    widest = (max(camera.cx, camera.width - camera.cx) / camera.fx) * 1.3 + 0.1
    if camera.distortion_model == "none":
        with np.errstate(invalid="ignore"):
            xyz = xyz[(ahead > 0) & (np.abs(across) < widest * ahead)]
    return edges_of_cloud(xyz)


def _sums(
    maps: NDArray[np.float32],
    camera: CameraModel,
    optical: Float64,
    weights: Float64,
    tops: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """`Look.sums`: pixels move linearly with a rotation this small."""
    _, height, width = maps.shape
    x, y, z = optical.T
    pixels, _ = camera.project(optical)
    pitched, _ = camera.project(np.column_stack([x, y - _SMALL * z, z + _SMALL * y]))
    yawed, _ = camera.project(np.column_stack([x + _SMALL * z, y, z - _SMALL * x]))
    by_pitch, by_yaw = (pitched - pixels) / _SMALL, (yawed - pixels) / _SMALL
    angles = np.radians(ANGLES).astype(np.float32)
    moved = [
        pixels[:, i].astype(np.float32)
        + angles[:, None, None] * by_pitch[:, i].astype(np.float32)
        + angles[None, :, None] * by_yaw[:, i].astype(np.float32)
        for i in (0, 1)
    ]
    u, v = (
        np.nan_to_num(np.rint(one), nan=-1, posinf=-1, neginf=-1).astype(np.int32) for one in moved
    )
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    flat = (tops.astype(np.int32) * height + v.clip(0, height - 1)) * width + u.clip(0, width - 1)
    weight = np.where(inside, weights.astype(np.float32), np.float32(0))
    strength = maps.reshape(-1)[flat] * weight
    band = np.clip(np.nan_to_num(pixels[:, 0]) / width, 0, 1 - 1e-6) * _BANDS
    masks = (band.astype(np.int64)[:, None] == np.arange(_BANDS)).astype(np.float32)
    return np.stack([strength @ masks, weight @ masks], axis=-1)


def _rate(picture: Sample, before: Sample | None, camera: CameraModel) -> float:
    if before is None or before.data.shape != picture.data.shape:
        return np.nan
    passed = (picture.time_ns - before.time_ns) / 1e9
    if not 0 < passed < _LONGEST_S:
        return np.nan
    turn = turn_between(small_gray(before.data), small_gray(picture.data))
    if turn is None:
        return np.nan
    return float(np.degrees(turn[0] * camera.width / camera.fx) / passed)


@dataclass(frozen=True)
class Estimate:
    """By how much something is off: in degrees, or milliseconds; sigma is inf where it cannot be told."""

    value: float
    sigma: float


UNKNOWN = Estimate(0.0, np.inf)


def turned(looks: Sequence[Look]) -> tuple[Estimate, Estimate]:
    """Pitch and yaw by which the rig's pose is turned from the one that fits best, degrees.

    Sigma is by the jackknife over looks and over bands of the picture, the method's own bias included.
    """
    if not looks or sum(one.edges for one in looks) < FEWEST_EDGES:
        return UNKNOWN, UNKNOWN
    sums = np.array([one.sums for one in looks], np.float64)
    whole = sums.sum(axis=(0, 3))
    scores = _scores(whole)
    best = _peak(scores)
    if best is None or scores.max() - np.median(scores) < LEAST_CONTRAST:
        return UNKNOWN, UNKNOWN
    parts = [
        [whole - one for one in sums.sum(axis=3)] if len(looks) > 1 else [],
        [whole - one for one in np.moveaxis(sums.sum(axis=0), 2, 0)],
    ]
    variance = np.zeros(2)
    for left in parts:
        peaks = [_peak(_scores(one)) for one in left]
        if any(one is None for one in peaks):
            return UNKNOWN, UNKNOWN
        if peaks:
            variance = np.maximum(variance, (len(peaks) - 1) * np.var(np.array(peaks), axis=0))
    sigma = np.sqrt(variance + np.square(BIAS_DEG[:2]))
    # The points' turn that fits undoes what the rig is off by.
    return Estimate(-float(best[0]), float(sigma[0])), Estimate(-float(best[1]), float(sigma[1]))


def skew(looks: Sequence[Look]) -> Estimate:
    """What is to be added to the points' stamps, milliseconds: in turns they lie beside the picture.

    A view that turns about the camera's y axis at some rate shows things that much further after some time,
    so that the yaw that fits grows with the rate.
    """
    looks = [one for one in looks if np.isfinite(one.rate)]
    rates = np.array([one.rate for one in looks])
    if len(looks) < 4 or np.std(rates) < LEAST_TURN:
        return UNKNOWN
    whole = np.array([one.sums for one in looks], np.float64).sum(axis=(0, 3))
    pitch = int(_scores(whole).max(axis=1).argmax())
    rows = np.array([one.sums[pitch].sum(axis=1) for one in looks], np.float64)  # (looks, Y, 2)
    later = np.array([one.later_s for one in looks])
    # (looks, yaw, skew): the yaw of the points' turn for a yaw of the rig and a skew of its stamps.
    at = -(
        ANGLES[None, :, None]
        + rates[:, None, None] * (SKEWS_MS[None, None] / 1e3 + later[:, None, None])
    )
    place = (at + REACH_DEG) / STEP_DEG
    inside = (place >= 0) & (place <= len(ANGLES) - 1)
    lower = np.clip(np.floor(place).astype(np.int64), 0, len(ANGLES) - 2)
    share = np.clip(place - lower, 0, 1)[..., None]
    index = np.arange(len(looks))[:, None, None]
    found = rows[index, lower] * (1 - share) + rows[index, lower + 1] * share
    found = np.where(inside[..., None], found, 0.0)
    whole = found.sum(axis=0)
    best = _skew_peak(whole)
    left = [_skew_peak(whole - one) for one in found]
    if best is None or any(one is None for one in left):
        return UNKNOWN
    spread = np.sqrt((len(left) - 1) * np.var(np.array(left, np.float64)))
    return Estimate(best, float(np.hypot(spread, _SYSTEMATIC_MS)))


def _scores(sums: Float64) -> Float64:
    weights = sums[..., 1]
    scores = np.where(
        weights > 0.3 * weights.max(), sums[..., 0] / np.maximum(weights, 1e-9), -np.inf
    )
    return np.asarray(
        np.where(np.isfinite(scores), scores, scores[np.isfinite(scores)].min()), np.float64
    )


def _peak(scores: Float64) -> tuple[float, float] | None:
    """Where a quadratic about the highest score is highest, degrees; None at the end of the grid."""
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    last = len(ANGLES) - 1
    if row in (0, last) or column in (0, last):
        return None
    moves = [
        _vertex(scores[row - 1 : row + 2, column]),
        _vertex(scores[row, column - 1 : column + 2]),
    ]
    return float(ANGLES[row] + moves[0] * STEP_DEG), float(ANGLES[column] + moves[1] * STEP_DEG)


def _skew_peak(sums: Float64) -> float | None:
    scores = _scores(sums).max(axis=0)
    top = int(scores.argmax())
    if top in (0, len(SKEWS_MS) - 1):
        return None
    return float(SKEWS_MS[top] + _vertex(scores[top - 1 : top + 2]) * (SKEWS_MS[1] - SKEWS_MS[0]))


def _vertex(three: Float64) -> float:
    """Where a parabola through three values is highest, in steps from the middle one."""
    bend = three[0] - 2 * three[1] + three[2]
    return float(np.clip((three[0] - three[2]) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0

"""How a LiDAR turned between clouds: each is laid on the one before, points on planes.

Chen and Medioni, "Object modelling by registration of multiple range images", 1992; with a robust loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.timing.motion import Motion, motion_of
from perception.frame import is_return
from perception.geometry.transforms import Float64

_NEAREST_M, _FARTHEST_M = 1.5, 60.0
_TARGET, _SOURCE, _FEWEST = 6000, 1500, 150
_NEIGHBOURS, _FLAT = 8, 0.15
_ROUNDS, _REACH_M, _SCALE_M = 12, 1.5, 0.1
_RESTING = 1e-4


class CloudMotion:
    """Takes a sensor's clouds one after the other; `motion` is what came of them."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._turns: list[Float64 | None] = []
        self._last: Float64 | None = None
        self._step = np.eye(4)
        self._dropped = 0

    def push(self, stamp_ns: int, points: NDArray[Any]) -> None:
        """The next cloud: (N, C >= 3) x, y, z in metres."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            self._dropped += 1
            return
        cloud = _usable(points)
        if self._last is not None:
            found = _laid_on(self._last, cloud, self._step)
            self._step = np.eye(4) if found is None else found
            self._turns.append(None if found is None else _axis_angle(found[:3, :3]))
        self._stamps.append(stamp_ns)
        self._last = cloud

    def motion(self) -> Motion:
        """Turns about the sensor's x, y and z axes, radians.

        Raises:
            DataError: fewer than three clouds.
        """
        return motion_of(self._stamps, self._turns, self._dropped)


def _usable(points: NDArray[Any]) -> Float64:
    xyz = np.asarray(points[:, :3], np.float64)[is_return(points, _NEAREST_M)]
    return xyz[(xyz**2).sum(axis=1) < _FARTHEST_M**2]


def _thinned(points: Float64, most: int) -> Float64:
    return points[:: max(1, -(-len(points) // most))]


def _laid_on(before: Float64, after: Float64, guess: Float64) -> Float64 | None:
    """(4, 4) from the later cloud's frame to that of the one before; None where they do not fit."""
    from scipy.spatial import cKDTree

    target, source = _thinned(before, _TARGET), _thinned(after, _SOURCE)
    if min(len(target), len(source)) < _FEWEST:
        return None
    tree = cKDTree(target)
    normals, flat = _normals(target, tree)
    pose = guess.copy()
    for number in range(_ROUNDS):
        moved = source @ pose[:3, :3].T + pose[:3, 3]
        away, nearest = tree.query(moved, distance_upper_bound=max(0.4, _REACH_M / (1 + number)))
        kept = np.isfinite(away)
        kept[kept] &= flat[nearest[kept]]
        if kept.sum() < _FEWEST:
            return None
        at, normal = moved[kept], normals[nearest[kept]]
        off = ((target[nearest[kept]] - at) * normal).sum(axis=1)
        weight = 1 / (1 + (off / _SCALE_M) ** 2)
        rows = np.hstack([np.cross(at, normal), normal])
        left = rows.T @ (rows * weight[:, None]) + 1e-6 * np.eye(6)
        step = np.linalg.solve(left, rows.T @ (weight * off))
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = _rotation(step[:3]), step[3:]
        pose = move @ pose
        if np.abs(step).max() < _RESTING:
            break
    return pose


def _normals(points: Float64, tree: Any) -> tuple[Float64, NDArray[np.bool_]]:
    """(N, 3) directions across the surface at each point, and whether it is flat there."""
    _, near = tree.query(points, _NEIGHBOURS)
    around = points[near] - points[near].mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    # Neighbours of one scan line lie on a line, and any direction across it would do.
    plane = (values[:, 0] < _FLAT * values[:, 1]) & (values[:, 1] > 1e-3 * values[:, 2])
    return vectors[:, :, 0], plane


def _rotation(vector: Float64) -> Float64:
    import cv2

    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)


def _axis_angle(rotation: Float64) -> Float64:
    import cv2

    return np.asarray(cv2.Rodrigues(rotation)[0], np.float64).ravel()

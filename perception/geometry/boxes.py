"""Boxes in space that stand upright: their corners, what lies in them, and how they move between frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry.transforms import RigidTransform

Float64 = NDArray[np.float64]

_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def wrapped(angle: Any) -> Any:
    """Angles in radians, brought to [-pi, pi)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def corners_of(
    center: NDArray[Any],
    size: NDArray[Any],
    yaw: NDArray[Any],
    transform: RigidTransform | None = None,
) -> Float64:
    """The corners of boxes.

    Args:
        center: (N, 3) metres, the middle of each.
        size: (N, 3) length, width, height in metres: along its own x, y and z.
        yaw: (N,) radians about z, from the frame's x to the box's.
        transform: to the frame that they are wanted in; None for the boxes' own.

    Returns:
        (N, 8, 3): by x, then y, then z of the box, the lower end first.
    """
    own = _CORNERS * np.asarray(size, np.float64)[:, None]
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = c * own[..., 0] - s * own[..., 1], s * own[..., 0] + c * own[..., 1]
    found = np.stack([x, y, own[..., 2]], axis=-1) + np.asarray(center, np.float64)[:, None]
    if transform is None:
        return found
    return np.asarray(transform.apply(found.reshape(-1, 3))).reshape(-1, 8, 3)


def inside(
    points: NDArray[Any],
    center: NDArray[Any],
    size: NDArray[Any],
    yaw: NDArray[Any],
    margin: float = 0.0,
) -> NDArray[np.bool_]:
    """Which points (P, 3) lie in which boxes, (N, P) bool; `margin` metres are added on every side."""
    offset = np.asarray(points, np.float64)[None, :, :3] - np.asarray(center, np.float64)[:, None]
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    along = c * offset[..., 0] + s * offset[..., 1]
    across = c * offset[..., 1] - s * offset[..., 0]
    half = np.asarray(size, np.float64) / 2 + margin
    within = (np.abs(along) <= half[:, :1]) & (np.abs(across) <= half[:, 1:2])
    return within & (np.abs(offset[..., 2]) <= half[:, 2:])


def turned(transform: RigidTransform, yaw: NDArray[Any]) -> Float64:
    """Yaws (N,) in the frame that a transform leads to.

    It is taken to keep z upright, as between frames of one vehicle: of a tilt only what it does to the
    direction seen from above is kept.
    """
    ahead = np.column_stack([np.cos(yaw), np.sin(yaw), np.zeros(len(yaw))])
    found = ahead @ transform.rotation.T
    return np.arctan2(found[:, 1], found[:, 0])

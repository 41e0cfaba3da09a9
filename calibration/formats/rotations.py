"""Roll, pitch and yaw as URDF, static_transform_publisher and Autoware have them, and optical frames."""

from __future__ import annotations

import math

import numpy as np

from perception.geometry.transforms import Float64, RigidTransform

OPTICAL = RigidTransform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))
"""From an optical frame (z forward, x right) to the body frame (x forward, y left) at its place, REP 103."""


def rotation_of(roll: float, pitch: float, yaw: float) -> Float64:
    """The (3, 3) rotation by roll, pitch and yaw in radians about the fixed x, then y, then z axis."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a), math.sin(a)) for a in (roll, pitch, yaw))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, np.float64)


def angles_of(rotation: Float64) -> tuple[float, float, float]:
    """Roll, pitch and yaw of a (3, 3) rotation; see `rotation_of`."""
    r = rotation
    yaw = math.atan2(r[1, 0], r[0, 0])
    pitch = math.atan2(-r[2, 0], math.hypot(r[0, 0], r[1, 0]))
    s, c = math.sin(yaw), math.cos(yaw)
    # With yaw undone: also where pitch is 90 degrees, and yaw and roll turn about one axis.
    roll = math.atan2(s * r[0, 2] - c * r[1, 2], c * r[1, 1] - s * r[0, 1])
    return roll, pitch, yaw

"""Where rays enter primitives, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.sim.scene import Shape

Float64 = NDArray[np.float64]
Entry = tuple[Float64, Float64]
"""Distance (N,), NaN where there is none, and outward normal (N, 3)."""


def enter(shape: Shape, size: Float64, origin: Float64, direction: Float64) -> Entry:
    """Where rays first meet a primitive from outside.

    All arguments are in the primitive's own frame, its long side along z.

    Args:
        shape: which primitive.
        size: (N, 3) half sizes as `Geom.size`, filled up to three.
        origin: (N, 3) metres.
        direction: (N, 3) unit vectors.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return _ENTER[shape](size, origin, direction)


def _plane(size: Float64, origin: Float64, direction: Float64) -> Entry:
    normal = np.zeros_like(origin)
    normal[:, 2] = np.sign(origin[:, 2])
    return -origin[:, 2] / direction[:, 2], normal


def _box(size: Float64, origin: Float64, direction: Float64) -> Entry:
    near = (-np.sign(direction) * size - origin) / direction
    near = np.where(direction == 0, -np.inf, near)
    axis = near.argmax(axis=1)
    rows = np.arange(len(axis))
    normal = np.zeros_like(origin)
    normal[rows, axis] = -np.sign(direction[rows, axis])
    return near[rows, axis], normal


def _ellipsoid(size: Float64, origin: Float64, direction: Float64) -> Entry:
    distance = _first_root(origin / size, direction / size, 3)
    point = origin + distance[:, None] * direction
    return distance, _unit(point / size**2)


def _sphere(size: Float64, origin: Float64, direction: Float64) -> Entry:
    return _ellipsoid(np.repeat(size[:, :1], 3, axis=1), origin, direction)


def _cylinder(size: Float64, origin: Float64, direction: Float64) -> Entry:
    radius, half = size[:, 0], size[:, 1]
    side = _first_root(origin / radius[:, None], direction / radius[:, None], 2)
    side = np.where(np.isnan(side), -np.inf, side)  # parallel to the axis
    cap = (-np.sign(direction[:, 2]) * half - origin[:, 2]) / direction[:, 2]
    cap = np.where(direction[:, 2] == 0, -np.inf, cap)
    distance = np.maximum(side, cap)
    normal = origin + distance[:, None] * direction
    normal[:, 2] = 0
    on_cap = cap > side
    normal[on_cap] = 0
    normal[on_cap, 2] = -np.sign(direction[on_cap, 2])
    return distance, _unit(normal)


def _capsule(size: Float64, origin: Float64, direction: Float64) -> Entry:
    radius, half = size[:, :1], size[:, 1]
    distance = _first_root(origin / radius, direction / radius, 2)
    z = origin[:, 2] + distance * direction[:, 2]
    # A ray parallel to the axis meets the end that faces it.
    z = np.where(np.isnan(distance), -np.sign(direction[:, 2]) * np.inf, z)
    core = np.zeros_like(origin)
    core[:, 2] = z.clip(-half, half)
    at_end = np.abs(z) > half
    ball = _first_root((origin - core) / radius, direction / radius, 3)
    distance = np.where(at_end, ball, distance)
    return distance, _unit(origin + distance[:, None] * direction - core)


def _first_root(origin: Float64, direction: Float64, axes: int) -> Float64:
    """Smaller t with |o + t d| = 1 over the first `axes` coordinates; NaN where none."""
    o, d = origin[:, :axes], direction[:, :axes]
    a, b = (d * d).sum(axis=1), (o * d).sum(axis=1)
    return (-b - np.sqrt(b * b - a * ((o * o).sum(axis=1) - 1))) / a


def _unit(vectors: Float64) -> Float64:
    return vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))


_ENTER = {
    "plane": _plane,
    "box": _box,
    "sphere": _sphere,
    "ellipsoid": _ellipsoid,
    "cylinder": _cylinder,
    "capsule": _capsule,
}

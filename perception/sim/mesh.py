"""Scenes as triangles, for ray casters that know nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perception.sim.scene import Scene, Shape

Float64 = NDArray[np.float64]

PLANE_HALF_SIZE_M = 1000.0
SECTORS, STACKS = 20, 10

AXIS_ROTATIONS: dict[str, Float64] = {
    "x": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "z": np.eye(3),
}
"""Rotations that take z to the long side of a geom."""


@dataclass(frozen=True)
class Placement:
    """Where the geoms of a scene are, in the order of `Scene.geoms`.

    Attributes:
        shapes: (G,) names of primitives.
        sizes: (G, 3) half sizes as `Geom.size`, filled up with ones.
        rotations: (G, 3, 3) from the geom's frame, long side along z, to the world.
        positions: (G, 3) metres in the world.
    """

    shapes: NDArray[np.str_]
    sizes: Float64
    rotations: Float64
    positions: Float64

    @staticmethod
    def of(scene: Scene) -> Placement:
        """Look up all geoms."""
        geoms = scene.geoms
        bodies = [scene.bodies[i] for i, _ in geoms]
        yaw = np.array([b.yaw for b in bodies])
        turns = np.zeros((len(geoms), 3, 3))
        turns[:, 0, 0] = turns[:, 1, 1] = np.cos(yaw)
        turns[:, 1, 0], turns[:, 0, 1] = np.sin(yaw), -np.sin(yaw)
        turns[:, 2, 2] = 1
        local = np.array([g.position for _, g in geoms], np.float64)
        places = np.array([b.position for b in bodies], np.float64)
        return Placement(
            np.array([g.shape for _, g in geoms]),
            np.array([(*g.size, 1.0, 1.0)[:3] for _, g in geoms], np.float64),
            turns @ np.array([AXIS_ROTATIONS[g.axis] for _, g in geoms]),
            places + np.einsum("gij,gj->gi", turns, local),
        )


def triangles(placement: Placement) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Triangles (T, 3, 3) in the world and the geom (T,) of each.

    Round shapes are inscribed: a ray that meets the triangles meets the shape, too.
    """
    corners, owners = [], []
    for shape in np.unique(placement.shapes):
        which = np.flatnonzero(placement.shapes == shape)
        scale, lift = _stretch(str(shape), placement.sizes[which])
        template, end = _template(str(shape))
        local = template * scale[:, None, None, :]
        local[..., 2] += end * lift[:, None, None]
        world = np.einsum("gij,gtkj->gtki", placement.rotations[which], local)
        world += placement.positions[which, None, None, :]
        corners.append(world.reshape(-1, 3, 3))
        owners.append(np.repeat(which, len(template)))
    return np.concatenate(corners).astype(np.float32), np.concatenate(owners)


def _stretch(shape: str, sizes: Float64) -> tuple[Float64, Float64]:
    """Scale (G, 3) of the unit template, and how far its ends move apart (G,)."""
    radius, half, none = sizes[:, 0], sizes[:, 1], np.zeros(len(sizes))
    if shape == "plane":
        return np.full_like(sizes, PLANE_HALF_SIZE_M), none
    if shape == "sphere":
        return np.column_stack([radius] * 3), none
    if shape == "cylinder":
        return np.column_stack([radius, radius, half]), none
    if shape == "capsule":
        return np.column_stack([radius] * 3), half
    return sizes, none


@lru_cache
def _template(shape: Shape) -> tuple[Float64, Float64]:
    """Triangles (T, 3, 3) of the unit shape, and which end (T, 3) each corner belongs to."""
    if shape == "plane":
        quad = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
        found = quad[[[0, 1, 2], [0, 2, 3]]]
        return found, np.zeros((2, 3))
    if shape == "box":
        turned = np.pi / 4 + np.arange(4) * np.pi / 2
        return _revolve([(0, -1, 0), (2**0.5, -1, 0), (2**0.5, 1, 0), (0, 1, 0)], turned)
    around = np.arange(SECTORS) * 2 * np.pi / SECTORS
    if shape == "cylinder":
        return _revolve([(0, -1, 0), (1, -1, 0), (1, 1, 0), (0, 1, 0)], around)
    polar = np.linspace(-np.pi / 2, np.pi / 2, STACKS + 1)
    profile = [(np.cos(p), np.sin(p), np.sign(round(np.sin(p), 6))) for p in polar]
    middle = STACKS // 2
    if shape == "capsule":  # the equator twice, once for each end
        profile[middle : middle + 1] = [(1.0, 0.0, -1.0), (1.0, 0.0, 1.0)]
    return _revolve(profile, around)


def _revolve(
    profile: list[tuple[float, float, float]], azimuths: Float64
) -> tuple[Float64, Float64]:
    """The surface that a profile (radius, z, end) sweeps around z, as triangles and ends."""
    radius, z, end = np.array(profile, np.float64).T
    ring = np.stack([np.cos(azimuths), np.sin(azimuths)], axis=1)
    count = len(azimuths)
    points = np.concatenate(
        [
            radius[:, None, None] * ring,
            np.broadcast_to(z[:, None, None], (len(z), count, 1)),
        ],
        axis=2,
    ).reshape(-1, 3)
    row, column = np.meshgrid(np.arange(len(z) - 1), np.arange(count), indexing="ij")
    a, b = row * count + column, row * count + (column + 1) % count
    c, d = a + count, b + count
    faces = np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]).reshape(-1, 3)
    ends = np.repeat(end, count)[faces]
    corners = points[faces]
    pole = (np.ptp(corners.reshape(-1, 9).reshape(-1, 3, 3), axis=1) < 1e-9).all(axis=1)
    lifted = corners + np.stack([0 * ends, 0 * ends, ends], axis=-1)
    area = np.linalg.norm(
        np.cross(lifted[:, 1] - lifted[:, 0], lifted[:, 2] - lifted[:, 0]), axis=1
    )
    kept = (area > 1e-9) & ~pole
    return corners[kept], ends[kept]

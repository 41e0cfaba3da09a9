"""The truth about objects round a vehicle: boxes in space, who is hidden, how many points are on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.data.base import TruthBoxes3d
from perception.geometry.boxes import corners_of
from perception.geometry.transforms import RigidTransform
from perception.sim.raycast import RayCaster
from perception.sim.render import MIN_BOX_PIXELS
from perception.sim.scene import Body, Scene
from perception.sim.sensors import about_z

Float64 = NDArray[np.float64]

RANGE_M = 60.0
"""Objects whose middle is further from the vehicle's are not in the truth."""

VISIBLE = (0.8, 0.4, 0.05)
"""Occlusion is 0 of whom at least so much is to be seen, 1, 2, and 3 below the last."""

_STEPS = 16  # rays by row and column over the directions in which an object may be


@dataclass(frozen=True)
class Eye:
    """A sensor that looks: its origin in the world, and the cosine of half the cone that it sees round
    its axis, -1 for all directions."""

    origin: Float64
    axis: Float64
    least_cosine: float = -1.0

    def sees(self, point: Float64) -> bool:
        """Whether it looks that way."""
        away = point - self.origin
        return bool(away @ self.axis >= self.least_cosine * np.linalg.norm(away))


def base_in_world(scene: Scene) -> RigidTransform:
    """From the ego vehicle's frame, on the ground below its middle, to the world."""
    return RigidTransform(about_z(scene.ego_yaw), np.array(scene.ego_position))


def boxes_of(
    scene: Scene,
    first: int,
    caster: RayCaster,
    eyes: Sequence[Eye],
    points: Mapping[int, int],
    pixels: Mapping[int, int],
    track: int = 0,
) -> TruthBoxes3d:
    """The objects near the vehicle, in its frame; those that no sensor sees are to be ignored.

    Args:
        scene: at the moment of the frame, which `caster` holds.
        first: the place of the first object among the scene's bodies; all behind it are objects.
        caster: of the scene.
        eyes: the sensors; an object is as visible as to the one that sees most of it.
        points: LiDAR returns from each body, by its place.
        pixels: of cameras, that show each body.
        track: added to the objects' numbers.
    """
    to_base = base_in_world(scene).inverse()
    rows, velocities = [], []
    for place in range(first, len(scene.bodies)):
        body = scene.bodies[place]
        middle = np.array(body.position) + [0, 0, body.extent[2] / 2]
        center = to_base.apply(middle[None])[0]
        if np.hypot(*center[:2]) > RANGE_M:
            continue
        velocities.append((*body.velocity, 0.0))
        seen = max(_visible(body, place, middle, caster, eye) for eye in eyes)
        level = next((i for i, least in enumerate(VISIBLE) if seen >= least), len(VISIBLE))
        own = points.get(place, 0), pixels.get(place, 0)
        rows.append((*center, *body.extent, body.yaw - scene.ego_yaw, body.object_class))
        unseen = own[0] == 0 and own[1] < MIN_BOX_PIXELS
        rows[-1] += (own[0], unseen, level, track + place - first)
    table = np.array(rows, np.float64).reshape(-1, 12)
    flat = np.array(velocities).reshape(-1, 3) @ to_base.rotation.T
    return TruthBoxes3d.of(
        table[:, :3],
        table[:, 3:6],
        table[:, 6],
        table[:, 7],
        table[:, 9] > 0,
        flat[:, :2],
        table[:, 8],
        table[:, 10],
        table[:, 11],
    )


def _visible(body: Body, place: int, middle: Float64, caster: RayCaster, eye: Eye) -> float:
    """The share of the rays to an object that reach it past all others, 0 where the eye looks elsewhere."""
    if not eye.sees(middle):
        return 0.0
    size = np.array([body.extent])
    corners = corners_of(middle[None], size, np.array([body.yaw]))[0] - eye.origin
    ahead = (middle - eye.origin) / np.linalg.norm(middle - eye.origin)
    left = np.cross([0.0, 0.0, 1.0], ahead)
    left /= np.linalg.norm(left) + 1e-12
    axes = np.array([ahead, left, np.cross(ahead, left)])
    own = corners @ axes.T
    own = own[own[:, 0] > 0.1]
    if len(own) == 0:
        return 1.0  # it stands so close that it is all round the sensor
    slopes = own[:, 1:] / own[:, :1]
    steps = (np.arange(_STEPS) + 0.5) / _STEPS
    (y0, z0), (y1, z1) = slopes.min(axis=0), slopes.max(axis=0)
    y, z = (v.ravel() for v in np.meshgrid(y0 + steps * (y1 - y0), z0 + steps * (z1 - z0)))
    rays = np.column_stack([np.ones(len(y)), y, z]) @ axes
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    alone = caster.cast(eye.origin, rays, only=place).distance
    aimed = np.isfinite(alone)
    if not aimed.any():
        return 0.0
    found = caster.cast(eye.origin, rays[aimed]).distance
    return float((found > alone[aimed] - 1e-3).mean())

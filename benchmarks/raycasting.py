"""Prints how long MuJoCo and Embree take for the simulator's rays, as a ratio from one run.

    pip install trimesh embreex
    python benchmarks/raycasting.py [--streets 5] [--rounds 5]

Both cast the rays of a 240x320 camera and of a 64-beam LiDAR at the same streets; Embree gets the
primitives as triangles.  The share of rays on which the two agree within 5 cm is printed too.
Preparing a scene is timed apart from casting: each simulated frame needs a new one.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.sim.raycast import RayCaster
from perception.sim.scene import Geom, Scene
from perception.sim.sensors import (
    BEAM_PATTERNS,
    CAMERA_HEIGHT_M,
    LIDAR_POSITION_M,
    beam_rays,
    camera_model,
    pixel_rays,
)
from perception.sim.street import make_street, random_weather

REACH_M = 120.0
T = TypeVar("T")


def triangles(scene: Scene) -> Any:
    """The scene's primitives as one triangle mesh."""
    import trimesh

    parts = []
    for body in scene.bodies:
        turn = trimesh.transformations.rotation_matrix(body.yaw, (0, 0, 1))
        turn[:3, 3] = body.position
        for geom in body.geoms:
            part = _primitive(geom)
            if geom.axis != "z":
                axis = (0, 1, 0) if geom.axis == "x" else (1, 0, 0)
                part.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, axis))
            part.apply_translation(geom.position)
            parts.append(part.apply_transform(turn))
    return trimesh.util.concatenate(parts)


def _primitive(geom: Geom) -> Any:
    from trimesh import creation

    if geom.shape == "plane":
        return creation.box((2000, 2000, 0.02)).apply_translation((0, 0, -0.01))
    if geom.shape == "box":
        return creation.box(2 * np.array(geom.size))
    if geom.shape in ("sphere", "ellipsoid"):
        ball = creation.icosphere(3)
        scale = geom.size if geom.shape == "ellipsoid" else (geom.size[0],) * 3
        return ball.apply_scale(scale)
    if geom.shape == "cylinder":
        return creation.cylinder(geom.size[0], 2 * geom.size[1], sections=24)
    return creation.capsule(2 * geom.size[1], geom.size[0], count=(12, 12))


def embree(mesh: Any) -> Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]:
    """A function from origin and unit directions to distances."""
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    scene = RayMeshIntersector(mesh)

    def cast(origin: NDArray[Any], rays: NDArray[Any]) -> NDArray[np.float64]:
        face = scene.intersects_first(np.broadcast_to(origin, rays.shape), rays)
        hit = face >= 0
        corner, normal = mesh.triangles[face[hit], 0], mesh.face_normals[face[hit]]
        distance = np.full(len(rays), np.inf)
        slope = np.einsum("ij,ij->i", normal, rays[hit])
        distance[hit] = np.einsum("ij,ij->i", normal, corner - origin) / slope
        return distance

    return cast


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Its result and how many seconds it took."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main() -> int:
    """Time both on the same streets, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streets", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    try:
        import embreex  # noqa: F401
        import trimesh  # noqa: F401
    except ImportError:
        print("raycasting: error: needs trimesh and embreex: pip install trimesh embreex")
        return 2
    views = [
        (np.array([0.0, 0.0, CAMERA_HEIGHT_M]), pixel_rays(camera_model(240, 320))),
        (np.array(LIDAR_POSITION_M), beam_rays(BEAM_PATTERNS["os1-64"])[0]),
    ]
    count = sum(len(rays) for _, rays in views)
    prepare: list[tuple[float, float]] = []
    cast: list[tuple[float, float]] = []
    agreed = []
    for seed in range(args.streets):
        scene = make_street(seed, 60.0, random_weather(np.random.default_rng(seed), night=False))
        caster, a = timed(lambda scene=scene: RayCaster(scene))
        other, b = timed(lambda scene=scene: embree(triangles(scene)))
        prepare.append((a, b))
        for _ in range(args.rounds):
            for origin, rays in views:
                one, a = timed(lambda: caster.cast(origin, rays, REACH_M).distance)  # noqa: B023
                two, b = timed(lambda: other(origin, rays))  # noqa: B023
                cast.append((a, b))
        near = np.isfinite(one) & (one < REACH_M)
        agreed.append(np.mean(np.abs(one[near] - two[near]) < 0.05))
    for name, times in (("preparing a scene", prepare), ("casting", cast)):
        mujoco, rival = (1000 * float(np.median(t)) for t in zip(*times, strict=True))
        print(f"{name}: MuJoCo {mujoco:.1f} ms, Embree {rival:.1f} ms, ratio {rival / mujoco:.2f}")
    print(f"{count} rays a frame; agreement within 5 cm on {100 * np.mean(agreed):.1f} % of hits")
    return 0


if __name__ == "__main__":
    sys.exit(main())

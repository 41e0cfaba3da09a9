"""What the sensors see of a scene: RGB, depth, thermal, LiDAR, labels and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes
from perception.frame import in_order
from perception.sim.raycast import Hits, RayCaster
from perception.sim.scanning import returns
from perception.sim.scene import DETECTED, SKY, Scene
from perception.sim.sensors import (
    LIDAR_POSITION_M,
    BeamPattern,
    Mounted,
    about_z,
    beam_rays,
    pixel_rays,
)
from perception.sim.shading import Surface, shade

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

DEPTH_RANGE_M = (0.4, 40.0)
MIN_BOX_PIXELS = 14
SKY_TEMPERATURE_K = 245.0


@dataclass(frozen=True)
class RenderedFrame:
    """One simulated frame.

    Attributes:
        samples: by sensor: rgb (H, W, 3) uint8; depth (H, W) float32 metres, NaN = no return; thermal
            (H, W) float32 kelvin, apparent temperature; lidar (N, 5) float32 x, y, z in metres,
            intensity 0..1, ring.
        labels: (H, W) uint8, in the pixels of the labeled camera, like `boxes`.
        boxes: what is visible of persons and vehicles.
        boxes3d: class id, center x y z, length width height, yaw in the frame of the first LiDAR, or
            of the place where one would be.
    """

    samples: dict[str, NDArray[Any]]
    labels: NDArray[np.uint8]
    boxes: Boxes
    boxes3d: list[dict[str, Any]]


def pose_of(scene: Scene, own: Mounted) -> tuple[Float64, Float64]:
    """A sensor's position and the rotation from its body frame in the world."""
    ego = about_z(scene.ego_yaw)
    return ego @ np.array(own.position) + scene.ego_position, ego @ about_z(own.yaw)


class View:
    """What the rays of a camera's pixels meet.

    Attributes:
        size: height and width in pixels.
        hits, surface: of all rays, row by row.
        rays: (N, 3) in the ego frame, turned as the camera.
    """

    def __init__(self, scene: Scene, caster: RayCaster, own: Mounted) -> None:
        assert own.camera is not None
        eye, turn = pose_of(scene, own)
        rays = pixel_rays(own.camera) @ turn.T
        self.size = (own.camera.height, own.camera.width)
        self.hits = caster.cast(eye, rays)
        self.rays = rays @ turn
        self.surface = Surface.of(scene, self.hits, eye, rays)


def render(
    scene: Scene, sensors: Mapping[str, Mounted], pattern: BeamPattern, labels_of: str = "rgb"
) -> RenderedFrame:
    """Render all sensors at one moment.

    Args:
        scene: the scene with the ego vehicle's pose.
        sensors: by name.
        pattern: of the LiDARs.
        labels_of: the camera in whose pixels labels and boxes are.
    """
    rng = np.random.default_rng((scene.seed, 23))
    caster = RayCaster(scene)
    views: dict[Mounted, View] = {}
    samples: dict[str, NDArray[Any]] = {}
    for name in in_order(sensors):
        own = sensors[name]
        if own.kind == "lidar":
            samples[name] = _lidar(scene, caster, own, pattern, rng)
            continue
        place = replace(own, kind="rgb")
        if place not in views:
            views[place] = View(scene, caster, place)
        view = views[place]
        if own.kind == "rgb":
            samples[name] = shade(scene, caster, view.surface, view.size, rng)
        elif own.kind == "depth":
            samples[name] = _depth(view.hits, view.rays, view.size, rng)
        else:
            samples[name] = _thermal(scene, view.surface, view.size, rng)
    view = views[replace(sensors[labels_of], kind="rgb")]
    body_of_geom = np.array([i for i, _ in scene.geoms] + [-1])
    body = body_of_geom[view.hits.geom].reshape(view.size)
    label_of_body = np.array([b.label for b in scene.bodies] + [SKY], np.uint8)
    lidar = next((s for s in sensors.values() if s.kind == "lidar"), None)
    boxes3d = _boxes3d(scene, lidar or Mounted("lidar", None, LIDAR_POSITION_M, 0.0))
    class_of_body = np.array([DETECTED.get(b.label, -1) for b in scene.bodies] + [-1])
    return RenderedFrame(samples, label_of_body[body], boxes_2d(body, class_of_body), boxes3d)


def _depth(
    hits: Hits, rays_ego: Float64, size: tuple[int, int], rng: np.random.Generator
) -> Float32:
    z = (hits.distance * rays_ego[:, 0]).reshape(size)  # along the optical axis, REP 118
    depth = z.astype(np.float32)
    # Stereo noise grows with the square of the distance; edges and far surfaces drop out.
    with np.errstate(invalid="ignore"):
        depth += rng.standard_normal(size, np.float32) * np.float32(0.0015) * depth**2
        bad = ~((depth >= DEPTH_RANGE_M[0]) & (depth <= DEPTH_RANGE_M[1]))
        jump = cv2.morphologyEx(
            np.nan_to_num(depth, posinf=99), cv2.MORPH_GRADIENT, np.ones((3, 3))
        )
        bad |= (jump > 0.5 + 0.3 * depth) & (rng.random(size) < 0.5)
        away = np.nan_to_num(depth, posinf=40.0, neginf=0.0) / 40
        bad |= rng.random(size) < 0.002 + 0.1 * away**2
    depth[bad] = np.nan
    return depth


def _thermal(
    scene: Scene, surface: Surface, size: tuple[int, int], rng: np.random.Generator
) -> Float32:
    air = scene.weather.air_k
    sky = SKY_TEMPERATURE_K + 0.25 * (air - 273)
    apparent = surface.emissivity * surface.temperature_k + (1 - surface.emissivity) * sky
    apparent = apparent + 2.0 * (surface.noise - 0.5)
    up = surface.rays[:, 2].clip(0, 1)
    apparent = np.where(surface.hit, apparent, sky + 25 * (1 - up) ** 6)
    # Air between absorbs and glows at its own temperature.
    haze = 1 - np.exp(-np.where(surface.hit, surface.distance, 400.0) / 400.0)
    image = (apparent * (1 - haze) + air * haze).reshape(size).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 0.8)
    columns = rng.normal(0, 0.05, (1, size[1])).astype(np.float32)  # fixed-pattern noise
    return image + columns + rng.normal(0, 0.08, size).astype(np.float32)


def _lidar(
    scene: Scene,
    caster: RayCaster,
    own: Mounted,
    pattern: BeamPattern,
    rng: np.random.Generator,
) -> Float32:
    rays, rings = beam_rays(pattern, 90.0)
    origin, turn = pose_of(scene, own)
    world = rays @ turn.T
    hits = caster.cast(origin, world, pattern.reach_m)
    reflectivity = reflectivities(scene)[hits.geom]
    found = returns(world, hits, reflectivity, pattern.range_noise_m, scene.weather, rng)
    kept = found.kept
    points = rays[kept] * found.distance[kept, None]
    return np.column_stack([points, found.intensity[kept], rings[kept]]).astype(np.float32)


def reflectivities(scene: Scene) -> Float64:
    """Of all geoms at the LiDAR's wavelength, and 0 for what is none, (N + 1,)."""
    return np.array([g.material.reflectivity for _, g in scene.geoms] + [0.0])


def boxes_2d(body: NDArray[np.int64], class_of_body: NDArray[np.int64]) -> Boxes:
    """Boxes round the visible pixels of objects.

    Args:
        body: (H, W) the body that each pixel shows, -1 for sky.
        class_of_body: of all bodies, -1 of those that are no objects; the last is the sky's.
    """
    rows: list[tuple[float, ...]] = []
    kinds = []
    for index in np.unique(body):
        if index < 0 or class_of_body[index] < 0:
            continue
        y, x = np.nonzero(body == index)
        if len(x) >= MIN_BOX_PIXELS:
            rows.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
            kinds.append(int(class_of_body[index]))
    return Boxes.of(rows, kinds)


def _boxes3d(scene: Scene, own: Mounted) -> list[dict[str, Any]]:
    found = []
    origin, turn = pose_of(scene, own)
    for body in scene.bodies:
        if body.label not in DETECTED:
            continue
        length, width, height = body.extent
        center = (np.array(body.position) + np.array([0, 0, height / 2]) - origin) @ turn
        if 0 < center[0] < 60:
            found.append(
                {
                    "class": DETECTED[body.label],
                    "center": [round(float(v), 3) for v in center],
                    "size": [round(v, 3) for v in (length, width, height)],
                    "yaw": round(body.yaw - scene.ego_yaw - own.yaw, 4),
                }
            )
    return found

"""A vehicle that looks to all sides: its rig, and what its sensors see of a town in motion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Boxes, TruthBoxes3d
from perception.frame import Kind
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.sim.raycast import RayCaster
from perception.sim.render import View, boxes_2d, pose_of, reflectivities
from perception.sim.scanning import Pattern, firings, returns
from perception.sim.scene import SKY, Scene
from perception.sim.sensors import Mounted, camera_model
from perception.sim.shading import shade
from perception.sim.town import Town
from perception.sim.truth3d import Eye, base_in_world, boxes_of

Float64 = NDArray[np.float64]

BASE_FRAME = "base_link"
"""REP 105: on the ground below the middle of the vehicle, x forward, y left, z up."""

FIELD_OF_VIEW_DEG = 100.0
CAMERAS = {
    "cam_front": (0.6, 0.0, 1.5, 0.0),
    "cam_left": (0.2, 0.55, 1.5, 90.0),
    "cam_right": (0.2, -0.55, 1.5, -90.0),
    "cam_rear": (-1.2, 0.0, 1.5, 180.0),
}
"""Metres forward, left and up in the base frame, and yaw in degrees."""

LIDAR = "lidar"
LIDAR_AT_M = (0.0, 0.0, 1.9)
LABELS_OF = "cam_front"
SCANS = ("rolling", "compensated", "still")
"""`rolling`: points where the LiDAR saw them, each at its own time; `compensated`: brought to the LiDAR's
place at the scan's stamp, as drivers with odometry give them, so that what stands still is sharp; `still`:
all rays at once."""


def surround_sensors(size: tuple[int, int], yaw_deg: float = 0.0) -> dict[str, Mounted]:
    """Four cameras round the vehicle, and a LiDAR on its roof.

    Args:
        size: (height, width) of pictures.
        yaw_deg: where the LiDAR looks, to the left.
    """
    camera, found = camera_model(*size, FIELD_OF_VIEW_DEG), dict[str, Mounted]()
    for name, (x, y, z, yaw) in CAMERAS.items():
        own = replace(camera, frame_id=name)
        found[name] = Mounted("rgb", own, (x, y, z), float(np.radians(yaw)))
    found[LIDAR] = Mounted("lidar", None, LIDAR_AT_M, float(np.radians(yaw_deg)))
    return found


def surround_rig(sensors: Mapping[str, Mounted]) -> Rig:
    """The calibration of such sensors, by poses in the base frame."""
    found = {
        name: SensorCalibration(own.camera, frame_id=name, kind=own.kind, pose=Pose(own.pose))
        for name, own in sensors.items()
    }
    return Rig(found, base=BASE_FRAME, reference=LABELS_OF)


def kinds_of(sensors: Mapping[str, Mounted]) -> dict[str, Kind]:
    """The kinds of sensors by name."""
    return {name: own.kind for name, own in sensors.items()}


@dataclass(frozen=True)
class SurroundFrame:
    """What the sensors saw, and what was there.

    Attributes:
        samples: by sensor: (H, W, 3) uint8; of the LiDAR (N, 5) float32 x, y, z in metres, intensity
            0..1, ring, in its own frame.
        times: by sensor, (N,) float32 seconds from the stamp; empty where all is of one time.
        labels: (H, W) uint8 in the pixels of `LABELS_OF`, as `boxes`.
        boxes: what is visible of objects.
        boxes3d: objects round the vehicle in the base frame at the stamp.
        pose: from the base frame to the world.
        objects: (N,) int64, which object's track each LiDAR point is of, -1 of none.
    """

    samples: dict[str, NDArray[Any]]
    times: dict[str, NDArray[np.float32]]
    labels: NDArray[np.uint8]
    boxes: Boxes
    boxes3d: TruthBoxes3d
    pose: RigidTransform
    objects: NDArray[np.int64]


def render_surround(
    town: Town,
    seconds: float,
    sensors: Mapping[str, Mounted],
    pattern: Pattern,
    scan: str = "rolling",
    track: int = 0,
    caster: RayCaster | None = None,
) -> SurroundFrame:
    """What is seen of a town at one moment; a scan begins before it and ends behind.

    Args:
        town: where the vehicle drives.
        seconds: since the drive began.
        sensors: see `surround_sensors`.
        pattern: of the LiDARs.
        scan: one of `SCANS`.
        track: added to the objects' numbers.
        caster: of the same town at any time, which is changed; made if not given.
    """
    scene = town.at(seconds)
    rng = np.random.default_rng((scene.seed, 37))
    first = len(town.still)
    caster = caster or RayCaster(scene)
    caster.move(scene.bodies[first:], first)
    body_of_geom = np.array([i for i, _ in scene.geoms] + [-1])
    samples: dict[str, NDArray[Any]] = {}
    pixels, shown = Counter[int](), np.zeros((0, 0), np.int64)
    for name, own in sensors.items():
        if own.camera is None:
            continue
        view = View(scene, caster, own)
        samples[name] = shade(scene, caster, view.surface, view.size, rng)
        body = body_of_geom[view.hits.geom].reshape(view.size)
        pixels += Counter(body.ravel().tolist())
        shown = body if name == LABELS_OF else shown
    times, points, objects = dict[str, NDArray[np.float32]](), Counter[int](), [shown[:0, 0]]
    for name, own in sensors.items():
        if own.camera is None:
            scanned = _scan(town, seconds, caster, own, pattern, scan, rng)
            samples[name], own_times, bodies = scanned
            points += Counter(bodies.tolist())
            objects.append(np.where(bodies >= first, bodies - first + track, -1))
            times |= {name: own_times} if scan == "rolling" else {}
    caster.move(scene.bodies[first:], first)
    eyes = [_eye(scene, own) for own in sensors.values()]
    boxes3d = boxes_of(scene, first, caster, eyes, points, pixels, track)
    label_of_body = np.array([b.label for b in scene.bodies] + [SKY], np.uint8)
    class_of_body = np.array([b.object_class for b in scene.bodies] + [-1])
    return SurroundFrame(
        samples,
        times,
        label_of_body[shown],
        boxes_2d(shown, class_of_body),
        boxes3d,
        base_in_world(scene),
        np.concatenate(objects),
    )


def _eye(scene: Scene, own: Mounted) -> Eye:
    origin, turn = pose_of(scene, own)
    half = 180.0 if own.camera is None else FIELD_OF_VIEW_DEG / 2
    return Eye(origin, turn[:, 0], float(np.cos(np.radians(half))))


def _scan(
    town: Town,
    seconds: float,
    caster: RayCaster,
    own: Mounted,
    pattern: Pattern,
    scan: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """A cloud (N, 5), the time of each of its points, and the body that it is of (-1 of none)."""
    first = len(town.still)
    scene = town.at(seconds)
    geoms = scene.geoms
    body_of_geom = np.array([i for i, _ in geoms] + [-1])
    reflectivity = reflectivities(scene)
    at_stamp, turn_at_stamp = pose_of(scene, own)
    clouds, times, bodies = [], [], []
    for firing in firings(pattern, seconds):
        if scan != "still":
            scene = town.at(seconds + firing.seconds)
            caster.move(scene.bodies[first:], first)
        origin, turn = pose_of(scene, own)
        rays = firing.rays @ turn.T
        hits = caster.cast(origin, rays, pattern.reach_m)
        noise = pattern.range_noise_m
        found = returns(rays, hits, reflectivity[hits.geom], noise, town.weather, rng)
        kept = found.kept & (found.distance <= pattern.reach_m)
        points = firing.rays[kept] * found.distance[kept, None]
        if scan == "compensated":
            points = (points @ turn.T + (origin - at_stamp)) @ turn_at_stamp
        clouds.append(np.column_stack([points, found.intensity[kept], firing.rings[kept]]))
        times.append(np.full(len(points), firing.seconds))
        bodies.append(np.where(found.body, body_of_geom[hits.geom], -1)[kept])
    cloud = np.concatenate(clouds).astype(np.float32)
    return cloud, np.concatenate(times).astype(np.float32), np.concatenate(bodies)

"""Trucks and cyclists, and the objects of a town: who goes where, and that nobody runs into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from perception.sim.objects import SKIN_K, Rng, person, vehicle
from perception.sim.paths import Motion, Path
from perception.sim.scene import (
    OBJECT_CAR,
    OBJECT_CYCLIST,
    OBJECT_PERSON,
    OBJECT_TRUCK,
    PERSON,
    VEHICLE,
    Body,
    Geom,
    Material,
    Weather,
)
from perception.sim.street import ROAD_HALF_WIDTH

Float64 = NDArray[np.float64]

LANE_M = 1.9
"""From the middle of the road to that of a lane; traffic keeps to the right."""

KERB_M = 0.14
EGO_SIZE_M = (4.6, 1.9)
_GAP_M = 0.5  # between two objects, at least
_LOOKS_S = (-0.1, 0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Mover:
    """An object of a town: its body, wherever that is, its motion, and how high its feet are."""

    body: Body
    motion: Motion
    z: float = 0.0

    def at(self, seconds: float) -> Body:
        """The body at a time."""
        place, velocity = self.motion.at(seconds)
        return replace(
            self.body, position=(place.x, place.y, self.z), yaw=place.heading, velocity=velocity
        )


class Traffic:
    """Objects that keep clear of one another and of the ego vehicle.

    Args:
        ego: how the ego vehicle moves.
        seconds: how long they are watched.
    """

    def __init__(self, ego: Motion, seconds: float) -> None:
        self._times = [t for t in _LOOKS_S if t <= seconds] + [seconds]
        self.movers: list[Mover] = []
        self._taken = [self._circles(ego, (EGO_SIZE_M[0], EGO_SIZE_M[1] + 0.4))]

    def add(self, mover: Mover) -> bool:
        """Add an object unless it is in another's way; whether it is there now."""
        wanted = self._circles(mover.motion, mover.body.extent[:2])
        centers, radius = wanted
        for others, other in self._taken:
            apart = np.linalg.norm(centers[:, :, None] - others[:, None], axis=3)
            if apart.min() < radius + other + _GAP_M:
                return False
        self.movers.append(mover)
        self._taken.append(wanted)
        return True

    def _circles(
        self, motion: Motion, size: tuple[float, float] | Sequence[float]
    ) -> tuple[Float64, float]:
        """Circles (T, N, 2) along its length at all times, and their radius."""
        length, width = max(size), min(size)
        along = np.linspace(-1, 1, max(1, round(length / width))) * (length - width) / 2
        rows = []
        for t in self._times:
            place, _ = motion.at(t)
            ahead = np.array([np.cos(place.heading), np.sin(place.heading)])
            rows.append(np.array([place.x, place.y]) + along[:, None] * ahead)
        return np.array(rows), width / 2


def truck(rng: Rng, weather: Weather, running: bool) -> Body:
    """A lorry: a cab, a box behind it, three pairs of wheels."""
    length, width = float(rng.uniform(6.5, 9.5)), float(rng.uniform(2.2, 2.5))
    height = float(rng.uniform(2.9, 3.5))
    air = weather.air_k + (4 * weather.daylight if not running else 6)
    red, green, blue = (float(v) for v in rng.uniform(0.1, 0.9, 3))
    paint = Material((red, green, blue), 0.03, temperature_k=air, reflectivity=0.5)
    shade = float(rng.uniform(0.4, 0.95))
    cover = Material((shade, shade, shade), 0.05, temperature_k=air - 3, reflectivity=0.6)
    glass = Material((0.12, 0.14, 0.17), 0.03, temperature_k=air - 2, reflectivity=0.08)
    tire = Material(
        (0.05, 0.05, 0.05), 0.1, temperature_k=air + (14 if running else 0), reflectivity=0.1
    )
    lit = weather.headlights and running
    lamp = Material((0.9, 0.9, 0.8), 0, temperature_k=air + 10, glow=2.5 if lit else 0)
    rear = Material((0.8, 0.05, 0.05), 0, temperature_k=air, glow=1.2 if lit else 0)
    half, side, cab = length / 2, width / 2, 1.0
    box, top = (length - 2 * cab - 0.3) / 2, 0.78 * height
    geoms = [
        Geom("box", (cab, side - 0.05, (top - 0.5) / 2), (half - cab, 0, (top + 0.5) / 2), paint),
        Geom("box", (0.03, side - 0.2, 0.16 * height), (half - 0.01, 0, 0.6 * height), glass),
        Geom("box", (box, side, (height - 0.9) / 2), (box - half, 0, (height + 0.9) / 2), cover),
        Geom("box", (half - 0.3, side - 0.5, 0.2), (-0.1, 0, 0.7), tire),
    ]
    for x, sy in product((half - 1.1, -half + 1.0, -half + 2.2), (-1, 1)):
        geoms.append(Geom("cylinder", (0.48, 0.15), (x, sy * (side - 0.17), 0.48), tire, axis="y"))
    for sx, sy in product((-1, 1), (-1, 1)):
        at = (sx * (half - 0.02), sy * 0.36 * width, 0.8)
        geoms.append(Geom("box", (0.03, 0.12, 0.08), at, lamp if sx > 0 else rear))
    return Body(VEHICLE, tuple(geoms), extent=(length, width, height), object_class=OBJECT_TRUCK)


def cyclist(rng: Rng, weather: Weather) -> Body:
    """Somebody who rides a bicycle; the box is round both."""
    rider = person(rng, (0, 0, 0), 0.0, 0.0, weather)
    shirt, trousers = rider.geoms[0].material, rider.geoms[3].material
    skin = Material((0.75, 0.55, 0.45), 0.05, temperature_k=SKIN_K, emissivity=0.98)
    r, g, b = (float(v) for v in rng.uniform(0.05, 0.9, 3))
    frame = Material((r, g, b), 0.02, temperature_k=weather.air_k, reflectivity=0.5)
    tire = Material((0.06, 0.06, 0.06), 0.1, temperature_k=weather.air_k + 3, reflectivity=0.12)
    lift = float(rng.uniform(-0.06, 0.08))
    geoms = [Geom("cylinder", (0.33, 0.025), (x, 0, 0.33), tire, axis="y") for x in (-0.52, 0.52)]
    geoms += [
        Geom("box", (0.5, 0.02, 0.02), (0, 0, 0.62), frame),
        Geom("box", (0.02, 0.02, 0.25), (-0.2, 0, 0.72), frame),
        Geom("box", (0.02, 0.25, 0.02), (0.45, 0, 0.98), frame),
        Geom("capsule", (0.09, 0.28), (-0.17, 0.11, 0.68), trousers),
        Geom("capsule", (0.09, 0.28), (-0.08, -0.11, 0.62), trousers),
        Geom("capsule", (0.17, 0.2), (-0.08, 0, 1.22 + lift), shirt),
        Geom("capsule", (0.055, 0.22), (0.2, 0.2, 1.2 + lift), shirt, axis="x"),
        Geom("capsule", (0.055, 0.22), (0.2, -0.2, 1.2 + lift), shirt, axis="x"),
        Geom("sphere", (0.12,), (0.03, 0, 1.62 + lift), skin),
    ]
    extent = (1.72, 0.6, 1.75 + lift)
    return Body(PERSON, tuple(geoms), extent=extent, object_class=OBJECT_CYCLIST)


def parked(rng: Rng, traffic: Traffic, path: Path, s: float, side: int, weather: Weather) -> None:
    """A car or truck at the kerb on one side of a road."""
    big = rng.random() < 0.1
    body = truck(rng, weather, False) if big else _car(rng, weather, 0.0)
    left = side * (ROAD_HALF_WIDTH - 0.1 - body.extent[1] / 2)
    turned = (0.0 if side < 0 else np.pi) + float(rng.normal(0, 0.03))
    traffic.add(Mover(body, Motion(path, s, left, turned=turned)))


def driving(
    rng: Rng, traffic: Traffic, path: Path, s: float, direction: int, speed: float, weather: Weather
) -> None:
    """Something on the lane of a direction, 1 or -1 along the curve, in metres per second."""
    kind = rng.random()
    acceleration = float(rng.uniform(-1.5, 1.5)) * direction
    left = -direction * (LANE_M + float(rng.normal(0, 0.1)))
    if kind < 0.2:
        speed, left = float(rng.uniform(2.0, 6.5)), -direction * float(rng.uniform(2.9, 3.4))
        body, acceleration = cyclist(rng, weather), 0.0
    else:
        body = truck(rng, weather, True) if kind < 0.36 else _car(rng, weather, speed)
    motion = Motion(path, s, left, direction * speed, acceleration)
    if speed == 0 and direction < 0:
        motion = replace(motion, turned=np.pi)
    traffic.add(Mover(body, motion))


def walking(rng: Rng, traffic: Traffic, path: Path, s: float, weather: Weather) -> None:
    """Somebody on the pavement beside a road, or crossing it."""
    side = 1 if rng.random() < 0.5 else -1
    speed = float(rng.uniform(0.5, 1.8)) if rng.random() < 0.8 else 0.0
    body = _person(rng, weather, speed)
    if rng.random() < 0.25:
        left = float(rng.uniform(-3.5, 3.5))
        place = path.at(s)
        x, y = place.beside(left)
        across = Path((x, y, place.heading + side * np.pi / 2 + float(rng.normal(0, 0.2))))
        traffic.add(Mover(body, Motion(across, 0.0, speed=speed)))
        return
    left = side * (ROAD_HALF_WIDTH + float(rng.uniform(0.9, 2.7)))
    back = rng.random() < 0.5
    turned = float(rng.uniform(-np.pi, np.pi)) if speed == 0 else 0.0
    motion = Motion(path, s, left, -speed if back else speed, turned=turned)
    traffic.add(Mover(body, motion, KERB_M))


def _car(rng: Rng, weather: Weather, speed: float) -> Body:
    return replace(vehicle(rng, (0, 0, 0), 0.0, speed, weather), object_class=OBJECT_CAR)


def _person(rng: Rng, weather: Weather, speed: float) -> Body:
    return replace(person(rng, (0, 0, 0), 0.0, speed, weather), object_class=OBJECT_PERSON)

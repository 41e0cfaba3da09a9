"""Building blocks of street scenes: people, vehicles, trees, buildings, lamps."""

from __future__ import annotations

from itertools import product

import numpy as np

from perception.sim.scene import (
    BUILDING,
    PERSON,
    POLE,
    VEGETATION,
    VEHICLE,
    Body,
    Geom,
    Light,
    Material,
    Vector,
    Weather,
)

Rng = np.random.Generator

SKIN_K, CLOTHES_K = 306.0, 300.0


def _color(rng: Rng, low: float = 0.1, high: float = 0.9) -> Vector:
    r, g, b = rng.uniform(low, high, 3)
    return (float(r), float(g), float(b))


def _cloth(rng: Rng, air_k: float) -> Material:
    # Clothes lie between skin and air temperature, warmer on a slim jacket than on a thick coat.
    share = rng.uniform(0.35, 0.75)
    kelvin = air_k + share * (CLOTHES_K - air_k)
    return Material(
        _color(rng, 0.05, 0.8), 0.15, temperature_k=kelvin, reflectivity=rng.uniform(0.1, 0.7)
    )


def person(rng: Rng, position: Vector, yaw: float, speed: float, weather: Weather) -> Body:
    """A standing or walking person, 1.5 to 1.95 m tall."""
    height = float(rng.uniform(1.5, 1.95))
    k = height / 1.75
    shirt, trousers = _cloth(rng, weather.air_k), _cloth(rng, weather.air_k)
    skin = Material((0.75, 0.55, 0.45), 0.05, temperature_k=SKIN_K, emissivity=0.98)
    hair = Material(_color(rng, 0.02, 0.3), 0.1, temperature_k=weather.air_k + 8)
    stride = float(rng.uniform(0.0, 0.28)) * k if speed > 0 else 0.05
    swing = float(rng.uniform(-0.15, 0.15)) * k
    geoms = (
        Geom("capsule", (0.17 * k, 0.2 * k), (0, 0, 1.18 * k), shirt),
        Geom("sphere", (0.12 * k,), (0, 0, 1.62 * k), skin),
        Geom("sphere", (0.115 * k,), (-0.03, 0, 1.66 * k), hair),
        Geom("capsule", (0.08 * k, 0.34 * k), (stride, 0.1 * k, 0.44 * k), trousers),
        Geom("capsule", (0.08 * k, 0.34 * k), (-stride, -0.1 * k, 0.44 * k), trousers),
        Geom("capsule", (0.055 * k, 0.24 * k), (swing, 0.24 * k, 1.1 * k), shirt),
        Geom("capsule", (0.055 * k, 0.24 * k), (-swing, -0.24 * k, 1.1 * k), shirt),
    )
    velocity = (float(np.cos(yaw)) * speed, float(np.sin(yaw)) * speed)
    return Body(PERSON, geoms, position, yaw, velocity, (0.75 * k, 0.6 * k, height))


def vehicle(rng: Rng, position: Vector, yaw: float, speed: float, weather: Weather) -> Body:
    """A car or van; one that moves is warm at its wheels, hood and exhaust."""
    van = rng.random() < 0.25
    length = float(rng.uniform(4.6, 5.6) if van else rng.uniform(3.8, 4.8))
    width = float(rng.uniform(1.7, 2.0))
    height = float(rng.uniform(1.9, 2.4) if van else rng.uniform(1.4, 1.6))
    running = speed > 0
    lit = weather.headlights and running
    air = weather.air_k + (4 * weather.daylight if not running else 6)
    paint = Material(
        _color(rng, 0.08, 0.95), 0.03, temperature_k=air, emissivity=0.85, reflectivity=0.5
    )
    hood = Material(paint.albedo, 0.03, temperature_k=air + (16 if running else 0), emissivity=0.85)
    glass = Material(
        (0.12, 0.14, 0.17), 0.03, temperature_k=air - 2, emissivity=0.9, reflectivity=0.08
    )
    tire = Material(
        (0.05, 0.05, 0.05), 0.1, temperature_k=air + (14 if running else 0), reflectivity=0.1
    )
    lamp = Material((0.9, 0.9, 0.8), 0, temperature_k=air + 10, glow=2.5 if lit else 0)
    rear = Material((0.8, 0.05, 0.05), 0, temperature_k=air, glow=1.2 if lit else 0)
    half, side, belt = length / 2, width / 2, 0.55 * height if not van else 0.5 * height
    cabin = (-0.06 * length, 0.28 * length) if not van else (-0.08 * length, 0.4 * length)
    wheels, lamps = [], []
    for sx, sy in product((-1, 1), (-1, 1)):
        at = (sx * 0.31 * length, sy * (side - 0.08), 0.32)
        wheels.append(Geom("cylinder", (0.32, 0.1), at, tire, axis="y"))
        at = (sx * (half + 0.01), sy * 0.33 * width, 0.62)
        lamps.append(Geom("box", (0.03, 0.14, 0.08), at, lamp if sx > 0 else rear))
    middle, upper, rise = (0.28 + belt) / 2, (height + belt) / 2, (belt - 0.28) / 2
    geoms = (
        Geom("box", (half, side, rise), (0, 0, middle), paint),
        Geom("box", (0.2 * length, side - 0.03, 0.03), (0.28 * length, 0, belt + 0.02), hood),
        Geom("box", (cabin[1], side - 0.08, (height - belt) / 2), (cabin[0], 0, upper), glass),
        Geom("box", (cabin[1] - 0.12, side - 0.12, 0.03), (cabin[0], 0, height), paint),
        *wheels,
        *lamps,
    )
    velocity = (float(np.cos(yaw)) * speed, float(np.sin(yaw)) * speed)
    return Body(VEHICLE, geoms, position, yaw, velocity, (length, width, height))


def _crown_place(rng: Rng, height: float) -> Vector:
    x, y = rng.uniform(-0.7, 0.7, 2)
    return (float(x), float(y), height * float(rng.uniform(0.65, 1.0)))


def tree(rng: Rng, position: Vector, weather: Weather) -> Body:
    """A trunk with a crown of a few ellipsoids."""
    height = float(rng.uniform(3.5, 8.0))
    bark = Material((0.25, 0.17, 0.1), 0.25, temperature_k=weather.air_k + 1)
    green = float(rng.uniform(0.25, 0.55))
    leaves = Material(
        (green * 0.55, green, green * 0.3), 0.5, temperature_k=weather.air_k - 0.5, reflectivity=0.6
    )
    crown = tuple(
        Geom("ellipsoid", tuple(rng.uniform(0.7, 1.6, 3)), _crown_place(rng, height), leaves)
        for _ in range(int(rng.integers(3, 6)))
    )
    trunk = Geom(
        "cylinder", (float(rng.uniform(0.1, 0.25)), height * 0.4), (0, 0, height * 0.4), bark
    )
    return Body(VEGETATION, (trunk, *crown), position)


def bush(rng: Rng, position: Vector, weather: Weather) -> Body:
    """A low hedge or bush."""
    green = float(rng.uniform(0.2, 0.5))
    leaves = Material(
        (green * 0.6, green, green * 0.35), 0.5, temperature_k=weather.air_k, reflectivity=0.6
    )
    x, y, z = rng.uniform((0.5, 0.4, 0.4), (1.8, 0.8, 0.9))
    size = (float(x), float(y), float(z))
    return Body(VEGETATION, (Geom("ellipsoid", size, (0, 0, size[2] * 0.7), leaves),), position)


def building(rng: Rng, position: Vector, size: Vector, weather: Weather) -> Body:
    """A block of `size` half extents with windows, some lit at night."""
    pattern = "windows" if rng.random() < 0.8 else "bricks"
    wall = Material(
        _color(rng, 0.3, 0.8),
        0.15,
        pattern,
        temperature_k=weather.air_k + float(rng.uniform(0, 3)) + 3 * weather.daylight,
        emissivity=0.92,
        reflectivity=float(rng.uniform(0.3, 0.7)),
    )
    return Body(BUILDING, (Geom("box", size, (0, 0, size[2]), wall),), position)


def lamp_post(rng: Rng, position: Vector, side: int, weather: Weather) -> tuple[Body, Light | None]:
    """A street lamp whose arm reaches over the road, and its light at night."""
    height = float(rng.uniform(5.0, 7.0))
    steel = Material(
        (0.35, 0.36, 0.38), 0.05, temperature_k=weather.air_k, emissivity=0.5, reflectivity=0.6
    )
    shine = Material(
        (0.9, 0.9, 0.9), 0, temperature_k=weather.air_k + 5, glow=3.0 if weather.night else 0.0
    )
    geoms = (
        Geom("cylinder", (0.08, height / 2), (0, 0, height / 2), steel),
        Geom("capsule", (0.05, 0.8), (0, -side * 0.8, height), steel, axis="y"),
        Geom("box", (0.12, 0.3, 0.06), (0, -side * 1.7, height - 0.05), shine),
    )
    body = Body(POLE, geoms, position)
    if not weather.night:
        return body, None
    at = (position[0], position[1] - side * 1.7, height - 0.2)
    return body, Light(at, 11.0, (1.0, 0.85, 0.6))


def sign_post(rng: Rng, position: Vector, weather: Weather) -> Body:
    """A traffic sign on a thin pole."""
    steel = Material(
        (0.5, 0.5, 0.5), 0.05, temperature_k=weather.air_k, emissivity=0.6, reflectivity=0.6
    )
    plate = Material(
        _color(rng, 0.2, 1.0), 0.0, temperature_k=weather.air_k, emissivity=0.7, reflectivity=0.95
    )
    height = float(rng.uniform(2.0, 2.6))
    geoms = (
        Geom("cylinder", (0.035, height / 2), (0, 0, height / 2), steel),
        Geom("box", (0.02, 0.3, 0.3), (-0.05, 0, height), plate),
    )
    return Body(POLE, geoms, position)

"""Procedural streets: the same seed gives the same street."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perception.sim.objects import Rng, building, bush, lamp_post, person, sign_post, tree, vehicle
from perception.sim.scene import ROAD, SIDEWALK, Body, Geom, Light, Material, Scene, Weather

ROAD_HALF_WIDTH = 4.2
SIDEWALK_WIDTH = 3.0
EGO_LANE_Y = -1.9


def random_weather(rng: Rng, night: bool) -> Weather:
    """Day or night, with sun, temperature and headlights to match."""
    if night:
        daylight, air = float(rng.uniform(0.0, 0.06)), float(rng.uniform(272, 289))
    else:
        daylight, air = float(rng.uniform(0.45, 1.0)), float(rng.uniform(278, 300))
    return Weather(
        daylight,
        float(rng.uniform(-np.pi, np.pi)),
        float(rng.uniform(0.25, 1.2)),
        air,
        headlights=daylight < 0.3,
    )


def make_street(seed: int, length: float, weather: Weather, *, crowd: float = 1.0) -> Scene:
    """A straight street along +x, from x = -10 m to `length`, with the ego vehicle at x = 0.

    Args:
        seed: of all random choices.
        length: metres.
        weather: light and temperatures.
        crowd: factor on the number of people and vehicles.
    """
    rng = np.random.default_rng((seed, 11))
    bodies, lights = _ground(rng, weather), []
    for side in (-1, 1):
        bodies += _blocks(rng, side, length, weather)
        found, lamps = _furniture(rng, side, length, weather)
        bodies += found
        lights += lamps
    bodies += _traffic(rng, length, weather, crowd)
    bodies += _people(rng, length, weather, crowd)
    return Scene(tuple(bodies), weather, tuple(lights), (0.0, EGO_LANE_Y, 0.0), 0.0, seed)


def _ground(rng: Rng, weather: Weather) -> list[Body]:
    warm = weather.air_k + 9 * weather.daylight
    asphalt = Material(
        (0.2, 0.2, 0.21), 0.25, "markings", temperature_k=warm + 2, reflectivity=0.15
    )
    slabs = Material((0.45, 0.43, 0.41), 0.2, "bricks", temperature_k=warm, reflectivity=0.3)
    bodies = [Body(ROAD, (Geom("plane", (0, 0), (0, 0, 0), asphalt),))]
    for side in (-1, 1):
        y = side * (ROAD_HALF_WIDTH + SIDEWALK_WIDTH / 2 + 10)
        size = (300.0, SIDEWALK_WIDTH / 2 + 10, 0.07)
        bodies.append(Body(SIDEWALK, (Geom("box", size, (0, y, 0.07), slabs),)))
    return bodies


def _blocks(rng: Rng, side: int, length: float, weather: Weather) -> list[Body]:
    bodies, x = [], -15.0
    edge = ROAD_HALF_WIDTH + SIDEWALK_WIDTH
    while x < length + 40:
        half = float(rng.uniform(4, 11))
        x += half
        if rng.random() < 0.8:
            size = (half, float(rng.uniform(3, 6)), float(rng.uniform(2.5, 9)))
            y = side * (edge + size[1] + float(rng.uniform(0, 3)))
            bodies.append(building(rng, (x, y, 0), size, weather))
        else:  # a gap with greenery
            for _ in range(3):
                at = (
                    x + float(rng.uniform(-half, half)),
                    side * (edge + float(rng.uniform(1, 8))),
                    0.0,
                )
                bodies.append(tree(rng, at, weather))
        x += half + float(rng.uniform(0, 2.5))
    return bodies


def _furniture(
    rng: Rng, side: int, length: float, weather: Weather
) -> tuple[list[Body], list[Light]]:
    bodies: list[Body] = []
    lights: list[Light] = []
    kerb = side * (ROAD_HALF_WIDTH + 0.5)
    for x in np.arange(float(rng.uniform(-5, 5)), length + 30, float(rng.uniform(14, 22))):
        post, light = lamp_post(rng, (float(x), kerb, 0.14), side, weather)
        bodies.append(post)
        lights += [light] if light is not None else []
    for _ in range(int(length / 14) + 2):
        x = float(rng.uniform(2, length + 30))
        kind = rng.random()
        at = (x, kerb + side * float(rng.uniform(0, 0.6)), 0.14)
        if kind < 0.45:
            bodies.append(tree(rng, at, weather))
        elif kind < 0.75:
            bodies.append(bush(rng, (x, kerb + side * 1.8, 0.14), weather))
        else:
            bodies.append(sign_post(rng, at, weather))
    return bodies, lights


def _traffic(rng: Rng, length: float, weather: Weather, crowd: float) -> list[Body]:
    bodies: list[Body] = []
    x = float(rng.uniform(6, 14))
    while x < length + 40:  # parked on the right and left
        for side in (-1, 1):
            if rng.random() < 0.4 * crowd:
                y = side * (ROAD_HALF_WIDTH - 0.6)
                yaw = 0.0 if side < 0 else np.pi
                at = (x + float(rng.uniform(-1, 1)), y, 0.0)
                bodies.append(vehicle(rng, at, yaw + float(rng.normal(0, 0.03)), 0.0, weather))
        x += float(rng.uniform(6.5, 11))
    for _ in range(rng.poisson(1.2 * crowd)):  # oncoming
        at = (float(rng.uniform(15, length + 60)), 1.6, 0.0)
        bodies.append(vehicle(rng, at, np.pi, float(rng.uniform(5, 9)), weather))
    if rng.random() < 0.5 * crowd:  # ahead in the ego lane
        at = (float(rng.uniform(10, 30)), EGO_LANE_Y, 0.0)
        bodies.append(vehicle(rng, at, 0.0, float(rng.uniform(4, 6)), weather))
    return bodies


def _people(rng: Rng, length: float, weather: Weather, crowd: float) -> list[Body]:
    bodies: list[Body] = []
    for _ in range(rng.poisson((length + 25) / 7 * crowd)):
        side = 1 if rng.random() < 0.5 else -1
        x = float(rng.uniform(4, length + 25))
        if rng.random() < 0.2:  # crossing
            at = (x, float(rng.uniform(-3.5, 3.5)), 0.0)
            bodies.append(person(rng, at, side * np.pi / 2, float(rng.uniform(0.6, 1.5)), weather))
        else:
            at = (x, side * (ROAD_HALF_WIDTH + float(rng.uniform(0.9, 2.7))), 0.14)
            yaw = 0.0 if rng.random() < 0.5 else np.pi
            speed = float(rng.uniform(0.5, 1.6)) if rng.random() < 0.8 else 0.0
            bodies.append(person(rng, at, yaw, speed, weather))
    return bodies


def at_time(street: Scene, seconds: float, speed: float) -> Scene:
    """The street after `seconds`, the ego vehicle driving at `speed` m/s."""
    x, y, z = street.ego_position
    return replace(
        street,
        bodies=tuple(body.at(seconds) for body in street.bodies),
        ego_position=(x + speed * seconds, y, z),
        seed=street.seed * 100003 + round(seconds * 1000),
    )

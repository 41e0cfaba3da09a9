"""Streets that bend or cross, with things on all sides of a vehicle that drives through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perception.sim.objects import Rng, building, bush, lamp_post, sign_post, tree
from perception.sim.paths import Motion, Path, Place
from perception.sim.scene import ROAD, SIDEWALK, Body, Geom, Light, Material, Scene, Weather
from perception.sim.street import ROAD_HALF_WIDTH, SIDEWALK_WIDTH
from perception.sim.traffic import (
    KERB_M,
    LANE_M,
    Mover,
    Traffic,
    driving,
    parked,
    walking,
)

REACH_M = 85.0
"""How far a town goes from where the drive begins, metres along each road."""

LAYOUTS = ("bend", "straight on", "left", "right")
MAX_SPEED_MPS = 15.0
_SIDEWAYS_MPS2 = 2.5  # what passengers bear
_EDGE_M = ROAD_HALF_WIDTH + SIDEWALK_WIDTH
_CORNER_M = 3.0  # cut off the pavement where roads cross, so that one can turn


@dataclass(frozen=True)
class Town:
    """A world in motion.

    Attributes:
        still: what does not move.
        movers: the objects, parked ones too; a track's number is its place here.
        lights, weather: as of a `Scene`.
        ego: how the ego vehicle's origin, on the ground below its middle, moves.
        layout: one of `LAYOUTS`.
        seed: of all random choices.
    """

    still: tuple[Body, ...]
    movers: tuple[Mover, ...]
    lights: tuple[Light, ...]
    weather: Weather
    ego: Motion
    layout: str
    seed: int

    def at(self, seconds: float) -> Scene:
        """All of it at a time; movers come behind `still`, in their order."""
        place, _ = self.ego.at(seconds)
        return Scene(
            (*self.still, *(mover.at(seconds) for mover in self.movers)),
            self.weather,
            self.lights,
            (place.x, place.y, 0.0),
            place.heading,
            self.seed * 100003 + round(seconds * 1000),
            lit_around=True,
        )


def make_town(
    seed: int,
    weather: Weather,
    seconds: float,
    *,
    speed: float | None = None,
    crowd: float = 1.0,
) -> Town:
    """A town round the ego vehicle, which drives through it for some seconds.

    Args:
        seed: of all random choices.
        weather: light, temperatures and what is in the air.
        seconds: how long nobody runs into anybody.
        speed: of the ego vehicle at first, metres per second; slower where a turn wants it.  If not
            given, from 0 to `MAX_SPEED_MPS`, and it stands in one town of eight.
        crowd: factor on the number of people and vehicles.
    """
    rng = np.random.default_rng((seed, 31))
    layout = LAYOUTS[int(rng.choice(4, p=(0.5, 0.2, 0.15, 0.15)))]
    roads = [_bend(rng)] if layout == "bend" else _crossing(rng)
    way, left = _way(rng, layout, roads)
    ego = _ego(rng, way, left, speed, seconds)
    traffic = Traffic(ego, seconds)
    for road in roads:
        _vehicles(rng, traffic, road, roads, weather, crowd, abs(ego.speed))
        for _ in range(rng.poisson(2 * REACH_M / 7 * crowd / len(roads) ** 0.5)):
            walking(rng, traffic, road, _somewhere(rng), weather)
    still, lights = _ground(roads, weather), list[Light]()
    for road, side in ((r, s) for r in roads for s in (-1, 1)):
        still += _blocks(rng, road, side, roads, weather)
        found, lamps = _furniture(rng, road, side, roads, weather)
        still, lights = still + found, lights + lamps
    return Town(tuple(still), tuple(traffic.movers), tuple(lights), weather, ego, layout, seed)


def _somewhere(rng: Rng) -> float:
    """An arc length, more often near the middle, where the ego vehicle is, than far away."""
    far = REACH_M * float(rng.random()) ** 1.3
    return far if rng.random() < 0.55 else -far


def _bend(rng: Rng) -> Path:
    """A road through the origin, with a bend ahead and one behind, or none."""
    bends = []
    for _ in range(2):
        radius = float(rng.uniform(30, 150)) * (1 if rng.random() < 0.5 else -1)
        bends.append(0.0 if rng.random() < 0.2 else 1 / radius)
    behind, ahead = bends
    back = Path((0.0, 0.0, np.pi), ((10.0, 0.0), (60.0, -behind))).at(100.0)
    pieces = ((30.0, 0.0), (60.0, behind), (20.0, 0.0), (60.0, ahead))
    return Path((back.x, back.y, back.heading - np.pi), pieces, begin=-100.0)


def _crossing(rng: Rng) -> list[Path]:
    """Two roads that cross some way ahead of, or behind, the origin."""
    at = float(rng.uniform(5, 30))
    return [Path((0.0, 0.0, 0.0)), Path((at, 0.0, np.pi / 2))]


def _way(rng: Rng, layout: str, roads: Sequence[Path]) -> tuple[Path, float]:
    """The curve that the ego vehicle follows, and how far to the left of it."""
    if layout in ("bend", "straight on"):
        return roads[0], -LANE_M
    middle, side = roads[1].at(0.0).x, 1 if layout == "left" else -1
    radius = float(rng.uniform(8, 12) if side > 0 else rng.uniform(7, 9))
    start = middle + side * LANE_M - radius
    quarter = (radius * np.pi / 2, side / radius)
    # Somewhere on the way round the corner, or just before it.
    begin = float(rng.uniform(-0.6, 0.2)) * radius
    ahead = Path((start, -LANE_M, 0.0), (quarter,), begin=-begin)
    return ahead, 0.0


def _ego(rng: Rng, way: Path, left: float, speed: float | None, seconds: float) -> Motion:
    stands = rng.random() < 0.125
    drawn, acceleration = float(rng.uniform(1.0, MAX_SPEED_MPS)), float(rng.uniform(-2.0, 1.5))
    if speed is None:
        speed = 0.0 if stands else drawn
    sharpest = max(abs(way.at(s).curvature) for s in np.arange(-2.0, 35.0))
    if sharpest:
        speed = min(speed, float(np.sqrt(_SIDEWAYS_MPS2 / sharpest)))
        acceleration = min(acceleration, 0.0)
    acceleration = min(acceleration, (MAX_SPEED_MPS - speed) / seconds)
    return Motion(way, 0.0, left, speed, acceleration)


def _vehicles(
    rng: Rng,
    traffic: Traffic,
    road: Path,
    roads: Sequence[Path],
    weather: Weather,
    crowd: float,
    pace: float,
) -> None:
    """Those that drive on a road, then those that are parked where no other road is near."""
    for direction in (-1, 1):
        for _ in range(rng.poisson(2 * REACH_M / 28 * crowd)):
            speed = max(0.0, pace + float(rng.normal(0, 2))) if rng.random() < 0.5 else None
            speed = float(rng.uniform(0, 13)) if speed is None else min(speed, MAX_SPEED_MPS)
            speed = 0.0 if speed < 0.7 else speed
            driving(rng, traffic, road, _somewhere(rng), direction, speed, weather)
    s = -REACH_M + float(rng.uniform(0, 8))
    while s < REACH_M:
        for side in (-1, 1):
            if rng.random() < 0.3 * crowd and _clear(road.at(s), road, roads, 14.0):
                parked(rng, traffic, road, s, side, weather)
        s += float(rng.uniform(7, 12))


def _clear(place: Place | tuple[float, float], own: Path, roads: Sequence[Path], by: float) -> bool:
    """Whether all roads but its own are farther away than so many metres."""
    point = (place.x, place.y) if isinstance(place, Place) else place
    return all(r is own or float(r.distance(np.array([point]))[0]) > by for r in roads)


def _ground(roads: Sequence[Path], weather: Weather) -> list[Body]:
    warm = weather.air_k + 9 * weather.daylight
    asphalt = Material((0.2, 0.2, 0.21), 0.25, temperature_k=warm + 2, reflectivity=0.15)
    slabs = Material((0.45, 0.43, 0.41), 0.2, "bricks", temperature_k=warm, reflectivity=0.3)
    paint = Material((0.75, 0.75, 0.72), 0.1, temperature_k=warm + 1, reflectivity=0.6)
    bodies = [Body(ROAD, (Geom("plane", (0, 0), (0, 0, 0), asphalt),))]
    for road in roads:
        for s in np.arange(-REACH_M - 30, REACH_M + 30, 6.0):
            place = road.at(float(s))
            if _clear(place, road, roads, _EDGE_M):
                dash = Geom("box", (1.5, 0.08, 0.004), (0, 0, 0.004), paint)
                at = (place.x, place.y, 0.0)
                bodies.append(Body(ROAD, (dash,), at, place.heading))
    if len(roads) == 1:
        return bodies + _pavements(roads[0], slabs)
    return bodies + _corners(roads[1].at(0.0).x, slabs) + _zebras(roads, paint)


def _pavements(road: Path, slabs: Material) -> list[Body]:
    """Both sides of a road that bends, piece by piece."""
    bodies, half, deep = [], 3.3, 11.5
    for s, side in ((s, i) for s in np.arange(-REACH_M - 30, REACH_M + 30, 6.0) for i in (-1, 1)):
        place = road.at(float(s) + 3.0)
        x, y = place.beside(side * (ROAD_HALF_WIDTH + deep))
        # On the outer side of a bend pieces are farther apart, and longer.
        size = (half * (1 + 2 * deep * max(0.0, -side * place.curvature)), deep, KERB_M / 2)
        slab = Geom("box", size, (0, 0, KERB_M / 2), slabs)
        bodies.append(Body(SIDEWALK, (slab,), (x, y, 0.0), place.heading))
    return bodies


def _corners(middle: float, slabs: Material) -> list[Body]:
    """The four blocks between two roads that cross, each in two pieces, which spare the corner."""
    bodies, far = [], REACH_M + 40
    for sx, sy in ((sx, sy) for sx in (-1, 1) for sy in (-1, 1)):
        for first, second in ((0.0, _CORNER_M), (_CORNER_M, 0.0)):
            low = (ROAD_HALF_WIDTH + first, ROAD_HALF_WIDTH + second)
            size = ((far - low[0]) / 2, (far - low[1]) / 2, KERB_M / 2)
            at = (middle + sx * (far + low[0]) / 2, sy * (far + low[1]) / 2, 0.0)
            bodies.append(Body(SIDEWALK, (Geom("box", size, (0, 0, KERB_M / 2), slabs),), at))
    return bodies


def _zebras(roads: Sequence[Path], paint: Material) -> list[Body]:
    """Crossings for pedestrians where a road comes to another."""
    bodies, middle = [], roads[1].at(0.0).x
    for road, s in ((roads[0], middle), (roads[1], 0.0)):
        for side in (-1, 1):
            place = road.at(s + side * (_EDGE_M + 2.0))
            bars = tuple(
                Geom("box", (1.5, 0.25, 0.004), (0, float(y), 0.004), paint)
                for y in np.arange(-3.5, 3.6, 1.0)
            )
            bodies.append(Body(ROAD, bars, (place.x, place.y, 0.0), place.heading))
    return bodies


def _blocks(rng: Rng, road: Path, side: int, roads: Sequence[Path], weather: Weather) -> list[Body]:
    """Buildings along one side, and gaps with trees between them."""
    bodies, s = [], -REACH_M - 15.0
    while s < REACH_M + 25:
        half = float(rng.uniform(4, 9))
        s += half
        place = road.at(s)
        if rng.random() < 0.78:
            size = (half, float(rng.uniform(3, 6)), float(rng.uniform(2.5, 9)))
            at = place.beside(side * (_EDGE_M + size[1] + 1.2 + float(rng.uniform(0, 3))))
            built = building(rng, (*at, 0.0), size, weather)
            if _fits(at, place.heading, size, roads):
                bodies.append(replace(built, yaw=place.heading))
        else:
            for _ in range(3):
                beside = road.at(s + float(rng.uniform(-half, half)))
                at = beside.beside(side * (_EDGE_M + float(rng.uniform(1, 8))))
                if _fits(at, 0.0, (1.5, 1.5), roads):
                    bodies.append(tree(rng, (*at, 0.0), weather))
        s += half + float(rng.uniform(0, 2.5))
    return bodies


def _fits(
    at: tuple[float, float], yaw: float, size: Sequence[float], roads: Sequence[Path]
) -> bool:
    """Whether a block of these half extents leaves all roads and pavements free."""
    steps = np.linspace(-1, 1, 7)
    x, y = (v.ravel() for v in np.meshgrid(steps * size[0], steps * size[1]))
    c, s = np.cos(yaw), np.sin(yaw)
    points = np.column_stack([at[0] + c * x - s * y, at[1] + s * x + c * y])
    return all(float(road.distance(points).min()) > _EDGE_M for road in roads)


def _furniture(
    rng: Rng, road: Path, side: int, roads: Sequence[Path], weather: Weather
) -> tuple[list[Body], list[Light]]:
    """Lamps, trees, bushes and signs along the kerb of one side."""
    bodies: list[Body] = []
    lights: list[Light] = []
    step = float(rng.uniform(16, 24))
    for s in np.arange(-REACH_M + float(rng.uniform(0, step)), REACH_M, step):
        place = road.at(float(s))
        at = place.beside(side * (ROAD_HALF_WIDTH + 0.5))
        post, light = lamp_post(rng, (*at, KERB_M), side, weather)
        if not _clear(at, road, roads, _EDGE_M + 1):
            continue
        bodies.append(replace(post, yaw=place.heading))
        if light is not None:
            above = place.beside(side * (ROAD_HALF_WIDTH + 0.5 - 1.7))
            lights.append(replace(light, position=(*above, light.position[2])))
    for _ in range(int(2 * REACH_M / 12)):
        place = road.at(float(rng.uniform(-REACH_M, REACH_M)))
        kind, away = rng.random(), float(rng.uniform(0, 0.6))
        behind = 1.8 if 0.45 <= kind < 0.75 else away
        spot = (*place.beside(side * (ROAD_HALF_WIDTH + 0.5 + behind)), KERB_M)
        if kind < 0.45:
            body = tree(rng, spot, weather)
        else:
            body = bush(rng, spot, weather) if kind < 0.75 else sign_post(rng, spot, weather)
        if _clear(spot[:2], road, roads, _EDGE_M + 1):
            bodies.append(replace(body, yaw=place.heading))
    return bodies, lights

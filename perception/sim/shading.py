"""Color images: albedo, patterns, sun with shadows, lamps, headlights, sky and sensor noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.sim.raycast import Hits, RayCaster
from perception.sim.scene import Scene

Float64 = NDArray[np.float64]

SUN_DISTANCE_M = 400.0
LAMPS_WITHIN_M = 45.0
PATTERNS = ("plain", "bricks", "windows", "markings")


@dataclass(frozen=True)
class Surface:
    """What every pixel's ray met, all arrays with N rows.

    Attributes:
        hit: False for sky.
        distance: metres (1 for sky).
        point, normal, rays: (N, 3) in the world.
        albedo: (N, 3); `pattern`: index into `PATTERNS`.
        temperature_k, emissivity, glow, texture: (N,).
        noise: (N,) in 0..1, fixed to the surface.
    """

    hit: NDArray[np.bool_]
    distance: Float64
    point: Float64
    normal: Float64
    rays: Float64
    albedo: Float64
    pattern: NDArray[np.int64]
    temperature_k: Float64
    emissivity: Float64
    glow: Float64
    texture: Float64
    noise: Float64

    @staticmethod
    def of(scene: Scene, hits: Hits, eye: Float64, rays: Float64) -> Surface:
        """Look up the materials of what was hit."""
        rows: list[tuple[float, ...]] = []
        for _, geom in scene.geoms:
            m = geom.material
            look = (*m.albedo, PATTERNS.index(m.pattern))
            rows.append((*look, m.temperature_k, m.emissivity, m.glow, m.texture))
        table = np.array([*rows, (0,) * 8])[hits.geom]
        kelvin, emissivity, glow, texture = table[:, 4:].T
        hit = hits.geom >= 0
        distance = np.where(hit, hits.distance, 1.0)
        point = eye + rays * distance[:, None]
        return Surface(
            hit,
            distance,
            point,
            hits.normal,
            rays,
            table[:, :3],
            table[:, 3].astype(np.int64),
            kelvin,
            emissivity,
            glow,
            texture,
            _surface_noise(point),
        )


def _hash(cells: NDArray[np.int64]) -> Float64:
    """A fixed pseudo-random number in 0..1 for integer cells (N, 3)."""
    mixed = (cells * np.array([73856093, 19349663, 83492791])).sum(axis=1)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & 0xFFFF) / 65535.0


def _surface_noise(point: Float64) -> Float64:
    coarse = _hash(np.floor(point / 0.45).astype(np.int64))
    fine = _hash(np.floor(point / 0.09).astype(np.int64))
    return 0.5 * coarse + 0.5 * fine


def _patterned(surface: Surface, night: bool) -> tuple[Float64, Float64]:
    """Albedo (N, 3) and glow (N,) with the surface patterns applied."""
    albedo = surface.albedo * (1 + surface.texture[:, None] * (2 * surface.noise[:, None] - 1))
    glow = surface.glow.copy()
    x, y, z = surface.point.T
    along = np.where(np.abs(surface.normal[:, 0]) > 0.5, y, x)
    is_brick = surface.pattern == PATTERNS.index("bricks")
    row = np.floor(z / 0.25)
    seam = (np.mod(z, 0.25) < 0.03) | (np.mod(along + 0.3 * np.mod(row, 2), 0.6) < 0.03)
    flat = surface.normal[:, 2] > 0.9
    slab = (np.mod(x, 1.2) < 0.04) | (np.mod(y, 1.2) < 0.04)
    albedo[is_brick & np.where(flat, slab, seam)] *= 0.7
    is_wall = (surface.pattern == PATTERNS.index("windows")) & ~flat
    pane = (np.mod(along, 2.4) > 0.7) & (np.mod(along, 2.4) < 1.8)
    pane &= (np.mod(z, 2.8) > 0.9) & (np.mod(z, 2.8) < 2.2)
    cell = np.column_stack([np.floor(along / 2.4), np.floor(z / 2.8), np.floor(y / 30)])
    chance = _hash(cell.astype(np.int64))
    albedo[is_wall & pane] = [0.16, 0.19, 0.24]
    lit = is_wall & pane & (chance < 0.3)
    if night:
        glow[lit] = 0.5 + 0.8 * chance[lit] / 0.3
    on_road = surface.pattern == PATTERNS.index("markings")
    dash = (np.abs(y) < 0.08) & (np.mod(x, 6.0) < 3.0)
    edge = np.abs(np.abs(y) - 3.9) < 0.06
    zebra = (np.mod(x, 45.0) < 3.0) & (np.mod(y, 1.0) < 0.5) & (np.abs(y) < 3.8)
    albedo[on_road & (dash | edge | zebra)] = [0.75, 0.75, 0.72]
    return albedo, glow


def _sunlight(scene: Scene, caster: RayCaster, surface: Surface) -> Float64:
    """(N,) sunlight on the surface, 0 in shadow.

    Shadow rays start at one far point towards the sun, so that a single call casts them all.
    """
    direction = np.array(scene.weather.sun_direction)
    facing = (surface.normal @ direction).clip(0)
    lit = np.flatnonzero(surface.hit & (facing > 0) & (surface.distance < 120))
    out = np.zeros(len(facing))
    if lit.size:
        sun = np.array(scene.ego_position) + direction * SUN_DISTANCE_M
        to_point = surface.point[lit] - sun
        length = np.linalg.norm(to_point, axis=1)
        first = caster.cast(sun, to_point / length[:, None]).distance
        out[lit] = facing[lit] * (first > length - 0.08)
    far = surface.hit & (surface.distance >= 120)
    out[far] = facing[far]
    return out


def _lamps(scene: Scene, surface: Surface) -> Float64:
    """(N, 3) light of the street lamps near the ego vehicle and of its headlights."""
    light = np.zeros_like(surface.point)
    ego = np.array(scene.ego_position)
    for lamp in scene.lights:
        ahead = lamp.position[0] - ego[0]
        if scene.lit_around:
            if math.hypot(ahead, lamp.position[1] - ego[1]) > LAMPS_WITHIN_M:
                continue
        elif not -15 < ahead < 70:
            continue
        offset = np.array(lamp.position) - surface.point
        squared = (offset**2).sum(axis=1)
        facing = (surface.normal * offset).sum(axis=1).clip(0) / np.sqrt(squared + 1e-6)
        light += np.outer(facing / (1 + squared / (lamp.reach * 0.3) ** 2), lamp.strength) * 0.3
    if scene.weather.headlights:
        offset = surface.point - (ego + np.array([0.5, 0, 0.7]))
        squared = (offset**2).sum(axis=1) + 1e-6
        outward = offset / np.sqrt(squared)[:, None]
        c, s = np.cos(scene.ego_yaw), np.sin(scene.ego_yaw)
        beam = (outward @ np.array([c, s, -0.03])).clip(0) ** 40
        facing = (-(surface.normal * outward).sum(axis=1)).clip(0)
        light += ((0.25 + facing) * beam * 60 / (squared + 40))[:, None] * [1.0, 0.97, 0.9]
    return light


def _sky(scene: Scene, rays: Float64) -> Float64:
    day = scene.weather.daylight
    up = rays[:, 2:3].clip(0, 1)
    blue = np.array([0.45, 0.62, 0.9]) * (1 - up) ** 0.5 + np.array([0.2, 0.4, 0.8]) * up
    haze = np.exp(-up * 6)
    clouds = np.sin(rays[:, :1] * 9 + rays[:, 1:2] * 7) * np.sin(rays[:, 1:2] * 13 + 2)
    blue = blue * (1 - 0.5 * haze) + 0.45 * haze + 0.12 * clouds.clip(0)
    clear = blue * day + np.array([0.02, 0.022, 0.035]) * (1 - day) * (1 + 2 * haze)
    cover = scene.weather.overcast
    return clear * (1 - cover) + np.array([0.6, 0.62, 0.64]) * (day + 0.03) * cover


def shade(
    scene: Scene,
    caster: RayCaster,
    surface: Surface,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """The color image (H, W, 3) uint8 of what the camera's rays met."""
    weather = scene.weather
    albedo, glow = _patterned(surface, weather.night)
    light = np.full_like(surface.point, 0.006)
    sky_view = 0.5 + 0.5 * surface.normal[:, 2:3]
    light += weather.daylight * sky_view * np.array([0.42, 0.47, 0.55])
    sunshine = weather.daylight * (1 - weather.overcast)
    if sunshine > 0.15:
        sun = _sunlight(scene, caster, surface)
        light += sunshine * sun[:, None] * np.array([0.95, 0.9, 0.8])
    if scene.lights or weather.headlights:
        light += _lamps(scene, surface)
    color = albedo * light + glow[:, None] * np.array([1.0, 0.93, 0.8])
    lost = surface.distance / 350.0 + surface.distance * weather.extinction
    haze = 1 - np.exp(-lost)[:, None]
    sky = _sky(scene, surface.rays)
    color = np.where(surface.hit[:, None], color * (1 - haze) + sky * haze, sky)
    return _expose(color.reshape(*size, 3), weather.daylight, rng)


def _expose(radiance: Float64, daylight: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A camera: auto exposure within limits, bloom, shot and read noise, gamma, 8 bit."""
    image = radiance.astype(np.float32)
    image += 0.05 * cv2.GaussianBlur(image.clip(0, 3), (0, 0), image.shape[1] / 60)
    gain = float(np.clip(0.38 / (image.mean() + 1e-4), 0.7, 1.3 + 1.2 * daylight))
    image = image * gain * np.float32(rng.uniform(0.85, 1.15))
    noise = 0.004 + 0.006 * gain * (1.5 - min(daylight, 1.0))
    shot = rng.standard_normal(image.shape, np.float32)
    image += shot * np.sqrt(noise**2 + 0.0006 * gain * image.clip(0, 2)).astype(np.float32)
    return (255 * image.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)

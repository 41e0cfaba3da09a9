"""How LiDARs scan: which rays they fire when, and what comes back of them through the air.

A scan takes a tenth of a second, half of it before its stamp and half behind.  Spinning LiDARs begin
behind the vehicle and turn to the left, so that they look ahead at the stamp.  Others, of the rosette kind,
deflect the beam by two prisms that turn at rates without a common period: no scan repeats the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.sim.raycast import Hits
from perception.sim.scene import Weather
from perception.sim.sensors import BEAM_PATTERNS, BeamPattern, beam_rays

Float64 = NDArray[np.float64]

SCAN_S = 0.1
SECTORS = 36
"""A spinning LiDAR fires those rays at once that lie in one of so many parts of a turn."""

FAINTEST = 0.02
"""What a surface must send back to be seen at 30 m, relative to a white one that the ray meets head-on;
it grows with the square of the distance."""

LOST = 0.01
_NEAREST_M = 0.5

# How much of a near droplet's echo is taken for a return, by what is in the air.  Chosen so that in fog of
# 50 m visibility 15 % of the rays, and in rain of 20 mm/h 3 %, end near the sensor; not fitted to a sensor.
_FOG_CLUTTER, _RAIN_CLUTTER, _CROSSOVER_M = 0.8, 3.0, 3.0


@dataclass(frozen=True)
class RosettePattern:
    """A LiDAR with two turning prisms.

    Attributes:
        half_angle_deg: of the cone that it sees.
        turns_hz: of the prisms, negative for the other direction.
        rays_per_s: so many.
        reach_m, range_noise_m: as of `BeamPattern`.
    """

    half_angle_deg: float
    turns_hz: tuple[float, float]
    rays_per_s: int
    reach_m: float
    range_noise_m: float = 0.02


Pattern = BeamPattern | RosettePattern

SCAN_PATTERNS: dict[str, Pattern] = {
    **BEAM_PATTERNS,
    # Field of view and rate of a Livox Mid-40 by its data sheet; turns of the prisms (7294 and -4664 a
    # minute) by Brazeal et al. 2021, "A rigorous observation model for the Risley prism-based Livox
    # Mid-40 lidar sensor".
    "mid40": RosettePattern(19.2, (7294 / 60, -4664 / 60), 100_000, 130.0),
}


@dataclass(frozen=True)
class Firing:
    """Rays that are fired at one time.

    Attributes:
        seconds: from the scan's stamp, -0.05 to 0.05.
        rays: (N, 3) float64 unit vectors in the LiDAR's frame.
        rings: (N,) int64, the beam of each; 0 where there is one.
    """

    seconds: float
    rays: Float64
    rings: NDArray[np.int64]


def firings(pattern: Pattern, stamp_s: float) -> Iterator[Firing]:
    """The rays of one scan, in order of time.

    Args:
        pattern: of the LiDAR.
        stamp_s: when the scan is half over; a rosette goes on where the scan before left it.
    """
    if isinstance(pattern, RosettePattern):
        yield from _rosette(pattern, stamp_s)
        return
    rays, rings = beam_rays(pattern)
    turn = np.arctan2(rays[:, 1], rays[:, 0]) / (2 * np.pi) + 0.5
    sector = (turn * SECTORS).astype(np.int64).clip(0, SECTORS - 1)
    for i in range(SECTORS):
        own = sector == i
        yield Firing(((i + 0.5) / SECTORS - 0.5) * SCAN_S, rays[own], rings[own])


def _rosette(pattern: RosettePattern, stamp_s: float) -> Iterator[Firing]:
    count = round(pattern.rays_per_s * SCAN_S)
    offsets = (np.arange(count) + 0.5) / pattern.rays_per_s - SCAN_S / 2
    first, second = (2 * np.pi * hz * (stamp_s + offsets) for hz in pattern.turns_hz)
    # Small prisms: their deflections, of one size, add up as vectors.
    across = (np.cos(first) + np.cos(second)) / 2 * np.radians(pattern.half_angle_deg)
    up = (np.sin(first) + np.sin(second)) / 2 * np.radians(pattern.half_angle_deg)
    angle = np.hypot(across, up)
    share = np.sinc(angle / np.pi)
    rays = np.column_stack([np.cos(angle), across * share, up * share])
    for own in np.array_split(np.arange(count), SECTORS):
        seconds = float(offsets[own].mean())
        yield Firing(seconds, rays[own], np.zeros(len(own), np.int64))


@dataclass(frozen=True)
class Returns:
    """What came back of rays, all arrays with N rows.

    Attributes:
        kept: whether anything did.
        distance: metres, with noise.
        intensity: 0..1.
        body: whether it came from a surface, not from what is in the air.
    """

    kept: NDArray[np.bool_]
    distance: Float64
    intensity: Float64
    body: NDArray[np.bool_]


def returns(
    rays: Float64,
    hits: Hits,
    reflectivity: Float64,
    noise_m: float,
    weather: Weather,
    rng: np.random.Generator,
) -> Returns:
    """What comes back of rays.

    Air takes from light on the way there and back (`Weather.extinction`), so that far and dark surfaces
    are lost; droplets near the sensor give returns of their own.

    Args:
        rays: (N, 3) unit vectors in the world.
        hits: what they met.
        reflectivity: (N,) of that, 0..1.
        noise_m: standard deviation of distances in metres.
        weather: what is in the air.
        rng: for noise and droplets.
    """
    incidence = np.abs((rays * hits.normal).sum(axis=1))
    with np.errstate(invalid="ignore"):
        strength = reflectivity * incidence
        lost = ~np.isfinite(hits.distance) | (rng.random(len(rays)) < LOST)
        air = weather.extinction
        through = strength * np.exp(-2 * air * hits.distance) if air else strength
        lost |= through < FAINTEST * (hits.distance / 30) ** 2
    distance = hits.distance + rng.normal(0, noise_m, len(rays))
    kept = ~lost & (distance > _NEAREST_M)
    intensity = through.clip(0, 1)
    body = kept.copy()
    if air:
        near = _droplets(len(rays), weather, rng)
        first = near < np.where(np.isfinite(hits.distance), hits.distance, np.inf)
        distance = np.where(first, near, distance)
        intensity = np.where(first, rng.uniform(0.0, 0.1, len(rays)), intensity)
        kept, body = kept | first, kept & ~first
    return Returns(kept, distance, intensity, body)


def _droplets(count: int, weather: Weather, rng: np.random.Generator) -> Float64:
    """Where the first droplet that a ray sees is, (N,) metres, infinity for none."""
    clutter = _FOG_CLUTTER if np.isfinite(weather.visibility_m) else _RAIN_CLUTTER
    r = np.linspace(_NEAREST_M, 30.0, 600)
    # An echo falls with the square of the distance, but nearer than the crossover the receiver sees
    # only part of the beam.
    seen = np.where(r < _CROSSOVER_M, 1.0, (_CROSSOVER_M / r) ** 2)
    rate = clutter * weather.extinction * seen * np.exp(-2 * weather.extinction * r)
    many = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(r))])
    drawn = rng.exponential(1.0, count)
    return np.where(drawn < many[-1], np.interp(drawn, many, r), np.inf)

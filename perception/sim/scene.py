"""What a simulated scene consists of: bodies of primitive shapes with materials."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from perception.data.base import ClassInfo

Shape = Literal["box", "sphere", "ellipsoid", "cylinder", "capsule", "plane"]
Vector = tuple[float, float, float]

SEG_CLASSES = (
    ClassInfo(0, "road", (110, 90, 120)),
    ClassInfo(1, "sidewalk", (230, 150, 220)),
    ClassInfo(2, "building", (120, 120, 120)),
    ClassInfo(3, "vegetation", (90, 160, 60)),
    ClassInfo(4, "pole", (240, 220, 90)),
    ClassInfo(5, "person", (230, 60, 70)),
    ClassInfo(6, "vehicle", (60, 140, 240)),
    ClassInfo(7, "sky", (120, 190, 240)),
)
DET_CLASSES = (ClassInfo(0, "person", (230, 60, 70)), ClassInfo(1, "vehicle", (60, 140, 240)))
ROAD, SIDEWALK, BUILDING, VEGETATION, POLE, PERSON, VEHICLE, SKY = range(8)
DETECTED = {PERSON: 0, VEHICLE: 1}
"""Detection class by semantic class."""

OBJECT_CLASSES = (
    ClassInfo(0, "person", (230, 60, 70)),
    ClassInfo(1, "car", (60, 140, 240)),
    ClassInfo(2, "truck", (150, 90, 220)),
    ClassInfo(3, "cyclist", (250, 170, 40)),
)
"""Of `surround` recordings, whose vehicles are told apart; semantically a cyclist is a person."""
OBJECT_PERSON, OBJECT_CAR, OBJECT_TRUCK, OBJECT_CYCLIST = range(4)


@dataclass(frozen=True)
class Material:
    """How a surface looks to each sensor.

    Attributes:
        albedo: diffuse reflectance in R, G, B, 0..1.
        texture: strength of random albedo variation, 0..1.
        pattern: `plain`, `bricks`, `windows` or `markings`.
        temperature_k: kelvin.
        emissivity: in long-wave infrared, 0..1.
        reflectivity: at the LiDAR's wavelength, 0..1.
        glow: light that it gives off itself, relative to white in daylight.
    """

    albedo: Vector
    texture: float = 0.1
    pattern: str = "plain"
    temperature_k: float = 288.0
    emissivity: float = 0.95
    reflectivity: float = 0.4
    glow: float = 0.0


@dataclass(frozen=True)
class Geom:
    """A primitive in its body's frame.

    Attributes:
        shape: MuJoCo's primitive of that name.
        size: half sizes in metres, as MuJoCo takes them (capsule and cylinder: radius, half length).
        position: metres.
        material: its surface.
        axis: for capsules and cylinders, the direction of the long side: `x`, `y` or `z`.
    """

    shape: Shape
    size: tuple[float, ...]
    position: Vector
    material: Material
    axis: str = "z"


@dataclass(frozen=True)
class Body:
    """An object: geoms that move together.

    Attributes:
        label: semantic class.
        geoms: its parts.
        position: metres in the world (x along the street, y left, z up; ground at 0).
        yaw: radians around z.
        velocity: metres per second in the world.
        extent: length, width, height of its 3D box in metres, (0, 0, 0) where it has none.
        object_class: place in `OBJECT_CLASSES`, -1 of what is no object, or in a scene that does not
            tell them apart.
    """

    label: int
    geoms: tuple[Geom, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    extent: Vector = (0.0, 0.0, 0.0)
    object_class: int = -1

    def at(self, seconds: float) -> Body:
        """The body after it has moved for some time."""
        (x, y, z), (along, across) = self.position, self.velocity
        return replace(self, position=(x + along * seconds, y + across * seconds, z))


@dataclass(frozen=True)
class Light:
    """A lamp: position in metres, reach in metres, and RGB strength."""

    position: Vector
    reach: float
    strength: Vector


@dataclass(frozen=True)
class Weather:
    """Light, temperature, and what is in the air.

    Attributes:
        daylight: 1 = noon, 0 = night.
        sun_azimuth, sun_elevation: direction of the sun in radians.
        air_k: temperature of the air in kelvin.
        headlights: the ego vehicle's headlights are on.
        overcast: share of the sun that clouds hide, 0..1.
        visibility_m: meteorological visibility in fog, metres; infinite without.
        rain_mm_h: rate of rain, millimetres an hour.
    """

    daylight: float = 1.0
    sun_azimuth: float = 0.8
    sun_elevation: float = 0.7
    air_k: float = 288.0
    headlights: bool = False
    overcast: float = 0.0
    visibility_m: float = math.inf
    rain_mm_h: float = 0.0

    @property
    def extinction(self) -> float:
        """What a metre of air takes from light, 1/m.

        Fog: by Koschmieder's law for a contrast of 5 %.  Rain: 1.076 R^0.67 dB/km, Carbonneau and
        Wisely 1998, "Opportunities and challenges for optical wireless".
        """
        fog = -math.log(0.05) / self.visibility_m
        return fog + 1.076e-3 * self.rain_mm_h**0.67 / (10 * math.log10(math.e))

    @property
    def sun_direction(self) -> Vector:
        """Unit vector towards the sun."""
        flat = math.cos(self.sun_elevation)
        return (
            flat * math.cos(self.sun_azimuth),
            flat * math.sin(self.sun_azimuth),
            math.sin(self.sun_elevation),
        )

    @property
    def night(self) -> bool:
        """Too dark to see without lamps."""
        return self.daylight < 0.25


@dataclass(frozen=True)
class Scene:
    """Bodies, lamps and weather at one moment, with the ego vehicle's pose.

    With `lit_around`, lamps on all sides of the vehicle give light, otherwise those ahead along x.
    """

    bodies: tuple[Body, ...]
    weather: Weather
    lights: tuple[Light, ...] = ()
    ego_position: Vector = (0.0, 0.0, 0.0)
    ego_yaw: float = 0.0
    seed: int = 0
    lit_around: bool = False

    @property
    def geoms(self) -> list[tuple[int, Geom]]:
        """All geoms with the index of their body, in ray-casting order."""
        return [(i, g) for i, body in enumerate(self.bodies) for g in body.geoms]

"""Which measured points a robot must not drive into: what their classes and the ground say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError, names_hint
from perception.files.text import read_yaml
from perception.geometry.plane import fit_plane
from perception.tasks.points import LabeledPoints
from perception.tasks.spec import ClassSpec

IGNORE, TRAVERSABLE, OBSTACLE = range(3)
ROLES = ("ignore", "traversable", "obstacle")
"""What a class is to who drives, by the numbers in `ClassRoles.table`."""

OTHERS = "others"

COMMON = {
    TRAVERSABLE: (
        "floor",
        "ground",
        "road",
        "sidewalk",
        "lane",
        "pavement",
        "rug",
        "carpet",
        "floor_mat",
    ),
    IGNORE: ("sky", "ceiling"),
}
"""Roles that classes of these names have where nobody says other ones; all others are obstacles."""


@dataclass(frozen=True)
class ClassRoles:
    """What each class is to who drives.

    Attributes:
        table: (256,) uint8 number in `ROLES` by class id; ids without a class are obstacles.
    """

    table: NDArray[np.uint8]

    @classmethod
    def parse(cls, content: Any, classes: Sequence[ClassSpec], where: str) -> ClassRoles:
        """Roles from lists of names of classes.

        Args:
            content: `obstacle`, `traversable` and `ignore`, each a list of names, and `others`, the role of
                classes in none of them (obstacle without it).
            classes: the bundle's.
            where: names the content in errors.

        Raises:
            ConfigError: another shape, an unknown or repeated class, an unknown role.
        """
        if not isinstance(content, Mapping):
            raise ConfigError("is no mapping of roles to classes", where=where)
        known = (*ROLES, OTHERS)
        for key in content:
            if key not in known:
                raise ConfigError(f"no role '{key}'", where=where, hint=names_hint(key, known))
        others = content.get(OTHERS, "obstacle")
        if others not in ROLES:
            hint = names_hint(others, ROLES)
            raise ConfigError(f"no role '{others}'", where=f"{where}: {OTHERS}", hint=hint)
        table = np.full(256, OBSTACLE, np.uint8)
        ids = {one.name: one.id for one in classes}
        table[list(ids.values())] = ROLES.index(others)
        given: dict[str, str] = {}
        for number, role in enumerate(ROLES):
            for name in _names(content.get(role), f"{where}: {role}"):
                if name not in ids:
                    hint = names_hint(name, ids)
                    raise ConfigError(f"no class '{name}'", where=f"{where}: {role}", hint=hint)
                if name in given:
                    line = f"class '{name}' is {given[name]} already"
                    raise ConfigError(line, where=f"{where}: {role}")
                given[name] = role
                table[ids[name]] = number
        return cls(table)

    @classmethod
    def common(cls, classes: Sequence[ClassSpec]) -> ClassRoles:
        """The roles of `COMMON`."""
        table = np.full(256, OBSTACLE, np.uint8)
        for number, names in COMMON.items():
            table[[one.id for one in classes if one.name in names]] = number
        return cls(table)

    @classmethod
    def read(cls, path: str | Path, classes: Sequence[ClassSpec]) -> ClassRoles:
        """Roles from a YAML file; see `parse`.

        Raises:
            ConfigError: also where the file cannot be read.
        """
        return cls.parse(read_yaml(path, error=ConfigError), classes, str(path))


def _names(value: Any, where: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError("is no list of names of classes", where=where)
    return value


@dataclass(frozen=True)
class ObstacleRules:
    """What makes a labeled point an obstacle.

    A point is one by its class's role; a traversable one is, too, where its label is less sure than
    `min_confidence`. The plane of the ground, fitted to points of traversable classes within
    `ground_range_m`, has the last word there: what lies on it is none, and what stands higher than `step_m`
    is one whatever its label, unless its class is ignored. Without a plane (uneven ground, too few points)
    labels decide alone.

    Attributes:
        roles: of the classes.
        min_confidence: 0..1.
        ground_m: metres from the plane that count as on it; 0: labels decide alone.
        step_m: metres above the plane.
        ground_range_m: metres from the sensor.
    """

    roles: ClassRoles
    min_confidence: float = 0.3
    ground_m: float = 0.05
    step_m: float = 0.2
    ground_range_m: float = 8.0

    def obstacles(self, points: LabeledPoints) -> LabeledPoints:
        """The obstacles among measured points."""
        keep = np.flatnonzero(self._stand_in_the_way(points))
        own = {f.name: getattr(points, f.name) for f in fields(points)}
        rows = {n: v[keep] for n, v in own.items() if isinstance(v, np.ndarray)}
        return replace(points, **rows)  # type: ignore[arg-type]

    def _stand_in_the_way(self, points: LabeledPoints) -> NDArray[np.bool_]:
        role = self.roles.table[points.labels]
        # Written so that a confidence that is no number is not sure.
        unsure = ~(points.confidence >= self.min_confidence)
        found: NDArray[np.bool_] = (role == OBSTACLE) | (unsure & (role == TRAVERSABLE))
        if self.ground_m <= 0:
            return found
        within = np.square(points.points).sum(axis=1) <= self.ground_range_m**2
        ground = within & (role == TRAVERSABLE) & ~unsure
        plane = fit_plane(points.points[ground], self.ground_m)
        if plane is None:
            return found
        height = plane.height(points.points)
        found[within & (np.abs(height) <= self.ground_m)] = False
        found |= within & (height > self.step_m) & (role != IGNORE)
        return found

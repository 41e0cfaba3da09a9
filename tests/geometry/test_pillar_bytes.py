"""Pillars are the same to the last bit as they were when the networks that are shipped were trained.

Coordinates are multiples of 1/64 m and poses turn by quarters, so that sums and products are exact and the
bytes do not depend on the machine.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.geometry.grid import BirdseyeSpec
from perception.geometry.pillars import fill_pillars, on_ground
from perception.geometry.transforms import RigidTransform

SMALL = BirdseyeSpec(x=(-16, 9.6), y=(0, 12.8), z=(-1, 3), cell_m=0.4)
WIDE = BirdseyeSpec(x=(-102.4, 102.4), y=(-102.4, 102.4), cell_m=0.4)
QUARTER = RigidTransform(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([0.5, -0.25, 1.75]))
STILL = RigidTransform.identity()

CASES: dict[str, tuple[int, BirdseyeSpec, RigidTransform, Any, int, tuple[int, int]]] = {
    "empty": (0, SMALL, STILL, np.float32, 4, (40, 5)),
    "one": (1, SMALL, STILL, np.float32, 4, (40, 5)),
    "sparse": (900, SMALL, STILL, np.float32, 4, (2500, 5)),
    "too many": (9000, SMALL, QUARTER, np.float32, 4, (500, 3)),
    "one place": (4000, SMALL, QUARTER, np.float32, 4, (1, 1)),
    "blocks": (150_000, SMALL, QUARTER, np.float32, 4, (1500, 12)),
    "wide": (60_000, WIDE, QUARTER, np.float32, 4, (6000, 12)),
    "doubles": (20_000, SMALL, QUARTER, np.float64, 4, (1000, 12)),
    "no intensity": (5000, SMALL, QUARTER, np.float32, 3, (1000, 12)),
    "more fields": (5000, WIDE, STILL, np.float32, 6, (1000, 12)),
}

SHA256 = {
    "empty": "1fc173056f42eedb",
    "one": "1fc173056f42eedb",
    "sparse": "06bd59b3e419c9e1",
    "too many": "07950f01a20eda90",
    "one place": "69d9b54c6b6f97f8",
    "blocks": "77b51e119546d480",
    "wide": "7e83436700918b6b",
    "doubles": "9664de3ba2462768",
    "no intensity": "a8270fa845ebab83",
    "more fields": "ddaeb347148682f5",
}


def cloud(count: int, kind: Any, fields: int, seed: int, near: float) -> NDArray[Any]:
    """Points of which a few are no returns, most near the middle."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, near, (count, fields)).round(6)
    points[:, 2] /= 8
    points[:, 3:] = rng.random((count, fields - 3)) * 1.25
    points = np.round(points * 64) / 64
    points[rng.random(count) < 0.03] = 0
    points[rng.random(count) < 0.01, 0] = np.nan
    points[rng.random(count) < 0.01, -1] = np.inf
    return points.astype(kind)


def digest(name: str) -> str:
    """Of all that becomes of one case's points."""
    count, spec, pose, kind, fields, (most, deep) = CASES[name]
    points = cloud(count, kind, fields, len(name), 6.0 if spec is SMALL else 45.0)
    ground, fallen = on_ground(points, pose, spec)
    pillars = np.full((most, deep, 8), np.nan, np.float32)
    cells = np.full(most, -7, np.int32)
    filled = fill_pillars(ground, spec, pillars, cells, fallen)
    found = hashlib.sha256(f"{filled} {len(ground)}".encode())
    for array in (ground, pillars, cells):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", CASES)
def test_pillars_are_what_they_were(name: str) -> None:
    assert digest(name) == SHA256[name]

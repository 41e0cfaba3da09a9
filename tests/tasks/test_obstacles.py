"""Which measured points a robot must not drive into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.errors import ConfigError
from perception.runtime.bundle import Bundle
from perception.tasks.obstacles import ROLES, ClassRoles, ObstacleRules
from perception.tasks.points import LabeledPoints
from perception.tasks.spec import ClassSpec

ROOT = Path(__file__).parents[2]
NAMES = ("floor", "person", "ceiling", "box")
CLASSES = tuple(ClassSpec(id=i, name=n, color=(i, 0, 0)) for i, n in enumerate(NAMES))
ROLES_HERE = ClassRoles.common(CLASSES)


def _points(rows: list[tuple[float, float, float, int, float]]) -> LabeledPoints:
    table = np.array(rows, np.float32).reshape(-1, 5)
    zeros = np.zeros(len(table), np.int32)
    return LabeledPoints(
        points=table[:, :3],
        optical=table[:, :3],
        column=np.arange(len(table), dtype=np.int32),
        row=zeros,
        labels=table[:, 3].astype(np.uint8),
        confidence=table[:, 4],
        sensor="lidar",
    )


def _ground(tilt: float = 0.0) -> list[tuple[float, float, float, int, float]]:
    """Sure floor, a metre below the sensor, on a lattice of 20 cm."""
    steps = np.arange(1.0, 6.0, 0.2)
    return [(x, y, -1.0 + tilt * x, 0, 0.9) for x in steps for y in steps - 3.5]


def test_roles_of_common_names() -> None:
    found = [ROLES[ROLES_HERE.table[i]] for i in range(4)]
    assert found == ["traversable", "obstacle", "ignore", "obstacle"]
    assert ROLES[ROLES_HERE.table[255]] == "obstacle"  # without a label


@pytest.mark.parametrize("tilt", [0.0, 0.15])
def test_labels_and_ground_together(tilt: float) -> None:
    things = [
        (3.0, 0.0, -0.2 + 3 * tilt, 1, 0.9),  # a person
        (3.0, 1.0, -1.0 + 3 * tilt, 1, 0.9),  # floor that is called a person
        (3.0, 1.2, -0.3 + 3 * tilt, 0, 0.9),  # a box that is called floor
        (3.0, 1.4, 1.4 + 3 * tilt, 2, 0.9),  # the ceiling
        (3.0, 0.4, -0.9 + 3 * tilt, 0, 0.1),  # floor? too low to be sure of, too high to be it
        (3.0, 0.6, -1.0 + 3 * tilt, 0, 0.1),  # the same on the ground
        (3.0, 0.8, -0.9 + 3 * tilt, 0, float("nan")),
        (30.0, 0.8, -1.0 + 30 * tilt, 1, 0.9),  # beyond what is known of the ground
    ]
    ground = _ground(tilt)
    found = ObstacleRules(ROLES_HERE).obstacles(_points(ground + things))
    assert (found.column - len(ground)).tolist() == [0, 2, 4, 6, 7]
    assert len(found.points) == len(found.optical) == len(found.labels) == len(found.row) == 5
    assert found.sensor == "lidar"


def test_without_ground_labels_decide_alone() -> None:
    few = [(1.0, 0.0, 0.5, 0, 0.9), (1.0, 0.0, -1.0, 1, 0.9), (1.0, 0.0, 3.0, 2, 0.9)]
    assert ObstacleRules(ROLES_HERE).obstacles(_points(few)).column.tolist() == [1]
    rules = ObstacleRules(ROLES_HERE, ground_m=0.0)
    things = [(3.0, 1.0, -1.0, 1, 0.9), (3.0, 1.2, -0.3, 0, 0.9)]
    assert rules.obstacles(_points(_ground() + things)).labels.tolist() == [1]
    assert len(ObstacleRules(ROLES_HERE).obstacles(_points([])).points) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (["person"], "is no mapping"),
        ({"obstacles": ["person"]}, "did you mean 'obstacle'"),
        ({"obstacle": ["persn"]}, "did you mean 'person'"),
        ({"obstacle": "person"}, "is no list"),
        ({"obstacle": [3]}, "is no list"),
        ({"obstacle": ["person"], "ignore": ["person"]}, "already"),
        ({"ignore": ["box", "box"]}, "already"),
        ({"others": "maybe"}, "no role 'maybe'"),
        ({"others": ["ignore"]}, "no role"),
    ],
)
def test_wrong_roles_are_refused(content: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=words) as error:
        ClassRoles.read(file, CLASSES)
    assert "roles.yaml" in str(error.value)


def test_roles_of_a_file() -> None:
    content = {"traversable": ["box"], "ignore": None, "others": "ignore"}
    table = ClassRoles.parse(content, CLASSES, "here").table
    assert [ROLES[n] for n in table[:4]] == ["ignore", "ignore", "ignore", "traversable"]
    assert ROLES[table[4]] == "obstacle"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "ros2_ws/src/anysense_ros/config/nav2").glob("roles_*.yaml"))
)
def test_shipped_roles_fit_their_bundle(file: Path) -> None:
    manifest = Bundle.open(ROOT / "bundles" / file.stem.removeprefix("roles_")).manifest
    roles = ClassRoles.read(file, manifest.seg_classes)
    found = {ROLES[roles.table[c.id]] for c in manifest.seg_classes}
    assert {"obstacle", "traversable"} <= found

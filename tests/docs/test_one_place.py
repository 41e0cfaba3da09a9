"""What is known of a kind of sensor, and of a task, lies in one place: their names stand nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.sensors.names import OURS
from perception.tasks.registry import TASKS

ROOT = Path(__file__).parents[2]
HOMES = {
    "kind": (
        "perception/sensors/",
        "perception/sim/",
        "perception/data/kitti.py",
        "perception/data/msrs.py",
        "perception/data/nyuv2.py",
        "perception/data/rgbt_person.py",
        "perception/importers/",
        "perception/runtime/schema1.py",
        "calibration/kitti.py",
        "perception/models/zoo/",
        "perception/models/elastic.py",
        "perception/search/space.py",
    ),
    "task": (
        "perception/tasks/",
        "perception/training/tasks/",
        "ros2_ws/src/anysense_ros/anysense_ros/publishing/",
        "perception/data/folder.py",
        "perception/importers/coco.py",
        "perception/runtime/schema1.py",
        "perception/models/zoo/",
    ),
}
"""Where the names may stand: their own rooms, the readers and importers of data sets, the simulator, old
files, models whose publications are about certain kinds, and where `depth` is that of a network."""

OTHERS = {"qos.depth", "boxes3d of frame.py", "boxes3d_frame of layout.py",
          "lidar_to_camera of extrinsics.py", "lidar_to_camera of targetless.py"}  # fmt: skip
"""What is meant otherwise: a queue's depth, a folder's reserved name and a field of its file, a transform as
its users call it."""


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file that a program reads: no docstrings, no messages of several words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.lineno, node.value


def files(homes: tuple[str, ...]) -> list[Path]:
    tops = ("perception", "export", "calibration", "ros2_ws/src")
    found = [p for top in tops for p in sorted((ROOT / top).rglob("*.py"))]
    return [p for p in found if not p.relative_to(ROOT).as_posix().startswith(homes)]


@pytest.mark.parametrize(
    ("what", "names"), [("kind", OURS), ("task", tuple(n for n in TASKS.own if n != "points"))]
)
def test_names_stand_in_their_homes_alone(what: str, names: tuple[str, ...]) -> None:
    name = re.compile(rf"(.*[._:+/ ])?({'|'.join(names)})([._:+/].*)?$")
    found = [
        f"{path.relative_to(ROOT)}:{line} {text!r}"
        for path in files(HOMES[what])
        for line, text in spoken(path)
        if " " not in text and name.match(text) and not {text, f"{text} of {path.name}"} & OTHERS
    ]
    assert not found, "\n".join(found)

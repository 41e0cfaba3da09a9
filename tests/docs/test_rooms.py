"""The rooms of docs/architecture.md: the table is the one of the code, and walls are where it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import rooms


def test_the_table_is_that_of_the_code() -> None:
    assert rooms.in_page() == rooms.table(), "python tests/docs/rooms.py writes it anew"


def test_every_file_is_in_a_room() -> None:
    assert not [str(path) for room, path in rooms.sources() if not room]


@pytest.mark.parametrize("room", rooms.ROOMS)
def test_a_room_imports_only_those_that_it_may_and_all_of_them(room: str) -> None:
    used: dict[str, str] = {}
    for own, path in rooms.sources():
        if own == room:
            for module, line in rooms.imports(path):
                if (room, rooms.room_of(module)) not in rooms.LAZY:
                    used.setdefault(rooms.room_of(module), f"{path.name}:{line} {module}")
    used.pop("", None)
    used.pop(room, None)
    may = rooms.allowed(room)
    assert not {other: where for other, where in used.items() if other not in may}
    if rooms.ROOMS[room] != rooms.FREE:
        assert not may - set(used), "it imports these no more"
        below = list(rooms.ROOMS)[: list(rooms.ROOMS).index(room)]
        assert may <= set(below), "a room imports none above it"


@pytest.mark.parametrize(
    ("package", "places"), [("torch", rooms.TORCH), ("rclpy", ("ros2_ws", "benchmarks"))]
)
def test_heavy_packages_are_imported_where_they_may_be(
    package: str, places: tuple[str, ...]
) -> None:
    found = {
        f"{path.relative_to(rooms.ROOT)}:{line}"
        for room, path in rooms.sources()
        for module, line in rooms.imports(path)
        if module.split(".")[0] == package and room not in places
    }
    assert not found


def test_ray_is_imported_by_one_file() -> None:
    found = {
        path.relative_to(rooms.ROOT).as_posix()
        for _, path in rooms.sources()
        for module, _ in rooms.imports(path)
        if module.split(".")[0] == "ray"
    }
    assert found == {"perception/fleet/ray_workers.py"}

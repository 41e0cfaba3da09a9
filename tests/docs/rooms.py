"""The rooms of the project: what lies in each, and which others it may import.

`python tests/docs/rooms.py` writes the table of docs/architecture.md anew: what is in a room is the first
paragraph of its docstring, what it may import is `ROOMS`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
START, END = "<!-- rooms -->\n", "<!-- end of rooms -->\n"

ROOMS: dict[str, str] = {
    "perception/errors": "",
    "perception/extras": "errors",
    "perception/progress": "",
    "perception/plugins": "errors extras",
    "perception/files": "errors",
    "perception/sensors/names": "plugins",
    "perception/frame": "errors sensors/names",
    "perception/geometry": "errors files sensors/names frame",
    "perception/adapters": "errors files frame geometry",
    "perception/sensors": "errors plugins files sensors/names frame geometry adapters",
    "perception/preprocess": "errors sensors/names frame geometry sensors",
    "perception/corruptions": "errors files frame geometry sensors",
    "perception/data/base": "errors plugins frame geometry sensors",
    "perception/metrics": "errors data/base",
    "perception/tasks": "errors plugins files frame geometry sensors data/base metrics",
    "calibration": "errors files sensors/names frame geometry adapters sensors",
    "perception/data": (
        "errors plugins files sensors/names frame "
        "geometry adapters sensors data/base tasks calibration"
    ),
    "perception/runtime": (
        "errors extras plugins files sensors/names frame geometry sensors preprocess tasks"
    ),
    "perception/evaluation": (
        "errors files frame geometry sensors corruptions data/base metrics tasks runtime"
    ),
    "perception/bags": (
        "errors extras files frame geometry adapters sensors corruptions data/base runtime"
    ),
    "perception/importers": (
        "errors files frame geometry adapters sensors data/base calibration data bags"
    ),
    "perception/viz": (
        "errors extras files frame geometry sensors preprocess data/base metrics tasks calibration data "
        "runtime evaluation"
    ),
    "perception/sim": "errors extras frame geometry data/base data",
    "perception/demo": (
        "errors files sensors/names frame sensors "
        "corruptions data/base tasks runtime evaluation viz"
    ),
    "perception/models": (
        "errors extras plugins files frame geometry sensors preprocess data/base tasks"
    ),
    "perception/training": (
        "errors progress plugins files frame geometry adapters sensors preprocess corruptions "
        "data/base metrics tasks calibration data runtime models"
    ),
    "export": (
        "errors files frame geometry sensors preprocess data/base tasks runtime evaluation models training"
    ),
    "perception/search": "errors files frame data/base tasks data runtime models training export",
    "perception/fleet": (
        "errors extras files frame geometry adapters sensors data/base tasks data runtime evaluation bags "
        "importers"
    ),
    "perception/cli": "everything",
    "anysense": "cli",
    "ros2_ws": "everything",
    "benchmarks": "everything",
}
"""Of each room those that it may import, in `perception/` unless it is said; lowest room first."""

LAZY = {("perception/sensors/names", "perception/sensors")}
"""A room that asks one above it within a function, as a kind's record is imported when it is needed."""

FREE = "everything"
OUTSIDE = {
    "ros2_ws": "ROS 2 messages and nodes: topics, parameters, lifecycle, diagnostics",
    "benchmarks": "What is measured: speed, accuracy, reactions, mutations, pictures of faults",
}
"""What is in rooms that are no packages."""

TORCH = (
    "perception/models",
    "perception/training",
    "perception/search",
    "perception/cli",
    "export",
    "benchmarks",
)
"""Where PyTorch may be imported; by the command line within a function only."""


def folder(room: str) -> Path:
    """Where a room is: a file or a folder."""
    file = ROOT / f"{room}.py"
    return file if file.is_file() else ROOT / room


def sources() -> Iterator[tuple[str, Path]]:
    """All Python files with their rooms."""
    for top in ("perception", "export", "calibration", "anysense", "ros2_ws/src", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            if name != "perception/__init__":
                yield room_of(name), path


def room_of(name: str) -> str:
    """The room of a file or module, its name with slashes; empty for what is not the project's."""
    name = name.replace(".", "/")
    fitting = [r for r in ROOMS if name == r or name.startswith(f"{r}/")]
    return max(fitting, key=len, default="")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file imports, anywhere but for type checking, and the lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def allowed(room: str) -> set[str]:
    """The rooms that a room may import."""
    if ROOMS[room] == FREE:
        return set(ROOMS)
    outside = ("export", "calibration")
    return {n if n in outside else f"perception/{n}" for n in ROOMS[room].split()}


def table() -> str:
    """The table for docs/architecture.md."""
    lines = ["| room | what is in it | may import |", "|---|---|---|"]
    for room, may in ROOMS.items():
        place = folder(room)
        file = place if place.is_file() else place / "__init__.py"
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) if file.is_file() else ""
        what = OUTSIDE.get(room) or " ".join((text or "").split("\n\n")[0].split()).rstrip(".")
        lines.append(f"| `{room}` | {what} | {may.replace(' ', ', ') or 'nothing'} |")
    return "\n".join(lines) + "\n"


def in_page() -> str:
    """The table as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")

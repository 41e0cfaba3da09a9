"""Values that no file should hold where they end up, and plain content with some of them in it."""

from __future__ import annotations

import copy
import random
from typing import Any

STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 8, 32, 255, 256, 2**31, 2**63, 2**200, -0.0, 0.5, 1e-300, 1e300,
    float("nan"), float("inf"), "", "x", "../x", "/etc/passwd", "a\0b", "\x1b[31m", "[/red]", "é" * 300,
    [], [0], {}, {"a": 1}, "fuser.onnx", "rgb", "depth", ["rgb"], ["depth", "rgb"], "0" * 64, b"\xff",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(below, (*path, key))
    return found


def change_value(content: dict[str, Any], rng: random.Random) -> None:
    *above, last = rng.choice(places(content))
    place: Any = content
    for key in above:
        place = place[key]
    how = rng.random()
    if how < 0.15:
        del place[last]
    elif how < 0.3 and isinstance(place, dict):
        place[f"{last}_"] = place.pop(last)
    elif how < 0.4 and isinstance(place, list):
        place.append(copy.deepcopy(place[last]))
    else:
        place[last] = copy.deepcopy(rng.choice(STRANGE))

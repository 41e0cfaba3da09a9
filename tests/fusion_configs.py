"""The shipped configurations of fusion models: those that no other trainer takes."""

from __future__ import annotations

from pathlib import Path

import yaml

from perception.cli.train import TRAINERS

FOLDER = Path(__file__).parents[1] / "configs"


def is_fusion(path: Path) -> bool:
    found = yaml.safe_load(path.read_text("utf-8")).keys()
    return "preprocess" in found and not TRAINERS.keys() & found


EVERY = [path for path in sorted(FOLDER.rglob("*.yaml")) if is_fusion(path)]
TOP = [path for path in EVERY if path.parent == FOLDER]
GROUND = [path for path in TOP if "pillarbev" in path.read_text("utf-8")]
"""Those whose inputs lie on the ground."""

"""Rig files of AnySense themselves; see docs/data.md."""

from __future__ import annotations

from pathlib import Path

from calibration.formats.base import Content, Format, Options, Reading
from perception.geometry.rig import Rig, load_rig, save_rig


def _is_mine(content: Content) -> bool:
    return isinstance(content.tree, dict) and isinstance(content.tree.get("sensors"), dict)


def _read(content: Content, options: Options) -> Reading:
    return Reading(load_rig(content.path))


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    save_rig(rig, path)
    return [path], []


RIG = Format("rig", "AnySense's rig file", _is_mine, _read, _write)

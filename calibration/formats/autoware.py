"""Autoware's sensor_kit_calibration.yaml and sensors_calibration.yaml: frames, and where their children sit.

x, y, z in metres, roll, pitch, yaw in radians about fixed axes, as URDF's `origin`.  A camera's entry is its
body frame (`camera0/camera_link`, x forward); a LiDAR's is often the housing's (`velodyne_top_base_link`),
with the frame of its points in the model's own URDF.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.formats.base import (
    Content,
    Format,
    Options,
    Reading,
    first_camera,
    layout,
    losses,
    not_held,
    numbers,
    table,
    unknown,
)
from calibration.formats.frames import Link, Links
from calibration.formats.naming import name_of
from calibration.formats.rotations import OPTICAL, angles_of, rotation_of
from calibration.formats.urdf import losses_of_frames
from perception.errors import CalibrationError
from perception.files.listing import is_file
from perception.files.text import read_yaml
from perception.files.writing import write_yaml
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform

_TITLE = "Autoware"
_FIELDS = ("x", "y", "z", "roll", "pitch", "yaw")
_HOUSING = "_base_link"
_KIT = "sensor_kit_base_link"
FILES = ("sensors_calibration.yaml", "sensor_kit_calibration.yaml")


def _is_mine(content: Content) -> bool:
    if any(is_file(content.path / name) for name in FILES):
        return True
    tree = content.tree
    return (
        isinstance(tree, dict)
        and bool(tree)
        and all(
            isinstance(children, dict)
            and children
            and all(isinstance(c, dict) and {"x", "yaw"} <= c.keys() for c in children.values())
            for children in tree.values()
        )
    )


def _read(content: Content, options: Options) -> Reading:
    parts = {str(content.path): content.tree}
    if content.tree is None:
        found = [content.path / name for name in FILES if is_file(content.path / name)]
        parts = {str(path): read_yaml(path, error=CalibrationError) for path in found}
    remarks, links = list[str](), Links(str(content.path))
    for where, tree in parts.items():
        for parent, children in table(tree, where).items():
            for child, fields in table(children, f"{where}: {parent}"[:200]).items():
                place = f"{where}: {str(child)[:80]}"
                own = table(fields, place)
                remarks += unknown(own, _FIELDS, place)
                missing = [key for key in _FIELDS if key not in own]
                if missing:
                    raise CalibrationError(f"no entry '{missing[0]}'", where=place)
                x, y, z, *angles = numbers([own[key] for key in _FIELDS], (6,), place).tolist()
                turn = rotation_of(*angles)
                links.add(Link(str(parent), str(child), RigidTransform(turn, [x, y, z])))  # type: ignore[arg-type]
    found_rig = links.reading(remarks, options)
    housings = [
        name for name, own in found_rig.rig.sensors.items() if own.frame_id.endswith(_HOUSING)
    ]
    more = [
        f"{name}: {found_rig.rig.sensors[name].frame_id} may be the housing's frame; "
        "that of the points is in the model's URDF"
        for name in housings
    ]
    return Reading(found_rig.rig, (*found_rig.remarks, *more))


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    lines = [*losses(rig, _TITLE), *losses_of_frames(rig, placed, _TITLE)]
    children: dict[str, Any] = {}
    to_base, first = RigidTransform.identity(), first_camera(placed, rig)
    if not base:
        base = _KIT
        if first is not None:
            to_base = OPTICAL  # an optical frame, z forward, would be no base
            lines.append(f"the rig names no base: {_KIT} is {first.name}'s body frame")
    names = [one.name for one in placed if not one.is_camera and name_of(one.frame) != one.name]
    if names:
        lines.append(not_held("the name", names, _TITLE))
    frames = [
        one.name for one in placed if one.is_camera and one.frame != f"{one.name}/camera_link"
    ]
    if frames:
        lines.append(not_held("the optical frame's name", frames, _TITLE))
    for one in placed:
        if one.pose is None:
            continue
        frame = f"{one.name}/camera_link" if one.is_camera else one.frame
        pose = to_base @ one.pose
        pose = pose @ OPTICAL.inverse() if one.is_camera else pose
        values = [*pose.translation.tolist(), *angles_of(pose.rotation)]
        children[frame] = dict(zip(_FIELDS, values, strict=True))
    if not children:
        raise CalibrationError("the rig does not say where any sensor sits")
    if path.is_dir():
        path /= FILES["sensor_kit" in base]
    write_yaml(path, {base: children}, error=CalibrationError)
    return [path], lines


AUTOWARE = Format("autoware", "Autoware's sensor_kit_calibration", _is_mine, _read, _write)

"""nuScenes' tables `sensor.json` and `calibrated_sensor.json`.

`translation` in metres and `rotation` (a quaternion w, x, y, z) take points of the sensor's frame, of a
camera its optical frame, into the vehicle's.  Pictures have no distortion.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from calibration.formats.base import (
    Content,
    Format,
    Options,
    Reading,
    Seen,
    entry,
    layout,
    losses,
    not_held,
    numbers,
    rig_of,
    size_of,
    table,
    unknown,
)
from calibration.formats.naming import name_of
from perception.errors import CalibrationError
from perception.files.limits import MAX_ANNOTATION_BYTES
from perception.files.listing import is_file
from perception.files.made import make_folder
from perception.files.text import read_json
from perception.files.writing import write_json
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform
from perception.sensors.names import has_picture, kinds

_TITLE = "nuScenes"
PLACED, SENSORS, DATA = "calibrated_sensor.json", "sensor.json", "sample_data.json"
_BASE = "base_link"
_KNOWN = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic", "width", "height")


def _is_mine(content: Content) -> bool:
    if content.path.name in (PLACED, SENSORS):
        return True
    return content.tree is None and is_file(content.path / PLACED)


def _rows(path: Path, limit: int | None = None) -> list[dict[Any, Any]]:
    rows = (
        read_json(path, error=CalibrationError)
        if limit is None
        else read_json(path, limit=limit, error=CalibrationError)
    )
    if not isinstance(rows, list):
        raise CalibrationError("is no list", where=str(path))
    return [table(row, f"{path}[{i}]") for i, row in enumerate(rows)]


def _read(content: Content, options: Options) -> Reading:
    folder = content.path if content.tree is None else content.path.parent
    channels = {
        str(row.get("token")): (str(row.get("channel", "")), str(row.get("modality", "")))
        for row in _rows(folder / SENSORS)
    }
    remarks, seen, more = list[str](), dict[str, Seen](), dict[str, int]()
    sizes = _sizes(folder)
    unread: set[str] = set()
    for index, row in enumerate(_rows(folder / PLACED)):
        where = f"{folder / PLACED}[{index}]"
        unread |= {str(key) for key in row} - set(_KNOWN)
        token = str(entry(row, "sensor_token", where))
        if token not in channels:
            raise CalibrationError(f"there is no sensor '{token[:40]}'", where=where)
        channel, modality = channels[token]
        name = name_of(channel)
        if name in seen:
            more[name] = more.get(name, 1) + 1
            continue
        camera = kind = None
        if modality == "camera":
            camera, kind = (
                _camera(row, sizes.get(str(row.get("token"))), options, where),
                kinds()[0],
            )
        w, x, y, z = numbers(entry(row, "rotation", where), (4,), f"{where}: rotation").tolist()
        place = numbers(entry(row, "translation", where), (3,), f"{where}: translation")
        pose = RigidTransform.from_quaternion_xyzw((x, y, z, w), place)
        seen[name] = Seen(channel, camera, pose, name, kind or "")
    for name, count in more.items():
        remarks.append(f"{name}: {count} calibrations are there, the first is taken")
    remarks += unknown(dict.fromkeys(unread), (), str(folder / PLACED))
    return rig_of(list(seen.values()), _BASE, remarks, options)


def _sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """(width, height) of pictures by calibration, where the table of samples is there."""
    if not is_file(folder / DATA):
        return {}
    return {
        str(row.get("calibrated_sensor_token")): (row["width"], row["height"])
        for row in _rows(folder / DATA, MAX_ANNOTATION_BYTES)
        if row.get("width") and row.get("height")
    }


def _camera(
    row: dict[Any, Any], size: tuple[int, int] | None, options: Options, where: str
) -> CameraModel:
    k = numbers(entry(row, "camera_intrinsic", where), (3, 3), f"{where}: camera_intrinsic")
    if "width" in row and "height" in row:
        size = row["width"], row["height"]
    width, height = size or size_of(options, where)
    return CameraModel(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2])


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    lines = losses(rig, _TITLE)
    if not base:
        lines.append("the rig names no base: poses lead to the reference camera's optical frame")
    sensors, rows = [], []
    for one in placed:
        if one.pose is None:
            lines.append(f"{one.name} left out: the rig does not say where")
            continue
        camera = one.own.camera if one.is_camera else None
        token = hashlib.md5(one.name.encode(), usedforsecurity=False).hexdigest()
        modality = "camera" if has_picture(one.kind) else one.kind
        sensors.append({"token": token, "channel": one.name.upper(), "modality": modality})
        x, y, z, w = one.pose.quaternion_xyzw
        row: dict[str, Any] = {
            "token": hashlib.md5(f"{one.name} placed".encode(), usedforsecurity=False).hexdigest(),
            "sensor_token": token,
            "translation": one.pose.translation.tolist(),
            "rotation": [w, x, y, z],
            "camera_intrinsic": [] if camera is None else camera.matrix.tolist(),
        }
        if camera is not None:
            row |= {"width": camera.width, "height": camera.height}
            if camera.distortion:
                lines.append(not_held("distortion", [one.name], _TITLE))
        if modality == "camera" and one.kind != kinds()[0]:
            lines.append(not_held("the kind", [f"{one.name} ({one.kind})"], _TITLE))
        rows.append(row)
    frames = [one.name for one in placed if one.frame != one.name.upper()]
    if frames:
        lines.append(not_held("the frame's name", frames, _TITLE))
    make_folder(path)
    write_json(path / SENSORS, sensors, error=CalibrationError)
    write_json(path / PLACED, rows, error=CalibrationError)
    return [path / SENSORS, path / PLACED], lines


NUSCENES = Format("nuscenes", "nuScenes' tables", _is_mine, _read, _write)

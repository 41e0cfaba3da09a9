"""Kalibr's camchain.yaml: cameras `cam0`, `cam1`, .., each placed against the one before it.

`T_cn_cnm1` takes points of the camera before into this one's frame; `T_cam_imu` points of the IMU into the
camera's; both 4x4, metres, optical frames.  `timeshift_cam_imu` in seconds: IMU time = camera time + shift.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.formats.base import (
    Content,
    Format,
    Options,
    Placed,
    Reading,
    Seen,
    entry,
    first_camera,
    layout,
    losses,
    not_held,
    numbers,
    renamed,
    rig_of,
    table,
    unknown,
)
from calibration.formats.naming import name_of
from calibration.formats.nearest import nearest
from perception.errors import CalibrationError
from perception.files.writing import write_yaml
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform

_TITLE = "Kalibr"
_KNOWN = (
    "cam_overlaps", "camera_model", "distortion_coeffs", "distortion_model", "intrinsics",
    "resolution", "rostopic", "T_cn_cnm1", "T_cam_imu", "T_imu_cam", "timeshift_cam_imu",
)  # fmt: skip
_IMU = "imu"
_BENT = {
    "none": ("none", 0),
    "radtan": ("plumb_bob", 4),
    "radtan5": ("plumb_bob", 5),
    "radtan8": ("rational_polynomial", 8),
    "equidistant": ("equidistant", 4),
}
_PICTURES = re.compile(r"/(image(_raw|_color|_mono|_rect)*|compressed)$")


def _is_mine(content: Content) -> bool:
    tree = content.tree
    return isinstance(tree, dict) and any(
        isinstance(v, dict) and ("camera_model" in v or "T_cn_cnm1" in v or "T_cam_imu" in v)
        for k, v in tree.items()
        if re.fullmatch(r"cam\d+", str(k))
    )


def _read(content: Content, options: Options) -> Reading:
    where, remarks = str(content.path), list[str]()
    cameras = {str(k): v for k, v in content.tree.items() if re.fullmatch(r"cam\d+", str(k))}
    remarks += unknown(content.tree, list(cameras), where)
    names = sorted(cameras, key=lambda name: int(name[3:12]))
    fields = {name: table(cameras[name], f"{where}: {name}") for name in names}
    told = {name: _to_imu(own, f"{where}: {name}") for name, own in fields.items()}
    with_imu = any(one is not None for one in told.values())
    seen: list[Seen] = []
    before: RigidTransform | None = None
    for name in names:
        own, place = fields[name], f"{where}: {name}"
        remarks += unknown(own, _KNOWN, place)
        pose = told[name]
        if pose is None and "T_cn_cnm1" in own and seen:
            step = RigidTransform.from_matrix(
                numbers(own["T_cn_cnm1"], (4, 4), f"{place}: T_cn_cnm1")
            )
            pose = None if before is None else before @ step.inverse()
        before = pose if seen or with_imu else RigidTransform.identity()
        shift = float(numbers(own.get("timeshift_cam_imu", 0), (), f"{place}: timeshift_cam_imu"))
        if abs(shift) > 1e6:
            raise CalibrationError(f"timeshift_cam_imu is {shift:g} s", where=place)
        called = _sensor(own, name)
        seen.append(Seen(called, _camera(own, place), pose, called, offset_ns=round(shift * 1e9)))
    return rig_of(seen, _IMU if with_imu else "", remarks, options)


def _to_imu(own: dict[Any, Any], where: str) -> RigidTransform | None:
    """From the camera to the IMU; Kalibr's own field leads the other way."""
    if "T_cam_imu" in own:
        there = numbers(own["T_cam_imu"], (4, 4), f"{where}: T_cam_imu")
        return RigidTransform.from_matrix(there).inverse()
    if "T_imu_cam" in own:  # OpenVINS writes this one
        return RigidTransform.from_matrix(numbers(own["T_imu_cam"], (4, 4), f"{where}: T_imu_cam"))
    return None


def _sensor(own: dict[Any, Any], name: str) -> str:
    topic = own.get("rostopic")
    found = _PICTURES.sub("", topic).strip("/") if isinstance(topic, str) else ""
    return name_of(found.replace("/", "_")) if found else name


def _camera(own: dict[Any, Any], where: str) -> CameraModel:
    model, bent = str(entry(own, "camera_model", where)), str(own.get("distortion_model", "none"))
    bent = {"equi": "equidistant", "None": "none"}.get(bent, bent)
    if model not in ("pinhole", "omni") or bent not in _BENT or (model, bent) == ("omni", _FISH):
        raise CalibrationError(
            f"'{model}-{bent}'"[:80] + " is a camera model that AnySense lacks",
            where=where,
            hint="pinhole with radtan, equidistant or none, omni with radtan or none",
        )
    count = 5 if model == "omni" else 4
    values = numbers(entry(own, "intrinsics", where), (count,), f"{where}: intrinsics").tolist()
    kind, length = _BENT[bent]
    coefficients = own.get("distortion_coeffs") or [0.0] * length
    if bent == "none":
        coefficients = []
    given = numbers(coefficients, (length,), f"{where}: distortion_coeffs").tolist()
    if model == "omni":
        if length not in (0, 4):
            raise CalibrationError(
                f"omni-{bent} is a camera model that AnySense lacks", where=where
            )
        kind, given = "omni", [values.pop(0), *(given or [0.0] * 4)]
    width, height = numbers(entry(own, "resolution", where), (2,), f"{where}: resolution").tolist()
    fx, fy, cx, cy = values
    try:
        return CameraModel(width, height, fx, fy, cx, cy, kind, tuple(given))
    except CalibrationError as error:
        raise CalibrationError(error.message, where=where, hint=error.hint) from error


_FISH = "equidistant"


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    with_imu = _IMU in base.lower()
    lines = losses(rig, _TITLE, ("clock",) if with_imu else ())
    first = first_camera(placed, rig)
    cameras = [one for one in placed if one.is_camera and one.own.camera is not None]
    cameras.sort(key=lambda one: one is not first)
    if not cameras:
        raise CalibrationError(
            "the rig has no camera with intrinsics", hint="a camchain has cameras"
        )
    others = [one.name for one in placed if one not in cameras]
    if others:
        lines.append(f"{', '.join(others)} left out: a camchain has cameras with intrinsics alone")
    if base and not with_imu:
        lines.append(not_held(f"where the cameras sit in {base}", [], _TITLE))
    if rig.date or rig.source:
        lines.append(not_held("date and source", ["the rig"], _TITLE))
    framed = [one.name for one in cameras if one.frame != one.name]
    if framed:
        lines.append(not_held("the frame's name", framed, _TITLE))
    content: dict[str, Any] = {}
    told: dict[str, str] = {}
    for index, one in enumerate(cameras):
        fields, line = _fields(one)
        lines += line
        if with_imu and one.pose is not None:
            fields["T_cam_imu"] = one.pose.inverse().matrix.tolist()
            fields["timeshift_cam_imu"] = one.own.time_offset_ns / 1e9
        if index:
            last = cameras[index - 1]
            if one.pose is None or last.pose is None:
                lines.append(f"{one.name}: the rig does not say where it sits to {last.name}")
            else:
                fields["T_cn_cnm1"] = (one.pose.inverse() @ last.pose).matrix.tolist()
        told[one.name] = f"{_sensor(fields, '')} cam{index}"
        content[f"cam{index}"] = fields
    lines += renamed(cameras, _TITLE, told)
    write_yaml(path, content, error=CalibrationError, default_flow_style=None)
    return [path], lines


def _fields(one: Placed) -> tuple[dict[str, Any], list[str]]:
    camera, lines = one.own.camera, list[str]()
    assert camera is not None
    model = camera.distortion_model
    coefficients = list(camera.distortion)
    if model == "plumb_bob" and not any(coefficients[4:]):
        coefficients = coefficients[:4]
    elif model in ("plumb_bob", "rational_polynomial"):
        found, off = nearest(camera, [("plumb_bob", 4), (_FISH, 4)])
        lines.append(
            f"{one.name}: Kalibr has no {model} with {len(coefficients)} coefficients; what is written is up "
            f"to {off:.2g} px off"
        )
        camera, model = replace(found, frame_id=camera.frame_id), found.distortion_model
        coefficients = [*found.distortion, *[0.0] * 4][:4]
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    if model == "omni":
        intrinsics, coefficients = [coefficients[0], *intrinsics], coefficients[1:]
    named = {"plumb_bob": "radtan", "omni": "radtan"}.get(model, model)
    return {
        "camera_model": "omni" if model == "omni" else "pinhole",
        "intrinsics": intrinsics,
        "distortion_model": named,
        "distortion_coeffs": coefficients,
        "resolution": [camera.width, camera.height],
        "rostopic": f"/{one.name}/image_raw",
    }, lines


KALIBR = Format("kalibr", "Kalibr's camchain", _is_mine, _read, _write)

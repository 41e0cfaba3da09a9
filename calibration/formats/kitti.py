"""KITTI's calibration texts: of a raw drive (a folder) and of the object and odometry benchmarks (one text).

`P_rect_0i`, `Pi` (3x4) project rectified coordinates of camera 0, in metres, into pictures of camera i, which
are free of distortion; `R0_rect` turns camera 0's into these; `Tr_velo_to_cam` (raw: `R`, `T`) takes LiDAR
points to camera 0.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.formats.base import (
    Content,
    Format,
    Options,
    Placed,
    Reading,
    first_camera,
    layout,
    losses,
    not_held,
    size_of,
)
from calibration.kitti import (
    CAMERA_TEXT,
    LIDAR_TEXT,
    KittiTexts,
    camera_of,
    rig_from_kitti,
    rig_from_kitti_calib,
)
from perception.adapters.files import picture_of
from perception.errors import CalibrationError
from perception.files.listing import is_file
from perception.files.made import make_folder
from perception.files.text import read_bytes
from perception.files.writing import write_text
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import Float64, RigidTransform

_TITLE = "KITTI"
_SIZE = "S_rect_02"
_OURS = re.compile(r"^(P[0-3]|R0_rect|R_rect|Tr|Tr_velo_to_cam|Tr_velo_cam|P_rect_0[0-3]):", re.M)
_READ = re.compile(
    r"P[0-3]|R0_rect|R_rect|Tr|Tr_velo_to_cam|Tr_velo_cam|S_rect_0\d|P_rect_0\d|R_rect_00|R|T"
)
_MAIN = 2
_SAME = 1e-5  # rotation between cameras that are rectified together


def _is_mine(content: Content) -> bool:
    if content.path.name in (CAMERA_TEXT, LIDAR_TEXT):
        return True
    if content.text:
        return content.root is None and bool(_OURS.search(content.text))
    return content.tree is None and is_file(content.path / CAMERA_TEXT)


def _read(content: Content, options: Options) -> Reading:
    path = content.path
    if path.name in (CAMERA_TEXT, LIDAR_TEXT):
        path = path.parent
    raw = not content.text or path != content.path
    if raw:
        texts = KittiTexts(path / CAMERA_TEXT)
        rig, key = rig_from_kitti(path), "P_rect_0{}"
        unread = [*texts.keys(), *KittiTexts(path / LIDAR_TEXT).keys()]
    else:
        texts, key = KittiTexts(path), "P{}"
        unread = list(texts.keys())
        rig = rig_from_kitti_calib(path, _size(texts, path, options)[::-1])
    projection = texts.array(key.format(_MAIN), 3, 4)
    main, others = camera_of(projection, (1, 1), key.format(_MAIN))[1], {}
    reference, lidar = rig.sensors
    for index in range(4):
        name = key.format(index)
        if index == _MAIN or name not in unread:
            continue
        if np.array_equal(texts.array(name, 3, 4), projection):
            continue  # repeated where there is no such camera: some readers count lines
        own = rig.sensors[reference].camera
        assert own is not None
        height, width = float(own.height), float(own.width)
        if raw and f"S_rect_0{index}" in unread:
            width, height = texts.array(f"S_rect_0{index}", 2)
        found, offset = camera_of(texts.array(name, 3, 4), (height, width), name)
        label = f"camera_{index}"
        place = main @ offset.inverse()
        others[label] = SensorCalibration(
            replace(found, frame_id=label), None, label, kind=reference, pose=Pose(place)
        )
    sensors = {reference: rig.sensors[reference], **others, lidar: rig.sensors[lidar]}
    names = [k for k in unread if not _READ.fullmatch(k)]
    remarks = [f"{path}: not read: {', '.join(n[:40] for n in names[:20])}"] if names else []
    return Reading(Rig(sensors), tuple(remarks))


def _size(texts: KittiTexts, path: Path, options: Options) -> tuple[int, int]:
    """(width, height): as the text says, which only ours does, else of the frame's picture."""
    if texts.has(_SIZE):
        width, height = texts.array(_SIZE, 2).tolist()
        return int(width), int(height)
    if options.size is None:
        # Of the object benchmark calib/ID.txt, of the odometry one calib.txt beside a whole sequence.
        for above, stem in ((path.parent.parent, path.stem), (path.parent, "000000")):
            for suffix in (".png", ".jpg"):
                beside = above / "image_2" / f"{stem}{suffix}"
                if is_file(beside):
                    height, width = picture_of(read_bytes(beside), beside).upright().shape[:2]
                    return width, height
    return size_of(options, str(path))


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    _, placed = layout(rig)
    lines = losses(rig, _TITLE)
    first = first_camera([one for one in placed if one.own.camera is not None], rig)
    if first is None or first.pose is None or first.own.camera is None:
        raise CalibrationError("the rig has no camera with intrinsics and a pose")
    slots = _slots(placed, first)
    points = [one for one in placed if not one.is_camera and one.pose is not None][:1]
    written = {one.name for one in (*slots.values(), *points)}
    others = [one.name for one in placed if one.name not in written]
    if others:
        lines.append(
            f"{', '.join(others)} left out: KITTI has four cameras that look one way, and one LiDAR"
        )
    bent = [o.name for o in slots.values() if o.own.camera and o.own.camera.distortion]
    if bent:
        lines.append(not_held("distortion", bent, f"{_TITLE}, whose pictures are rectified,"))
    if rig.base:
        lines.append(not_held(f"the pose in {rig.base}", [first.name], _TITLE))
    if not points:
        lines.append("the rig has no LiDAR: Tr_velo_to_cam is the identity")
    apart = [o.name for i, o in slots.items() if o is not first and o.name != f"camera_{i}"]
    if apart:
        lines.append(not_held("the name", apart, _TITLE))
    back = first.pose.inverse()
    to_camera = back @ points[0].pose if points and points[0].pose else RigidTransform.identity()
    projections = {i: _projection(slots.get(i, first), back) for i in range(4)}
    size = [float(first.own.camera.width), float(first.own.camera.height)]
    if path.suffix.lower() == ".txt" and not path.is_dir():
        entries = {f"P{i}": p for i, p in projections.items()}
        entries["R0_rect"] = np.eye(3)
        entries["Tr_velo_to_cam"] = to_camera.matrix[:3]
        entries["Tr_imu_to_velo"] = np.eye(4)[:3]
        entries[_SIZE] = np.array(size)  # not KITTI's own: it is in no text of the benchmarks
        _save(path, entries)
        return [path], lines
    make_folder(path)
    entries = {"R_rect_00": np.eye(3)}
    for i, projection in projections.items():
        camera = slots.get(i, first).own.camera
        assert camera is not None
        entries |= {
            f"S_rect_0{i}": np.array([float(camera.width), float(camera.height)]),
            f"P_rect_0{i}": projection,
        }
    _save(path / CAMERA_TEXT, entries)
    moved = {"R": to_camera.rotation, "T": to_camera.translation}
    _save(path / LIDAR_TEXT, moved)
    return [path / CAMERA_TEXT, path / LIDAR_TEXT], lines


def _slots(placed: list[Placed], first: Placed) -> dict[int, Placed]:
    """Which camera is KITTI's of which number: the reference is 2, others look the same way."""
    slots = {_MAIN: first}
    fitting = [
        one
        for one in placed
        if one is not first
        and one.is_camera
        and one.own.camera is not None
        and one.pose is not None
        and first.pose is not None
        and np.abs(one.pose.rotation - first.pose.rotation).max() < _SAME
    ]
    for one in sorted(fitting, key=lambda one: not re.fullmatch("camera_[013]", one.name)):
        own = re.fullmatch("camera_([013])", one.name)
        free = [i for i in (3, 0, 1) if i not in slots]
        wanted = int(own[1]) if own else -1
        if free:
            slots[wanted if wanted in free else free[0]] = one
    return slots


def _projection(one: Placed, back: RigidTransform) -> Float64:
    """P: from the reference's coordinates into the pixels of a camera."""
    camera = one.own.camera
    assert camera is not None and one.pose is not None
    to_own = (back @ one.pose).inverse()
    return camera.matrix @ np.column_stack([np.eye(3), to_own.translation])


def _save(path: Path, entries: dict[str, Float64]) -> None:
    lines = [
        f"{k}: {' '.join(f'{v:.16e}' for v in values.ravel())}\n" for k, values in entries.items()
    ]
    write_text(path, "".join(lines), error=CalibrationError)


KITTI = Format("kitti", "KITTI's calibration texts", _is_mine, _read, _write)

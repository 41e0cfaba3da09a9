"""ROS: a folder with a camera_info YAML for each camera, and static transforms as a launch file.

A transform of `static_transform_publisher` and of /tf_static takes points of the child's frame into the
parent's: metres, quaternion x, y, z, w, or roll, pitch, yaw in radians about fixed axes.  Frames of
camera_info are optical.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from calibration.camera_info import camera_of_fields, save_camera_info
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
    numbers,
    renamed,
    table,
    unknown,
)
from calibration.formats.frames import Link, Links, base_of, steps_of, told_by
from calibration.formats.naming import guessed_kind, name_of
from calibration.formats.nearest import nearest
from calibration.formats.rotations import rotation_of
from perception.errors import CalibrationError
from perception.files.made import make_folder
from perception.files.xml import write_xml
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform
from perception.sensors.names import kinds

TRANSFORMS = "static_transforms.launch.xml"
_TITLE = "ROS"
_PUBLISHER = "static_transform_publisher"
_NAMED = "static_tf_"
_FILE = (
    "image_width", "image_height", "camera_name", "camera_matrix", "distortion_model",
    "distortion_coefficients", "rectification_matrix", "projection_matrix", "binning_x", "binning_y", "roi",
)  # fmt: skip
_MESSAGE = (
    "header", "width", "height", "distortion_model", "d", "k", "r", "p", "binning_x", "binning_y", "roi",
)  # fmt: skip
_OPTIONS = (
    "x",
    "y",
    "z",
    "roll",
    "pitch",
    "yaw",
    "qx",
    "qy",
    "qz",
    "qw",
    "frame-id",
    "child-frame-id",
)


def is_camera_info(content: Content) -> bool:
    """Whether a file is a camera_info, as a file or as a message."""
    if content.marked or not isinstance(content.tree, dict):
        return False
    keys = {str(key).lower() for key in content.tree}
    return {"image_width", "camera_matrix"} <= keys or {"k", "d", "width"} <= keys


def _is_transforms(content: Content) -> bool:
    tree = content.tree
    if content.root is not None:
        return content.root.tag == "launch"
    return isinstance(tree, dict) and ("transforms" in tree or "launch" in tree)


def _is_mine(content: Content) -> bool:
    return is_camera_info(content) or _is_transforms(content)


def _read(content: Content, options: Options) -> Reading:
    return reading([content], options)


def reading(contents: list[Content], options: Options) -> Reading:
    """The rig of camera_info files and static transforms together."""
    remarks, cameras = list[str](), dict[str, tuple[str, CameraModel]]()
    links = Links(str(contents[0].path if len(contents) == 1 else contents[0].path.parent))
    for content in contents:
        where = str(content.path)
        if is_camera_info(content):
            camera = camera_of_fields(content.tree, where)
            known = _FILE if "camera_matrix" in content.tree else _MESSAGE
            low = {str(key).lower(): value for key, value in content.tree.items()}
            remarks += unknown(low, known, where)
            if _is_rectifying(low):
                remarks.append(
                    f"{where}: rectification and projection of a stereo pair are not kept"
                )
            frame = camera.frame_id.strip("/")
            name = name_of(content.path.stem)
            if len(contents) == 1:  # whose own name may be anything, such as camera_info.yaml
                kind = guessed_kind(f"{frame} {name}") or kinds()[0]
                name = name_of(frame) if frame else kind
            cameras[name_of(name, cameras)] = frame or name, camera
            continue
        for link in _links(content, remarks):
            links.add(link)
    return links.reading(remarks, options, cameras)


def _is_rectifying(fields: dict[str, Any]) -> bool:
    """Whether a camera_info turns or shifts what it rectifies, as those of stereo pairs do."""

    def values(*names: str) -> list[float]:
        value = next((fields[name] for name in names if name in fields), None)
        value = value.get("data") if isinstance(value, dict) else value
        good = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
        return [float(v) for v in value] if good and value is not None else []

    turn, projection = values("rectification_matrix", "r"), values("projection_matrix", "p")
    turned = (
        len(turn) == 9
        and any(turn)
        and bool(np.abs(np.reshape(turn, (3, 3)) - np.eye(3)).max() > 1e-6)
    )
    return turned or (len(projection) == 12 and any(projection[3::4]))


def _links(content: Content, remarks: list[str]) -> Iterator[Link]:
    where = str(content.path)
    if content.root is not None:
        for element in content.root.iter("node"):
            yield from _of_node(dict(element.attrib), where, remarks)
        for element in content.root:
            if element.tag not in ("node", "group"):
                remarks.append(f"{where}: not read: <{element.tag[:60]}>")
        return
    fields = table(content.tree, where)
    if "launch" in fields:
        steps = fields["launch"] if isinstance(fields["launch"], list) else []
        for step in steps:
            node = step.get("node") if isinstance(step, dict) else None
            if isinstance(node, dict):
                yield from _of_node({str(k): str(v) for k, v in node.items()}, where, remarks)
            else:
                remarks.append(f"{where}: not read: {str(step)[:60]}")
        return
    moved = fields["transforms"] if isinstance(fields["transforms"], list) else []
    for index, step in enumerate(moved):
        yield _of_message(step, f"{where}: transforms[{index}]")


def _of_message(step: Any, where: str) -> Link:
    fields = table(step, where)
    header = table(fields.get("header"), f"{where}.header")
    moved = table(fields.get("transform"), f"{where}.transform")
    place = table(moved.get("translation"), f"{where}.translation")
    turn = table(moved.get("rotation"), f"{where}.rotation")
    found = RigidTransform.from_quaternion_xyzw(
        numbers([turn.get(a) for a in "xyzw"], (4,), f"{where}: rotation").tolist(),
        numbers([place.get(a) for a in "xyz"], (3,), f"{where}: translation"),
    )
    return Link(str(header.get("frame_id", "")), str(fields.get("child_frame_id", "")), found)


def _of_node(node: dict[str, str], where: str, remarks: list[str]) -> Iterator[Link]:
    program = node.get("exec") or node.get("type") or node.get("executable") or ""
    if program != _PUBLISHER:
        remarks.append(f"{where}: not read: node {program[:60] or node.get('name', '')[:60]}")
        return
    text = node.get("args", "")
    if "$(" in text or "$(" in node.get("name", ""):
        raise CalibrationError(
            f"'{text[:80]}' has substitutions", where=where, hint="write their values"
        )
    name = node.get("name", "")
    own = name.removeprefix(_NAMED) if name.startswith(_NAMED) else ""
    yield _of_arguments(text, where, own)


def _of_arguments(text: str, where: str, name: str) -> Link:
    """`--x 1 .. --frame-id a --child-frame-id b`, `x y z yaw pitch roll a b` or `x y z qx qy qz qw a b`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CalibrationError(f"'{text[:80]}': {error}", where=where) from error
    told: dict[str, Any] = {}
    if any(word.startswith("--") for word in words):
        parts = iter([p for w in words for p in (w.split("=", 1) if w[:2] == "--" else [w])])
        for part in parts:
            if part[2:] not in _OPTIONS or part[:2] != "--":
                raise CalibrationError(f"'{part[:40]}' is no option of {_PUBLISHER}", where=where)
            told[part[2:]] = next(parts, None)
    elif len(words) in (8, 9, 10) and re.match(r"^-?[\d.]", words[0]):
        turned = ("qx", "qy", "qz", "qw") if _is_number(words[6]) else ("yaw", "pitch", "roll")
        names = ("x", "y", "z", *turned, "frame-id", "child-frame-id")
        told = dict(zip(names, words, strict=False))
    if "frame-id" not in told or "child-frame-id" not in told:
        raise CalibrationError(f"'{text[:80]}' names no frames", where=where)
    place = numbers([told.get(a, 0) for a in "xyz"], (3,), f"{where}: x y z")
    if {"qx", "qy", "qz", "qw"} & told.keys():
        turn = numbers([told.get(f"q{a}", float(a == "w")) for a in "xyzw"], (4,), f"{where}: q")
        found = RigidTransform.from_quaternion_xyzw(turn.tolist(), place)
    else:
        angles = numbers([told.get(a, 0) for a in ("roll", "pitch", "yaw")], (3,), f"{where}: rpy")
        found = RigidTransform(rotation_of(*angles.tolist()), place)
    return Link(str(told["frame-id"]), str(told["child-frame-id"]), found, name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    cameras = [one for one in placed if one.own.camera is not None and one.is_camera]
    lines = losses(rig, _TITLE)
    if rig.date or rig.source:
        lines.append(not_held("date and source", ["the rig"], _TITLE))
    single = path.suffix.lower() in (".yaml", ".yml") and not path.is_dir()
    if single and len(cameras) != 1:
        raise CalibrationError(
            f"the rig has {len(cameras)} cameras with intrinsics, a camera_info file one",
            where=str(path),
            hint="name a folder, without .yaml",
        )
    if not single:
        make_folder(path)
    written = []
    for one in cameras:
        camera, line = _for_ros(one)
        lines += line
        written.append(path if single else path / f"{one.name}.yaml")
        save_camera_info(replace(camera, frame_id=one.frame), written[-1])
    others = [one.name for one in placed if one not in cameras] if single else []
    if others:
        lines.append(
            f"{', '.join(others)} left out: a camera_info file has one camera; name a folder"
        )
    elif single and base:
        lines.append(not_held(f"the pose in {base}", [cameras[0].name], "a camera_info file"))
    lines += renamed([one for one in placed if one.name not in others], _TITLE, told_by(placed))
    links = [] if single else steps_of(base_of(base, first_camera(placed, rig)), placed)
    if links:
        written.append(path / TRANSFORMS)
        write_xml(written[-1], _launch(links), error=CalibrationError)
    lost = [one.name for one in placed if one.pose is None and one not in cameras]
    if lost:
        lines.append(f"{', '.join(lost)} left out: the rig does not say where")
    return written, lines


def published(rig: Rig) -> tuple[dict[str, CameraModel], list[Link], list[str]]:
    """What topics say of a rig.

    Returns:
        The cameras with intrinsics by sensor, each with its frame's name; the steps of /tf_static; and a line
        for each thing that they cannot say.
    """
    base, placed = layout(rig)
    cameras, lines = {}, []
    for one in placed:
        if one.is_camera and one.own.camera is not None:
            camera, line = _for_ros(one)
            lines += line
            cameras[one.name] = replace(camera, frame_id=one.frame)
    at: dict[str, Placed] = {}
    for one in placed:
        other = at.setdefault(one.frame, one)
        if one.pose and other.pose and not np.allclose(one.pose.matrix, other.pose.matrix):
            lines.append(f"{one.name} left out: {other.name} sits elsewhere in frame '{one.frame}'")
    lost = [one.name for one in placed if one.pose is None]
    if lost:
        lines.append(f"{', '.join(lost)} left out: the rig does not say where")
    return cameras, steps_of(base_of(base, first_camera(placed, rig)), placed), lines


def _launch(links: list[Link]) -> Element:
    root = Element("launch")
    for link in links:
        x, y, z = (repr(float(v)) for v in link.transform.translation)
        qx, qy, qz, qw = (repr(v) for v in link.transform.quaternion_xyzw)
        frames = f"--frame-id {shlex.quote(link.parent)} --child-frame-id {shlex.quote(link.child)}"
        SubElement(
            root,
            "node",
            {
                "pkg": "tf2_ros",
                "exec": _PUBLISHER,
                **({"name": f"{_NAMED}{link.name}"} if link.name else {}),
                "args": f"--x {x} --y {y} --z {z} --qx {qx} --qy {qy} --qz {qz} --qw {qw} {frames}",
            },
        )
    return root


def _for_ros(one: Placed) -> tuple[CameraModel, list[str]]:
    camera = one.own.camera
    assert camera is not None
    if camera.distortion_model != "omni":
        return camera, []
    found, off = nearest(camera, [("plumb_bob", 5), ("equidistant", 4)])
    line = f"{one.name}: ROS has no omni model; {found.distortion_model} is written, up to {off:.2g} px off"
    return found, [line]


ROS = Format("ros", "ROS camera_info and static TF", _is_mine, _read, _write)

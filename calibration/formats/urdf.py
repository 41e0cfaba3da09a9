"""URDF: links and joints.  A joint's `origin` is the pose of the child in the parent: metres, radians.

Cameras' links are body frames (x forward) unless their names say that they are optical (REP 103).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

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
)
from calibration.formats.frames import Link, Links, base_of, steps_of, told_by
from calibration.formats.rotations import angles_of, rotation_of
from perception.errors import CalibrationError
from perception.files.limits import MAX_FRAMES
from perception.files.xml import write_xml
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform

_TITLE = "URDF"
_NAMED = "_sensor_joint"


def _is_mine(content: Content) -> bool:
    return content.root is not None and content.root.tag == "robot"


def _read(content: Content, options: Options) -> Reading:
    where, root, remarks = str(content.path), content.root, list[str]()
    assert root is not None
    if any(element.tag.startswith("xacro:") for element in root.iter()):
        raise CalibrationError(
            "is xacro, not URDF", where=where, hint="run: xacro FILE > robot.urdf, and convert that"
        )
    links, moving = Links(where), list[str]()
    for joint in root.iter("joint"):
        parent, child = joint.find("parent"), joint.find("child")
        if parent is None or child is None:  # as of transmissions
            continue
        name = joint.get("name", "")
        if joint.get("type", "fixed") != "fixed":
            moving.append(name[:60] or child.get("link", "")[:60])
        links.add(
            Link(
                parent.get("link", ""),
                child.get("link", ""),
                _origin(joint.find("origin"), f"{where}: joint {name[:60]}"),
                name.removesuffix(_NAMED) if name.endswith(_NAMED) else "",
            )
        )
    names = [link.get("name", "").strip("/ ") for link in root.iter("link")]
    links.alone = [name for name in names[: MAX_FRAMES + 1] if name]
    if len(links.alone) > MAX_FRAMES:
        raise CalibrationError(f"more than {MAX_FRAMES} frames", where=where)
    if moving:
        shown = f"{', '.join(moving[:8])}{', ..' if len(moving) > 8 else ''}"
        remarks.append(f"joints that move are taken at their zero: {shown}")
    return links.reading(remarks, options)


def _origin(origin: Element | None, where: str) -> RigidTransform:
    told = {} if origin is None else origin.attrib
    place = numbers(told.get("xyz", "0 0 0").split(), (3,), f"{where}: xyz")
    angles = numbers(told.get("rpy", "0 0 0").split(), (3,), f"{where}: rpy")
    return RigidTransform(rotation_of(*angles.tolist()), place)


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    lines = [*losses(rig, _TITLE), *losses_of_frames(rig, placed, _TITLE)]
    base = base_of(base, first_camera(placed, rig))
    root = Element("robot", {"name": "rig"})
    SubElement(root, "link", {"name": base})
    for link in steps_of(base, placed):
        SubElement(root, "link", {"name": link.child})
        joint_name = f"{link.name}{_NAMED}" if link.name else f"{link.child}_joint"
        joint = SubElement(root, "joint", {"name": joint_name, "type": "fixed"})
        SubElement(joint, "parent", {"link": link.parent})
        SubElement(joint, "child", {"link": link.child})
        xyz = " ".join(repr(float(v)) for v in link.transform.translation)
        rpy = " ".join(repr(v) for v in angles_of(link.transform.rotation))
        SubElement(joint, "origin", {"xyz": xyz, "rpy": rpy})
    write_xml(path, root, error=CalibrationError)
    return [path], lines


def losses_of_frames(rig: Rig, placed: list[Placed], title: str) -> list[str]:
    """What files of frames alone lose: intrinsics, unknown places, frames that two sensors share."""
    lines = []
    seeing = [one.name for one in placed if one.own.camera is not None and one.is_camera]
    if seeing:
        lines.append(f"{not_held('intrinsics', seeing, title)}; --to ros writes them")
    lost = [one.name for one in placed if one.pose is None]
    if lost:
        lines.append(f"{', '.join(lost)} left out: the rig does not say where")
    frames = [one.frame for one in placed if one.pose is not None]
    shared = [one.name for i, one in enumerate(placed) if one.pose and one.frame in frames[:i]]
    if shared:
        lines.append(not_held("a frame of its own", shared, title))
    if rig.date or rig.source:
        lines.append(not_held("date and source", ["the rig"], title))
    return [*lines, *renamed(placed, title, told_by(placed))]


URDF = Format("urdf", "URDF", _is_mine, _read, _write)

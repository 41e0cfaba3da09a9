"""Trees of frames in files (static TF, URDF, Autoware): which frames are sensors, and where they sit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from calibration.formats.base import Options, Placed, Reading, Seen, rig_of
from calibration.formats.naming import guessed_kind, is_optical, name_of
from calibration.formats.rotations import OPTICAL
from perception.errors import CalibrationError
from perception.files.limits import MAX_FRAMES
from perception.geometry.camera import CameraModel
from perception.geometry.frames import FrameTree
from perception.geometry.transforms import RigidTransform
from perception.sensors.names import has_picture

_NOTHING = 1e-9
_DEEPEST = 90  # within what `FrameTree` follows


@dataclass(frozen=True)
class Link:
    """One step of a tree: takes points of the child's frame into the parent's."""

    parent: str
    child: str
    transform: RigidTransform
    name: str = ""
    """Of the sensor whose frame the child is, where the file tells one."""


@dataclass
class Links:
    """The steps of a tree; `where` names the file in errors."""

    where: str
    steps: dict[str, Link] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)
    """Frames that are named, and may be in no step."""
    _parents: set[str] = field(default_factory=set)

    def add(self, link: Link) -> None:
        """Note a step.

        Raises:
            CalibrationError: the frame has a place already, or a name that cannot be.
        """
        parent, child = link.parent.strip("/ "), link.child.strip("/ ")
        if child in self.steps:
            raise CalibrationError(f"frame '{child[:80]}' is placed twice", where=self.where)
        if not parent or not child or parent == child:
            raise CalibrationError(
                f"no transform leads from '{child[:80]}' to '{parent[:80]}'", where=self.where
            )
        if len(self.steps) >= MAX_FRAMES:
            raise CalibrationError(f"more than {MAX_FRAMES} frames", where=self.where)
        self.steps[child] = replace(link, parent=parent, child=child)

    def reading(
        self,
        remarks: list[str],
        options: Options,
        cameras: Mapping[str, tuple[str, CameraModel]] | None = None,
    ) -> Reading:
        """The rig of the frames that are sensors.

        Args:
            remarks: what is to be told, added to.
            options: of the user.
            cameras: intrinsics by sensor, each with the name of its optical frame.
        """
        cameras = dict(cameras or {})
        tree = FrameTree()
        for link in self.steps.values():
            tree.set(link.parent, link.child, link.transform, static=True)
        frames = self._sensors(cameras, options, remarks)
        self._parents = {*(step.parent for step in self.steps.values()), *self.alone}
        optical = {frame for frame, _ in cameras.values()}
        tops = [top for frame, _ in frames if (top := self._top(frame))]
        base = tops[0] if tops else ""
        seen, turned = [], list[str]()
        for frame, (name, camera) in frames:
            top = self._top(frame)
            if top and top != base:
                remarks.append(f"{frame}: lies in another tree than {base}, not taken")
                continue
            pose = tree.lookup(base, frame) if top else None
            kind = self._kind(frame, name, options)
            bare = frame not in optical and not is_optical(frame)
            if pose is not None and bare and kind and has_picture(kind):
                pose = pose @ OPTICAL
                turned.append(frame)
            seen.append(Seen(self._plain(frame), camera, pose, name, kind))
        if turned:
            remarks.append(
                f"{', '.join(turned)}: taken for body frames of cameras, x forward (REP 103)"
            )
        return rig_of(seen, base, remarks, options)

    def _kind(self, frame: str, name: str, options: Options) -> str:
        for own, chosen in options.sensors.items():
            if (chosen.frame or own) in (frame, name, name_of(frame)) and chosen.kind:
                return chosen.kind
        return guessed_kind(f"{name} {frame}")

    def _sensors(
        self,
        cameras: dict[str, tuple[str, CameraModel]],
        options: Options,
        remarks: list[str],
    ) -> list[tuple[str, tuple[str, CameraModel | None]]]:
        """Frames of sensors, each with the sensor's name (may be empty) and intrinsics."""
        found: list[tuple[str, tuple[str, CameraModel | None]]] = [
            (frame, (name, camera)) for name, (frame, camera) in cameras.items()
        ]
        known = {frame for frame, _ in found}
        wanted = {chosen.frame or name for name, chosen in options.sensors.items()}
        names = list(
            dict.fromkeys([*(s.parent for s in self.steps.values()), *self.steps, *self.alone])
        )
        parents = {step.parent for step in self.steps.values()}
        below = self._below()
        others = []
        for frame in names:
            link = self.steps.get(frame)
            name = "" if link is None else link.name
            if frame in known or (link is not None and _is_added(link) and link.parent in known):
                continue
            kind = guessed_kind(f"{name} {frame}")
            if wanted & {frame, name, name_of(frame)} or name:
                found.append((frame, (name, None)))
            elif not kind:
                if frame not in parents:
                    others.append(frame)
            elif is_optical(frame) or not any(
                guessed_kind(f"{self.steps[b].name} {b}") == kind for b in below.get(frame, ())
            ):
                found.append((frame, ("", None)))
        if others and not options.sensors:
            remarks.append(
                f"{', '.join(others[:12])}: not taken, as their names tell of no kind of sensor"
            )
        return found

    def _below(self) -> dict[str, set[str]]:
        """All frames below each."""
        below: dict[str, set[str]] = {}
        for child in self.steps:
            path, at = {child}, child
            while at in self.steps:
                at = self.steps[at].parent
                below.setdefault(at, set()).add(child)
                if at in path:
                    raise CalibrationError(f"frames form a loop at '{at[:80]}'", where=self.where)
                path.add(at)
                if len(path) > _DEEPEST:
                    raise CalibrationError(
                        f"frames are nested more than {_DEEPEST} deep", where=self.where
                    )
        return below

    def _top(self, frame: str) -> str:
        """The root of the tree that a frame lies in; empty where it lies in none."""
        if frame not in self.steps and frame not in self._parents:
            return ""
        while frame in self.steps:
            frame = self.steps[frame].parent
        return frame

    def _plain(self, frame: str) -> str:
        """The frame, or the one of which it is the optical frame that `steps_of` added."""
        link = self.steps.get(frame)
        return link.parent if link is not None and _is_added(link) else frame


SUFFIX = "_optical_frame"


def _is_added(link: Link) -> bool:
    """Whether a frame is one that `steps_of` adds: optical, where the one above it is."""
    named = link.child == f"{link.parent}{SUFFIX}"
    return named and bool(np.abs(link.transform.matrix - np.eye(4)).max() < _NOTHING)


def steps_of(base: str, placed: list[Placed]) -> list[Link]:
    """The steps of a tree that has the sensors of a rig.

    A camera's frame is optical.  Where its name does not say so, a frame that does is added at the same
    place.
    """
    links, done = list[Link](), {base}
    for one in placed:
        if one.pose is None:
            continue
        named = f"{one.frame}{SUFFIX}"
        adding = one.is_camera and not is_optical(one.frame) and named not in done
        if one.frame not in done:
            done.add(one.frame)
            links.append(Link(base, one.frame, one.pose, "" if adding else one.name))
        if adding:
            done.add(named)
            links.append(Link(one.frame, named, RigidTransform.identity(), one.name))
    return links


def told_by(placed: list[Placed]) -> dict[str, str]:
    """The words by which a tree of `steps_of` tells of each sensor."""
    return {one.name: f"{one.name} {one.frame}{SUFFIX if one.is_camera else ''}" for one in placed}


def base_of(rig_base: str, first: Placed | None) -> str:
    """The name of the base's frame: of a rig that names none that of its reference camera."""
    if rig_base:
        return rig_base
    if first is None:
        return "base_link"
    return first.frame

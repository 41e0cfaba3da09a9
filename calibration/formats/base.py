"""What all formats share: what a file tells of sensors, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from calibration.formats.naming import guessed_kind, name_of
from perception.errors import CalibrationError, ConfigError, names_hint
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, mounted
from perception.geometry.transforms import Float64, RigidTransform, as_matrix
from perception.sensors.names import has_picture, kinds


@dataclass(frozen=True)
class Chosen:
    """A sensor that the user names: its kind, and its frame in the file; both empty for what is found."""

    kind: str = ""
    frame: str = ""


@dataclass(frozen=True)
class Options:
    """What a user says beside the file.

    Attributes:
        size: (width, height) of pictures in pixels, for files that do not say it.
        sensors: those that are wanted, by name; all that are found where there are none.
    """

    size: tuple[int, int] | None = None
    sensors: Mapping[str, Chosen] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A file that was read once, for all formats to look at; a folder has a path alone.

    Attributes:
        path: the file or folder.
        text: of a text file.
        tree: plain values of YAML or JSON.
        root: of XML.
        marked: YAML in the dialect of OpenCV's FileStorage.
    """

    path: Path
    text: str = ""
    tree: Any = None
    root: Element | None = None
    marked: bool = False


@dataclass(frozen=True)
class Seen:
    """A sensor as a file tells of it.

    Attributes:
        frame: its name there.
        camera: intrinsics.
        pose: from its frame (of a camera the optical one) to the base; None if not told.
        name: of the sensor, where the file tells one.
        kind: of the sensor, where the format tells it.
        offset_ns: see `SensorCalibration.time_offset_ns`.
    """

    frame: str
    camera: CameraModel | None = None
    pose: RigidTransform | None = None
    name: str = ""
    kind: str = ""
    offset_ns: int = 0


@dataclass(frozen=True)
class Reading:
    """What a file says: a rig, and in words what it says beyond that."""

    rig: Rig
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: as `--to` has it.
        title: for people.
        is_mine: whether content is of this format.
        read: its content as a rig.
        write: (rig, path) -> the files that were written, and a line for each thing that could not be.
    """

    name: str
    title: str
    is_mine: Callable[[Content], bool]
    read: Callable[[Content, Options], Reading]
    write: Callable[[Rig, Path], tuple[list[Path], list[str]]]


def rig_of(seen: Sequence[Seen], base: str, remarks: list[str], options: Options) -> Reading:
    """The rig of the sensors that a file tells of.

    Args:
        seen: the sensors.
        base: the frame that poses lead to; empty where it is the first camera's.
        remarks: what is to be told, added to.
        options: of the user.

    Raises:
        CalibrationError: there is no sensor, or what is told cannot be.
        ConfigError: a sensor that the user names is not there.
    """
    sensors: dict[str, SensorCalibration] = {}
    for one, name, kind in _named(seen, remarks, options):
        pose = None if one.pose is None else Pose(mounted(one.pose))
        camera = one.camera and replace(one.camera, frame_id=one.camera.frame_id or one.frame)
        sensors[name] = SensorCalibration(
            camera,
            frame_id=one.frame,
            time_offset_ns=one.offset_ns,
            kind="" if kind == name else kind,
            pose=pose,
        )
    if not sensors:
        raise CalibrationError(
            "no sensor found", hint="--sensor NAME=KIND@FRAME says which frame is one"
        )
    cameras = [name for name, own in sensors.items() if has_picture(own.kind or name)]
    if not base and sum(sensors[name].pose is None for name in cameras) > 1:
        # Without a base a camera without a pose would be taken as aligned with the first.
        first = cameras[0]
        base = sensors[first].frame_id
        sensors[first] = replace(sensors[first], pose=Pose(RigidTransform.identity()))
    placed = [name for name in cameras if sensors[name].pose is not None]
    if base and cameras and not placed:
        raise CalibrationError(f"no camera has a pose in '{base}'")
    for name in cameras:
        if base and sensors[name].pose is None:
            remarks.append(f"{name}: its pose is not told")
    return Reading(Rig(sensors, base, placed[0] if base and placed else ""), tuple(remarks))


def _named(
    seen: Sequence[Seen], remarks: list[str], options: Options
) -> list[tuple[Seen, str, str]]:
    """The sensors that are wanted, with names and kinds."""
    found: list[tuple[Seen, str, str]] = []
    if options.sensors:
        for name, chosen in options.sensors.items():
            wanted = chosen.frame or name
            fitting = [one for one in seen if wanted in (one.frame, one.name, name_of(one.frame))]
            if not fitting:
                hint = names_hint(wanted, [one.frame for one in seen][:12])
                raise ConfigError(f"there is no '{wanted[:80]}'", where="--sensor", hint=hint)
            kind = chosen.kind or _kind_of(fitting[0], f"{name} {fitting[0].frame}")
            found.append((fitting[0], name, kind or kinds()[0]))
        return found
    for one in seen:
        kind = _kind_of(one, f"{one.name} {one.frame}")
        if not kind:
            remarks.append(f"{one.frame}: not taken, as its name tells of no kind of sensor")
            continue
        taken = [name for _, name, _ in found]
        found.append((one, name_of(one.name or one.frame, taken, kind), kind))
    return found


def _kind_of(one: Seen, told: str) -> str:
    kind = one.kind or guessed_kind(told)
    if one.camera is not None and not (kind and has_picture(kind)):
        return kinds()[0]
    return kind


@dataclass(frozen=True)
class Placed:
    """A sensor of a rig as it is to be written.

    Attributes:
        name: of the sensor.
        kind: of the sensor.
        own: its calibration.
        frame: the name of its frame.
        pose: from its frame to the base; None if the rig does not say.
    """

    name: str
    kind: str
    own: SensorCalibration
    frame: str
    pose: RigidTransform | None

    @property
    def is_camera(self) -> bool:
        """Whether it has pixels."""
        return has_picture(self.kind)


def layout(rig: Rig) -> tuple[str, list[Placed]]:
    """The base frame's name, and all sensors.

    Of a rig that names no base it is the reference camera's optical frame, whose pose is then nothing.
    """
    names = rig.kinds
    found = []
    for name, own in rig.sensors.items():
        pose = None if own.pose is None else own.pose.transform
        if pose is None and not rig.base and name in rig.cameras:
            pose = RigidTransform.identity()  # the reference, or aligned with it
        frame = own.frame_id or (own.camera.frame_id if own.camera else "")
        found.append(Placed(name, names[name], own, frame or name, pose))
    return rig.base, found


def first_camera(placed: Sequence[Placed], rig: Rig) -> Placed | None:
    """The reference camera; without one that is named, the first that lies in the rig's origin."""
    cameras = [one for one in placed if one.is_camera]
    named = [one for one in cameras if one.name == rig.reference]
    plain = [one for one in cameras if one.own.pose is None and not one.own.aligned_with]
    return next(iter([*named, *plain, *cameras]), None)


_LOSSES: dict[str, tuple[str, Callable[[SensorCalibration], bool]]] = {
    "covariance": (
        "the covariance of the pose",
        lambda own: own.pose is not None and own.pose.covariance is not None,
    ),
    "sigma": ("standard deviations of the camera", lambda own: bool(own.camera_sigma)),
    "clock": ("the time offset", lambda own: own.time_offset_ns != 0),
    "clock_sigma": (
        "the time offset's standard deviation",
        lambda own: own.offset_sigma_ns is not None,
    ),
    "aligned": (
        "whose pixels it has (aligned_with)",
        lambda own: bool(own.aligned_with),
    ),
    "dates": ("date and source", lambda own: bool(own.date or own.source)),
}


def losses(rig: Rig, title: str, held: Sequence[str] = ()) -> list[str]:
    """A line for each quantity of a rig that a format cannot hold.

    Args:
        rig: what is written.
        title: of the format.
        held: of those that it can: `covariance`, `sigma`, `clock`, `clock_sigma`, `aligned`, `dates`.
    """
    lines = []
    for key, (what, has) in _LOSSES.items():
        names = [name for name, own in rig.sensors.items() if has(own)]
        if names and key not in held:
            lines.append(not_held(what, names, title))
    return lines


def not_held(what: str, names: Sequence[str], title: str) -> str:
    """The line of something that a format cannot hold."""
    of = f" of {', '.join(names)}" if names else ""
    return f"{what}{of}: {title} cannot hold it"


def renamed(placed: Sequence[Placed], title: str, told: Mapping[str, str]) -> list[str]:
    """A line for the sensors whose kinds cannot be told from what is written.

    Args:
        placed: the sensors that are written.
        title: of the format.
        told: by sensor the words in the file that tell of it.
    """
    wrong = []
    for one in placed:
        guess = guessed_kind(told[one.name])
        if one.is_camera and one.own.camera is not None and not (guess and has_picture(guess)):
            guess = kinds()[0]
        if guess != one.kind:
            wrong.append(f"{one.name} ({one.kind})")
    return [not_held("the kind", wrong, title)] if wrong else []


def numbers(value: Any, shape: tuple[int, ...], what: str) -> Float64:
    """Finite numbers of a file, in that shape; texts such as `1e-3` are numbers to some writers.

    Raises:
        CalibrationError: they are none; `what` names them.
    """
    return as_matrix(value, shape, what)


def table(value: Any, what: str) -> dict[Any, Any]:
    """A mapping.

    Raises:
        CalibrationError: it is none.
    """
    if not isinstance(value, dict):
        raise CalibrationError("expected fields with names", where=what)
    return value


def entry(fields: Mapping[Any, Any], key: str, what: str) -> Any:
    """A field that must be there.

    Raises:
        CalibrationError: it is not.
    """
    if key not in fields:
        raise CalibrationError(f"no entry '{key}'", where=what)
    return fields[key]


def unknown(fields: Mapping[Any, Any], known: Sequence[str], what: str) -> list[str]:
    """A line for fields that are not read."""
    names = [str(key)[:60] for key in fields if key not in known]
    return [f"{what}: not read: {', '.join(names[:20])}"] if names else []


def size_of(options: Options, what: str) -> tuple[int, int]:
    """(width, height) that the user says.

    Raises:
        CalibrationError: they do not.
    """
    if options.size is None:
        raise CalibrationError(
            "does not say how large the pictures are", where=what, hint="--size WIDTHxHEIGHT"
        )
    return options.size

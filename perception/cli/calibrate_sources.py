"""What commands that place sensors share: what is recorded where, intrinsics, and writing the rig."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import command_line
from perception.cli.calibrate_verdicts import UNTRUSTED
from perception.cli.console import say, warn
from perception.errors import ConfigError, names_hint
from perception.files.text import read_yaml
from perception.files.writing import write_yaml
from perception.frame import check_name
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, load_rig
from perception.sensors.names import OURS, has_picture, is_kind, kinds

if TYPE_CHECKING:
    from calibration.rigs import Placed


@dataclass(frozen=True)
class Source:
    """A sensor's recording: its name in the rig, its kind, and the folder or file."""

    name: str
    kind: str
    path: Path


def write_rig(
    args: argparse.Namespace,
    old: Rig | None,
    first: Source,
    camera: CameraModel,
    placed: dict[str, Placed],
    *,
    trusted: bool,
) -> str | None:
    """Put what was found into the rig; its path, None where it was not written."""
    from calibration.rigs import with_placed

    today = datetime.date.today().isoformat()
    rig = with_placed(
        old, first.name, first.kind, camera, placed, date=today, source=command_line()
    )
    if not trusted:
        return None
    write_yaml(args.out, rig.to_dict())
    return str(args.out)


def ended(args: argparse.Namespace, doubts: tuple[str, ...]) -> int:
    """Say whether the rig was written, and give the exit status."""
    for doubt in doubts:
        warn(doubt)
    if doubts:
        warn(f"not to be trusted: {args.out} is not written")
        return UNTRUSTED
    say(f"wrote {args.out}")
    return 0


def name_and_value(text: str, option: str) -> tuple[str, str]:
    """The halves of `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"'{text}' is not NAME=VALUE", where=option)
    return name, value


def named(text: str, default: str) -> tuple[str, Path]:
    """The name and path of `NAME=PATH`; a path that is there may have a `=` of its own."""
    name, equals, path = text.partition("=")
    if equals and path and "/" not in name and not Path(text).exists():
        return name, Path(path)
    return default, Path(text)


def source_of(
    text: str, option: str, told: dict[str, str], old: Rig | None, *, pictures: bool
) -> Source:
    """The sensor that `[NAME=]DIR` says; `told` and a rig know kinds by name."""
    kind = next(kind for kind in OURS if has_picture(kind) is pictures)
    name, path = named(text, kind)
    check_name(name, option)
    known = "" if old is None or name not in old.sensors else old.sensors[name].kind
    kind = name if is_kind(name) else told.get(name) or known or kind
    if not is_kind(kind) or has_picture(kind) is not pictures:
        fitting = [one for one in kinds() if has_picture(one) is pictures]
        problem = f"'{name}' cannot be of kind '{kind}' here"
        raise ConfigError(problem, where=option, hint=names_hint(kind, fitting))
    return Source(name, kind, path)


def model_of(name: str, infos: Mapping[str, Path], old: Rig | None = None) -> CameraModel:
    """The camera's intrinsics, from its file or the rig that is there.

    Args:
        name: of the camera.
        infos: by name, a ROS camera_info YAML or a rig.
        old: the rig that is there.

    Raises:
        ConfigError: there are none.
        CalibrationError: the file cannot be read.
    """
    if name not in infos:
        camera = old.sensors[name].camera if old is not None and name in old.sensors else None
        if camera is None:
            hint = f"--camera-info {name}=FILE, or anysense calibrate intrinsics"
            raise ConfigError(f"no intrinsics of '{name}'", where="--camera-info", hint=hint)
        return camera
    return camera_file(infos[name], name)


def camera_file(path: Path, name: str = "") -> CameraModel:
    """Intrinsics from a ROS camera_info YAML, or of a rig: the camera of a name, or its only one.

    Raises:
        ConfigError: the rig has no such camera.
        CalibrationError: the file cannot be read.
    """
    from calibration.camera_info import load_camera_info

    raw = read_yaml(path, error=ConfigError)
    if not (isinstance(raw, dict) and "sensors" in raw):
        return load_camera_info(path)
    sensors = load_rig(path).sensors
    cameras = [one for one, own in sensors.items() if own.camera is not None]
    if not name and len(cameras) == 1:
        name = cameras[0]
    camera = sensors[name].camera if name in sensors else None
    if camera is None:
        hint = names_hint(name, sorted(cameras))
        raise ConfigError(f"no intrinsics of '{name}'", where=str(path), hint=hint)
    return camera

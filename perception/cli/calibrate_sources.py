"""What the commands of `anysense calibrate` are given: cameras' intrinsics, from files or rigs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perception.errors import ConfigError, names_hint
from perception.files.text import read_yaml
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, load_rig


def camera_model(name: str, infos: Mapping[str, Path], old: Rig | None = None) -> CameraModel:
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

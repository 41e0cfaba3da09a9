"""The rig: where the sensors sit and how they see, as one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from perception.errors import AnySenseError, CalibrationError
from perception.frame import Modality, Sample, as_modality
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

SCHEMA = 1
_FIELDS = {"camera", "to_reference", "frame_id", "time_offset_ns"}


@dataclass(frozen=True)
class SensorCalibration:
    """Calibration of one sensor.

    Attributes:
        camera: intrinsics of its image; for a LiDAR those of the reference camera.
        extrinsics: from the sensor's frame to the reference camera's optical frame; None for a
            sensor whose image is aligned with the reference.
        frame_id: name of the sensor's frame.
        time_offset_ns: added to its stamps to bring them to the reference clock.
    """

    camera: CameraModel | None = None
    extrinsics: RigidTransform | None = None
    frame_id: str = ""
    time_offset_ns: int = 0


@dataclass(frozen=True)
class Rig:
    """All sensors of a robot's head, by modality."""

    sensors: Mapping[Modality, SensorCalibration]

    def attach(self, sample: Sample) -> Sample:
        """`sample` with this rig's calibration, its stamp brought to the reference clock.

        What the rig does not know, the sample keeps.
        """
        own = self.sensors.get(sample.modality)
        if own is None:
            return sample
        return replace(
            sample,
            camera=own.camera or sample.camera,
            extrinsics=own.extrinsics or sample.extrinsics,
            frame_id=sample.frame_id or own.frame_id,
            stamp_ns=sample.stamp_ns + own.time_offset_ns,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""
        sensors: dict[str, Any] = {}
        for modality, own in self.sensors.items():
            entry: dict[str, Any] = {"frame_id": own.frame_id, "time_offset_ns": own.time_offset_ns}
            if own.camera is not None:
                entry["camera"] = own.camera.to_dict()
            if own.extrinsics is not None:
                entry["to_reference"] = own.extrinsics.matrix.tolist()
            sensors[modality] = entry
        return {"schema": SCHEMA, "sensors": sensors}


def load_rig(path: Path) -> Rig:
    """Read a rig file.

    Raises:
        CalibrationError: it is missing, of a newer schema, or a sensor's entry is wrong.
    """
    raw = read_yaml(path)
    try:
        return _parse(raw)
    except AnySenseError as error:
        raise CalibrationError(str(error), where=str(path)) from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of calibration.

    Raises:
        CalibrationError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise CalibrationError(reason, where=str(path)) from error
    except Exception as error:  # PyYAML lets KeyError, IndexError, RecursionError and more through
        raise CalibrationError("not YAML", where=str(path)) from error


def _parse(raw: Any) -> Rig:
    if not isinstance(raw, dict) or not isinstance(raw.get("sensors"), dict):
        raise CalibrationError("no 'sensors' table")
    if raw.get("schema", SCHEMA) != SCHEMA:
        raise CalibrationError(f"schema is {raw['schema']}, this version reads {SCHEMA}")
    return Rig({as_modality(str(n)): _sensor(str(n), e) for n, e in raw["sensors"].items()})


def _sensor(name: str, entry: Any) -> SensorCalibration:
    if not isinstance(entry, dict):
        raise CalibrationError("expected a table", where=name)
    unknown = {str(key) for key in entry} - _FIELDS
    if unknown:  # a misspelled 'to_reference' would read as: aligned with the reference
        raise CalibrationError(
            f"unknown field '{min(unknown)}'", where=name, hint=", ".join(sorted(_FIELDS))
        )
    camera, matrix = entry.get("camera"), entry.get("to_reference")
    if not isinstance(camera, dict | None):
        raise CalibrationError("camera: expected a table", where=name)
    try:
        return SensorCalibration(
            CameraModel.from_dict(camera) if camera is not None else None,
            RigidTransform.from_matrix(matrix) if matrix is not None else None,
            str(entry.get("frame_id", "")),
            int(entry.get("time_offset_ns", 0)),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(str(error), where=name) from error


def save_rig(rig: Rig, path: Path) -> None:
    """Write a rig file."""
    Path(path).write_text(yaml.safe_dump(rig.to_dict(), sort_keys=False), encoding="utf-8")

"""The rig: where the sensors sit and how they see, as one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import AnySenseError, CalibrationError
from perception.files.text import read_yaml
from perception.files.writing import write_yaml
from perception.frame import Modality, Sample, as_modality
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

SCHEMA = 1
_LARGEST_RIG_M = 100.0
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
            stamp_ns=None if sample.stamp_ns is None else sample.stamp_ns + own.time_offset_ns,
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
        CalibrationError: it is missing, no YAML, of a newer schema, or a sensor's entry is wrong.
    """
    raw = read_yaml(path, error=CalibrationError)
    try:
        return _parse(raw)
    except AnySenseError as error:
        raise CalibrationError(str(error), where=str(path)) from error


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
    frame_id, offset = entry.get("frame_id", ""), entry.get("time_offset_ns", 0)
    if not isinstance(frame_id, str | int):
        raise CalibrationError("frame_id: expected a name", where=name)
    if not isinstance(offset, int) or isinstance(offset, bool) or abs(offset) >= 2**63:
        raise CalibrationError("time_offset_ns: expected a whole number", where=name)
    try:
        return SensorCalibration(
            CameraModel.from_dict(camera) if camera is not None else None,
            mounted(RigidTransform.from_matrix(matrix)) if matrix is not None else None,
            str(frame_id),
            offset,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(str(error), where=name) from error


def mounted(transform: RigidTransform) -> RigidTransform:
    """A transform between sensors of one robot.

    Raises:
        CalibrationError: they lie further apart than any robot is large.
    """
    apart = float(np.linalg.norm(transform.translation))
    if apart > _LARGEST_RIG_M:
        hint = "are these millimetres?"
        raise CalibrationError(f"sensors {apart:.4g} m apart are none of one robot", hint=hint)
    return transform


def save_rig(rig: Rig, path: Path) -> None:
    """Write a rig file."""
    write_yaml(path, rig.to_dict(), error=CalibrationError)

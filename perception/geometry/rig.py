"""The rig: which sensors a robot has, where they sit and how they see, as one YAML file."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import AnySenseError, CalibrationError, names_hint
from perception.files.text import read_yaml
from perception.files.writing import write_yaml
from perception.frame import Kind, Sample, as_kind, check_name
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform, as_matrix, as_numbers
from perception.sensors.names import has_picture, is_kind, kinds

BASE_FRAME = "base_link"
"""The vehicle's base frame where nobody names another (REP 105)."""

SCHEMA = 2
_LARGEST_RIG_M = 100.0
_ROUNDED = 1e-4  # by so much of the deviations a covariance written with few digits may be off
_TEXTS = ("kind", "frame_id", "aligned_with", "date", "source")
_FIELDS = {
    1: {"camera", "to_reference", "frame_id", "time_offset_ns"},
    2: {"camera", "camera_sigma", "pose", "clock", *_TEXTS},
}
_RIG_TEXTS = ("base", "reference", "date", "source")
_NOT_YET = {
    "drift_ppm": 0,
    "epoch": "unix",
}  # fields of a clock, what else they say is not acted upon


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a sensor sits.

    Attributes:
        transform: from the sensor's frame (of a camera: its optical frame) to the rig's base.
        covariance: (6, 6) float64 of the errors of x, y, z in metres and of the rotations about the
            base's x, y, z axes in radians, as in `geometry_msgs/PoseWithCovariance`; None if unknown.

    Raises:
        CalibrationError: such a covariance cannot be.
    """

    transform: RigidTransform
    covariance: Float64 | None = None

    def __post_init__(self) -> None:
        if self.covariance is None:
            return
        values = as_matrix(self.covariance, (6, 6), "covariance")
        if (values.diagonal() < 0).any():
            raise CalibrationError("covariance has a negative variance")
        sigma = np.sqrt(values.diagonal())
        sigma[sigma == 0] = 1.0
        shares = values / sigma / sigma[:, None]
        if np.abs(shares - shares.T).max() > _ROUNDED:
            raise CalibrationError("covariance is not symmetric")
        if np.abs(shares).max() > 1 + _ROUNDED or np.linalg.eigvalsh(shares)[0] < -_ROUNDED:
            raise CalibrationError("covariance has a negative variance in some direction")
        object.__setattr__(self, "covariance", values)


@dataclass(frozen=True)
class SensorCalibration:
    """Calibration of one sensor.

    Attributes:
        camera: intrinsics of its image; for points those of the camera that they are projected into,
            None for the rig's reference.
        extrinsics: from the sensor's frame to the reference camera's optical frame; None for a
            sensor whose image is aligned with the reference.  A rig computes them from poses.
        frame_id: name of the sensor's frame.
        time_offset_ns: added to its stamps to bring them to the reference clock.
        kind: which kind of sensor; may be empty where its name is the kind.
        pose: where it sits; `extrinsics` do in a rig that names no base.
        aligned_with: the camera whose pixels, and so whose pose, it has.
        camera_sigma: standard deviations of fx, fy, cx, cy, and of the distortion's coefficients.
        offset_sigma_ns: standard deviation of the offset; None where it is not known.
        date, source: when it was calibrated and from what.

    Raises:
        CalibrationError: standard deviations that cannot be, or do not fit the camera.
    """

    camera: CameraModel | None = None
    extrinsics: RigidTransform | None = None
    frame_id: str = ""
    time_offset_ns: int = 0
    kind: str = ""
    _: KW_ONLY
    pose: Pose | None = None
    aligned_with: str = ""
    camera_sigma: tuple[float, ...] = ()
    offset_sigma_ns: float | None = None
    date: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        sigma = as_numbers(self.camera_sigma, "camera_sigma")
        fitting = [] if self.camera is None else [4, 4 + len(self.camera.distortion)]
        if sigma.ndim != 1 or len(sigma) not in (0, *fitting):
            raise CalibrationError(f"camera_sigma is not {fitting} numbers, as its camera has")
        offset = as_matrix(self.offset_sigma_ns or 0, (), "clock.sigma_ns")
        if not ((sigma >= 0) & (sigma < np.inf)).all() or offset < 0:
            raise CalibrationError("a standard deviation is negative or not finite")
        object.__setattr__(self, "camera_sigma", tuple(sigma.tolist()))


@dataclass(frozen=True)
class Rig:
    """All sensors of a robot, by name.

    Attributes:
        sensors: by name; of pose and extrinsics, what is not given is computed.
        base: the frame that poses lead to; empty for the reference camera's optical frame, and then
            a camera without a pose is aligned with it.
        reference: the reference camera, named (and given a pose) where `base` is and there are cameras.
        date, source: when it was calibrated and from what.

    Raises:
        AnySenseError: names, kinds, alignments or a reference that cannot be.
    """

    sensors: Mapping[str, SensorCalibration]
    base: str = ""
    reference: str = ""
    date: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        cameras = dict.fromkeys(self.cameras)
        if self.reference or (self.base and cameras):
            _known(self.reference, cameras, "reference")
        poses = {name: own.pose for name, own in self.sensors.items()}
        for name, own in self.sensors.items():
            if own.extrinsics is not None and own.pose is None and not own.aligned_with:
                if self.base:
                    raise CalibrationError(f"has no pose in '{self.base}'", where=name)
                poses[name] = Pose(own.extrinsics)
        for name, own in self.sensors.items():
            if own.aligned_with:
                other = _known(own.aligned_with, cameras, f"{name}: aligned_with")
                chained = self.sensors[other].aligned_with or name not in cameras
                if chained or own.pose not in (None, poses[other]):
                    hint = "a camera without a pose is, with one that has its own"
                    raise CalibrationError(f"cannot be aligned with {other}", where=name, hint=hint)
                poses[name] = poses[other]
        origin = poses.get(self.reference)
        if self.reference and bool(self.base) != bool(origin):
            problem = "the reference has a pose where a base is named, and only there"
            raise CalibrationError(problem, where=self.reference)
        found = {}
        for name, own in self.sensors.items():
            pose = poses[name]
            one = None if pose is None else pose.transform
            if self.reference and self.reference in (name, own.aligned_with):
                one = None
            elif self.base:
                one = origin.transform.inverse() @ one if origin and one else None
            kind = "" if own.kind == name else own.kind
            found[name] = replace(own, kind=kind, pose=pose, extrinsics=one)
        object.__setattr__(self, "sensors", found)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The sensors' kinds."""
        return {name: _kind(name, own) for name, own in self.sensors.items()}

    @property
    def cameras(self) -> list[str]:
        """The sensors that have pixels."""
        return [name for name, kind in self.kinds.items() if has_picture(kind)]

    def between(self, sensor: str, other: str) -> RigidTransform:
        """From the frame of a sensor to that of another; of cameras these are the optical frames.

        Raises:
            CalibrationError: the rig lacks one of them, or does not say where it sits.
        """
        return self._to_base(other).inverse() @ self._to_base(sensor)

    def in_base(self, name: str) -> RigidTransform | None:
        """From a sensor's frame to the base frame; None where the rig names no base or does not say it."""
        own = self.sensors.get(name)
        return own.pose.transform if self.base and own is not None and own.pose else None

    def _to_base(self, name: str) -> RigidTransform:
        pose = self.sensors[_known(name, self.sensors, "rig")].pose
        if pose is None and (self.base or name not in self.cameras):
            raise CalibrationError("the rig does not say where it sits", where=name)
        return RigidTransform.identity() if pose is None else pose.transform

    def attach(self, sample: Sample, into: str = "") -> Sample:
        """`sample` with this rig's calibration, its stamp brought to the reference clock.

        What the rig does not know, the sample keeps.

        Args:
            sample: of any sensor.
            into: the camera that points are projected into, whose intrinsics the sample gets and that
                its extrinsics lead to; if not given, the reference.

        Raises:
            CalibrationError: the sensor is of another kind, or the rig does not know `into` well.
        """
        own = self.sensors.get(sample.sensor)
        if own is None:
            return sample
        if sample.kind != (kind := _kind(sample.sensor, own)):
            raise CalibrationError(f"{kind} in the rig, not {sample.kind}", where=sample.sensor)
        camera, extrinsics = own.camera, own.extrinsics
        if not into and self.reference and not has_picture(kind):
            camera = camera or self.sensors[self.reference].camera
        found = replace(
            sample,
            camera=camera or sample.camera,
            extrinsics=extrinsics or sample.extrinsics,
            frame_id=sample.frame_id or own.frame_id,
            stamp_ns=None if sample.stamp_ns is None else sample.stamp_ns + own.time_offset_ns,
            pose=self.in_base(sample.sensor) or sample.pose,
        )
        return self.project(found, into) if into else found

    def project(self, sample: Sample, into: str) -> Sample:
        """`sample` with what projects it into a camera; what is no points of this rig's, as it is.

        Raises:
            CalibrationError: the rig lacks the camera, its intrinsics, or the place of either.
        """
        if sample.sensor not in self.sensors or has_picture(sample.kind):
            return sample
        extrinsics, camera = self.between(sample.sensor, into), self.sensors[into].camera
        if camera is None:
            raise CalibrationError("the rig has no intrinsics of it", where=into)
        return replace(sample, camera=camera, extrinsics=extrinsics)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, of the newest schema; what is not known is left out."""
        texts = {key: text for key in _RIG_TEXTS if (text := getattr(self, key))}
        sensors = {name: _plain(own) for name, own in self.sensors.items()}
        return {"schema": SCHEMA, **texts, "sensors": sensors}


def _kind(name: str, own: SensorCalibration) -> Kind:
    check_name(name, "sensors")
    kind = own.kind or name
    if not is_kind(kind) or (is_kind(name) and kind != name):
        problem = f"cannot be of kind '{kind}'" if own.kind else "has no kind"
        raise CalibrationError(problem, where=name, hint=f"kind: {names_hint(kind, kinds())}")
    return kind


def _known(name: str, names: Collection[str], where: str) -> str:
    if name not in names:
        problem = f"'{name}' is not known" if name else "is missing"
        hint = names_hint(name, names)
        raise CalibrationError(problem, where=where, hint=hint)
    return name


def _plain(own: SensorCalibration) -> dict[str, Any]:
    pose: dict[str, Any] = {}
    if own.pose is not None and not own.aligned_with:
        pose["matrix"] = own.pose.transform.matrix.tolist()
        if own.pose.covariance is not None:
            pose["covariance"] = own.pose.covariance.tolist()
    clock: dict[str, float] = {"offset_ns": own.time_offset_ns} if own.time_offset_ns else {}
    if own.offset_sigma_ns is not None:
        clock["sigma_ns"] = own.offset_sigma_ns
    entry = {
        **{key: getattr(own, key) for key in _TEXTS},
        "camera": own.camera and own.camera.to_dict(),
        "camera_sigma": list(own.camera_sigma),
        "pose": pose,
        "clock": clock,
    }
    return {key: value for key, value in entry.items() if value}


def load_rig(path: Path) -> Rig:
    """Read a rig file of any schema so far.

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
    schema = raw.get("schema", 1)
    if schema not in (1, SCHEMA):
        raise CalibrationError(f"schema is {schema}, this version reads 1 and {SCHEMA}")
    entries = {str(name): entry for name, entry in raw["sensors"].items()}
    if schema == 1:
        return Rig({as_kind(name): _sensor(name, entry, 1) for name, entry in entries.items()})
    texts = _texts(_table(raw, "", {"schema", "sensors", *_RIG_TEXTS}), _RIG_TEXTS)
    return Rig({name: _sensor(name, entry, schema) for name, entry in entries.items()}, **texts)


def _table(value: Any, where: str, fields: Collection[str]) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise CalibrationError("expected a table", where=where)
    unknown = {str(key) for key in value} - set(fields)
    if unknown:  # a misspelled 'pose' would read as: aligned with the reference
        hint = names_hint(min(unknown), sorted(fields))
        raise CalibrationError(f"unknown field '{min(unknown)}'", where=where, hint=hint)
    return value


def _texts(table: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    found = {key: table[key] for key in keys if key in table}
    for key, value in found.items():
        if not isinstance(value, str | int | datetime.date):
            raise CalibrationError(f"{key}: expected a name or a text")
    return {key: str(value) for key, value in found.items()}


def _sensor(name: str, entry: Any, schema: int) -> SensorCalibration:
    try:
        texts = _texts(_table(entry, "", _FIELDS[schema]), _TEXTS)
        camera, place, covariance = entry.get("camera"), entry.get("to_reference"), None
        if not isinstance(camera, dict | None):
            raise CalibrationError("camera: expected a table")
        if "pose" in entry:
            pose = _table(entry["pose"], "pose", ("matrix", "covariance"))
            place, covariance = pose.get("matrix", "none is given"), pose.get("covariance")
        clock, where = {"offset_ns": entry.get("time_offset_ns", 0)}, "time_offset_ns"
        if "clock" in entry:
            clock = _table(entry["clock"], "clock", ("offset_ns", "sigma_ns", *_NOT_YET))
            where = "clock.offset_ns"
        for key, neutral in _NOT_YET.items():
            if clock.get(key, neutral) != neutral:
                raise CalibrationError(f"clock.{key} other than {neutral} is not supported yet")
        offset = clock.get("offset_ns", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or abs(offset) >= 2**63:
            raise CalibrationError(f"{where}: expected a whole number")
        at = None if place is None else mounted(RigidTransform.from_matrix(place))
        return SensorCalibration(
            camera if camera is None else CameraModel.from_dict(camera),
            time_offset_ns=offset,
            pose=None if at is None else Pose(at, covariance),
            camera_sigma=entry.get("camera_sigma", ()),
            offset_sigma_ns=None
            if (sigma := clock.get("sigma_ns")) is None
            else float(as_matrix(sigma, (), "clock.sigma_ns")),
            **texts,
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
    write_yaml(path, rig.to_dict(), error=CalibrationError, default_flow_style=None)

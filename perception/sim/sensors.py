"""Where the simulated sensors sit, and their rays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError, names_hint
from perception.frame import KINDS, Kind
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

Float64 = NDArray[np.float64]

CAMERA_HEIGHT_M = 1.45
LIDAR_POSITION_M = (-0.35, 0.0, 1.75)
"""The LiDAR in the ego frame (x forward, y left, z up, origin on the ground below the camera)."""

OPTICAL_FROM_BODY = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
"""Rotation from a body frame (REP 103) to a camera's optical frame."""


@dataclass(frozen=True)
class BeamPattern:
    """A spinning LiDAR: elevation of each beam in degrees, firings per turn, reach in metres."""

    elevations: tuple[float, ...]
    azimuths: int
    reach_m: float
    range_noise_m: float = 0.02


def _even(low: float, high: float, beams: int) -> tuple[float, ...]:
    return tuple(float(v) for v in np.linspace(low, high, beams))


# Beam tables from the makers' data sheets.
BEAM_PATTERNS: dict[str, BeamPattern] = {
    "vlp16": BeamPattern(_even(-15.0, 15.0, 16), 900, 100.0, 0.03),
    "hdl32": BeamPattern(_even(-30.67, 10.67, 32), 1084, 100.0, 0.02),
    "os1-64": BeamPattern(_even(-22.5, 22.5, 64), 512, 90.0, 0.02),
}


def camera_model(height: int, width: int, fov_deg: float = 74.0) -> CameraModel:
    """A pinhole camera with this horizontal field of view."""
    focal = width / 2 / np.tan(np.radians(fov_deg / 2))
    return CameraModel(
        width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, frame_id="camera"
    )


@dataclass(frozen=True)
class Mounted:
    """A sensor on the vehicle.

    Attributes:
        kind: of the sensor.
        camera: intrinsics of its pictures; None of a LiDAR.
        position: metres in the ego frame.
        yaw: radians to the left.
    """

    kind: Kind
    camera: CameraModel | None
    position: tuple[float, float, float]
    yaw: float

    @property
    def pose(self) -> RigidTransform:
        """From the sensor's frame (of a camera: its optical frame) to the ego frame."""
        optical = np.eye(3) if self.camera is None else OPTICAL_FROM_BODY.T
        return RigidTransform(about_z(self.yaw) @ optical, np.array(self.position))

    def to_other(self, other: Mounted) -> RigidTransform:
        """From this sensor's frame to that of another."""
        return other.pose.inverse() @ self.pose


MOUNTS = {"right": (0.0, -0.2, 0.0, 74.0), "rear": (-1.5, 0.0, 180.0, 100.0)}
"""Sensors of these names: metres forward and left of where others of the kind sit, yaw and field of view
in degrees.  `right` is so the right camera of a stereo pair whose left one is any other."""


def about_z(angle: float) -> Float64:
    """Rotation about the vertical axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def mount_sensors(
    size: tuple[int, int],
    kinds: Mapping[str, Kind] | None = None,
    yaw_deg: Mapping[str, float] | None = None,
) -> dict[str, Mounted]:
    """Sensors on the vehicle: cameras share one optical center, LiDARs one above and behind it.

    Args:
        size: (height, width) of pictures.
        kinds: by name; one of each kind when not given.
        yaw_deg: of sensors that do not look where `MOUNTS` says, in degrees to the left.

    Raises:
        ConfigError: a yaw is of no sensor.
    """
    kinds, yaw_deg = kinds or {kind: kind for kind in KINDS}, yaw_deg or {}
    for name in yaw_deg:
        if name not in kinds:
            raise ConfigError(
                f"there is no sensor '{name}'", where="yaw", hint=names_hint(name, kinds)
            )
    found = {}
    for name, kind in kinds.items():
        x, y, z = LIDAR_POSITION_M if kind == "lidar" else (0.0, 0.0, CAMERA_HEIGHT_M)
        forward, left, yaw, fov = MOUNTS.get(name, (0.0, 0.0, 0.0, 74.0))
        camera = None if kind == "lidar" else camera_model(*size, fov)
        turned = float(np.radians(yaw_deg.get(name, yaw)))
        found[name] = Mounted(kind, camera, (x + forward, y + left, z), turned)
    return found


def make_rig(sensors: Mapping[str, Mounted], reference: str) -> Rig:
    """The calibration of sensors; pictures from the reference's place are aligned with it."""
    origin, found = sensors[reference], {}
    for name, own in sensors.items():
        aligned = own.camera is not None and replace(own, kind=origin.kind) == origin
        extrinsics, frame_id = (None, reference) if aligned else (own.to_other(origin), name)
        frame_id = "camera" if aligned and reference in KINDS else frame_id
        camera = own.camera and replace(own.camera, frame_id=frame_id)
        found[name] = SensorCalibration(camera, extrinsics, frame_id, kind=own.kind)
    return Rig(found, reference=reference)


def pixel_rays(camera: CameraModel) -> Float64:
    """(H*W, 3) unit rays in the ego frame through all pixel centers, row by row."""
    v, u = np.mgrid[: camera.height, : camera.width]
    optical = camera.unproject(np.column_stack([u.ravel(), v.ravel()]), np.ones(u.size))
    rays = optical @ OPTICAL_FROM_BODY
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def beam_rays(
    pattern: BeamPattern, half_angle_deg: float = 180.0
) -> tuple[Float64, NDArray[np.int64]]:
    """Unit rays (N, 3) of a turn in the LiDAR frame and the ring (N,) of each, within an azimuth."""
    if not 0 < half_angle_deg <= 180:
        raise ConfigError("must be in (0, 180] degrees", where="half_angle_deg")
    azimuth = np.radians(np.arange(pattern.azimuths) * 360.0 / pattern.azimuths - 180.0)
    azimuth = azimuth[np.abs(azimuth) <= np.radians(half_angle_deg)]
    elevation = np.radians(np.array(pattern.elevations))
    a, e = np.meshgrid(azimuth, elevation)
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1)
    rings = np.repeat(np.arange(len(elevation)), len(azimuth))
    return rays.reshape(-1, 3), rings

"""Where the simulated sensors sit, and their rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError
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


def camera_model(height: int, width: int) -> CameraModel:
    """A pinhole camera with a horizontal field of view of 74 degrees."""
    focal = width / 2 / np.tan(np.radians(37.0))
    return CameraModel(
        width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, frame_id="camera"
    )


def make_rig(height: int, width: int) -> Rig:
    """Camera, depth and thermal share one optical center; the LiDAR sits above and behind it."""
    camera = camera_model(height, width)
    aligned = SensorCalibration(camera, None, "camera")
    return Rig(
        {
            "rgb": aligned,
            "depth": aligned,
            "thermal": aligned,
            "lidar": SensorCalibration(camera, lidar_to_camera(), "lidar"),
        }
    )


def lidar_to_camera() -> RigidTransform:
    """From the LiDAR's frame to the camera's optical frame."""
    offset = np.array(LIDAR_POSITION_M) - [0, 0, CAMERA_HEIGHT_M]
    return RigidTransform(OPTICAL_FROM_BODY, OPTICAL_FROM_BODY @ offset)


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

"""The calibration texts of a KITTI raw drive as a rig.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform


def read_calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    """The numeric entries of a KITTI calibration text, by key.

    Raises:
        CalibrationError: the file is missing or no text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CalibrationError("no such file", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise CalibrationError("not a text", where=str(path)) from error
    entries = {}
    for line in text.splitlines():
        key, _, values = line.partition(":")
        try:
            entries[key] = np.array([float(v) for v in values.split()])
        except ValueError:
            continue  # calib_time
    return entries


def rig_from_kitti(folder: Path) -> Rig:
    """The rig of color camera 2 (rectified, the reference) and the Velodyne.

    Raises:
        CalibrationError: a file or entry is missing or of the wrong length.
    """
    folder = Path(folder)
    cameras = read_calibration(folder / "calib_cam_to_cam.txt")
    velodyne = read_calibration(folder / "calib_velo_to_cam.txt")
    try:
        projection = cameras["P_rect_02"].reshape(3, 4)
        width, height = (int(v) for v in cameras["S_rect_02"])
        rectify = RigidTransform(cameras["R_rect_00"].reshape(3, 3), np.zeros(3))
        to_camera = RigidTransform(velodyne["R"].reshape(3, 3), velodyne["T"])
        k = projection[:, :3]
        camera = CameraModel(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], frame_id="camera")
        # P = K [I | t]: camera 2 sits beside camera 0 by t, in rectified coordinates.
        offset = RigidTransform(np.eye(3), np.linalg.solve(k, projection[:, 3]).astype(np.float64))
    except (KeyError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
        raise CalibrationError(f"entry missing or garbled: {error}", where=str(folder)) from error
    return Rig(
        {
            "rgb": SensorCalibration(camera, None, "camera"),
            "lidar": SensorCalibration(camera, offset @ rectify @ to_camera, "velodyne"),
        }
    )

"""The calibration texts of a KITTI raw drive as a rig.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.files.text import read_text
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration, mounted
from perception.geometry.transforms import RigidTransform


class KittiTexts:
    """A calibration text: lines of `key: values`.

    Args:
        path: the file.

    Raises:
        CalibrationError: it is missing, no text, or has a key twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, tuple[int, str]] = {}
        for number, line in enumerate(read_text(path, error=CalibrationError).split("\n"), 1):
            key, colon, values = line.partition(":")
            if not colon:
                continue
            if key in self._entries:
                first = self._entries[key][0]
                raise CalibrationError(
                    f"'{key}' is given twice, first in line {first}", where=f"{path}:{number}"
                )
            self._entries[key] = number, values

    def array(self, key: str, *shape: int) -> NDArray[np.float64]:
        """The numbers of an entry, in `shape`.

        Raises:
            CalibrationError: it is missing, not numeric, not finite, or of another length.
        """
        if key not in self._entries:
            raise CalibrationError(f"no entry '{key}'", where=str(self.path))
        line, text = self._entries[key]
        where = f"{self.path}:{line}"
        try:
            values = np.array([float(v) for v in text.split()], np.float64)
        except ValueError as error:
            raise CalibrationError(f"'{key}' is not numeric", where=where) from error
        wanted = math.prod(shape)
        if values.size != wanted:
            raise CalibrationError(
                f"'{key}' has {values.size} numbers, expected {wanted}", where=where
            )
        if not np.isfinite(values).all():
            raise CalibrationError(f"'{key}' is not finite", where=where)
        return values.reshape(shape)


def rig_from_kitti(folder: Path) -> Rig:
    """The rig of color camera 2 (rectified, the reference) and the Velodyne.

    Raises:
        CalibrationError: a file or entry is missing, garbled or impossible.
    """
    cameras = KittiTexts(Path(folder) / "calib_cam_to_cam.txt")
    velodyne = KittiTexts(Path(folder) / "calib_velo_to_cam.txt")
    projection = cameras.array("P_rect_02", 3, 4)
    width, height = cameras.array("S_rect_02", 2)
    k = projection[:, :3]
    with _naming(cameras.path):
        rectify = RigidTransform(cameras.array("R_rect_00", 3, 3), np.zeros(3))
        # P = K [I | t]: camera 2 sits beside camera 0 by t, in rectified coordinates.
        try:
            shift = np.linalg.solve(k, projection[:, 3])
        except np.linalg.LinAlgError as error:
            raise CalibrationError("'P_rect_02' is singular") from error
        info = {"width": width, "height": height, "p": projection.ravel(), "frame_id": "camera"}
        camera = CameraModel.from_camera_info(info, rectified=True)
        offset = RigidTransform(np.eye(3), shift.astype(np.float64))
    with _naming(velodyne.path):
        to_camera = mounted(RigidTransform(velodyne.array("R", 3, 3), velodyne.array("T", 3)))
    return Rig(
        {
            "rgb": SensorCalibration(camera, None, "camera"),
            "lidar": SensorCalibration(camera, offset @ rectify @ to_camera, "velodyne"),
        }
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about that does not."""
    try:
        yield
    except CalibrationError as error:
        if error.where.startswith(str(path)):
            raise
        raise CalibrationError(str(error), where=str(path)) from error

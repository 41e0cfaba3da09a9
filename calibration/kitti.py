"""The calibration texts of a KITTI raw drive, or of its benchmarks, as a rig.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.files.text import read_text
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, mounted
from perception.geometry.transforms import RigidTransform

CAMERA_TEXT, LIDAR_TEXT = "calib_cam_to_cam.txt", "calib_velo_to_cam.txt"
IMU_TEXT = "calib_imu_to_velo.txt"

BASE = "base_link"
VELODYNE_HEIGHT_M = 1.73
"""Of the Velodyne above the road, as the data set's description of its car says."""


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

    def keys(self) -> list[str]:
        """The entries' names."""
        return list(self._entries)

    def has(self, key: str) -> bool:
        """Whether there is such an entry."""
        return key in self._entries

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

    def one_of(self, keys: Sequence[str], *shape: int) -> NDArray[np.float64] | None:
        """The numbers of the first of these entries that is there, None without any.

        Raises:
            CalibrationError: see `array`.
        """
        key = next((key for key in keys if key in self._entries), None)
        return None if key is None else self.array(key, *shape)


def rig_from_kitti_calib(path: Path, size: tuple[int, int]) -> Rig:
    """The rig of color camera 2 (rectified, the reference) and the Velodyne, of the object benchmark's
    `calib/ID.txt` or the odometry benchmark's `calib.txt`.

    Args:
        path: the text, with `P2`, `R0_rect` (none in odometry) and `Tr_velo_to_cam` (`Tr`).
        size: (height, width) of the camera's pictures, which the text does not say.

    Raises:
        CalibrationError: an entry is missing, garbled or impossible.
    """
    texts = KittiTexts(path)
    projection = texts.array("P2", 3, 4)
    turn = texts.one_of(("R0_rect", "R_rect"), 3, 3)
    with _naming(path):
        camera, offset = camera_of(projection, size, "P2")
        rectify = RigidTransform(np.eye(3) if turn is None else turn, np.zeros(3))
        placed = texts.one_of(("Tr_velo_to_cam", "Tr_velo_cam", "Tr"), 3, 4)
        if placed is None:
            raise CalibrationError("no entry 'Tr_velo_to_cam'")
        to_camera = mounted(RigidTransform(placed[:, :3], placed[:, 3]))
    return _rig(camera, offset @ rectify @ to_camera)


def shift_of_camera_2(path: Path) -> NDArray[np.float64]:
    """From rectified coordinates of camera 0, in which KITTI's objects are, to those of camera 2; metres.

    Raises:
        CalibrationError: `P2` is missing, garbled or singular.
    """
    with _naming(path):
        return camera_of(KittiTexts(path).array("P2", 3, 4), (1, 1), "P2")[1].translation


def camera_of(
    projection: NDArray[np.float64], size: tuple[float, float], key: str
) -> tuple[CameraModel, RigidTransform]:
    """The camera of a 3x4 projection, and the transform from rectified coordinates of camera 0 to its own.

    Args:
        projection: of rectified coordinates, metres, into pixels.
        size: (height, width) of its pictures.
        key: names the projection in errors.

    Raises:
        CalibrationError: it is none of a camera.
    """
    # P = K [I | t]: the camera sits beside camera 0 by t, in rectified coordinates.
    try:
        shift = np.linalg.solve(projection[:, :3], projection[:, 3])
    except np.linalg.LinAlgError as error:
        raise CalibrationError(f"'{key}' is singular") from error
    height, width = size
    info = {"width": width, "height": height, "p": projection.ravel(), "frame_id": "camera"}
    camera = CameraModel.from_camera_info(info, rectified=True)
    return camera, RigidTransform(np.eye(3), shift.astype(np.float64))


def _rig(camera: CameraModel, to_camera: RigidTransform) -> Rig:
    return Rig(
        {
            "rgb": SensorCalibration(camera, None, "camera"),
            "lidar": SensorCalibration(camera, to_camera, "velodyne"),
        }
    )


def rig_from_kitti(folder: Path) -> Rig:
    """The rig of color camera 2 (rectified, the reference) and the Velodyne.

    Raises:
        CalibrationError: a file or entry is missing, garbled or impossible.
    """
    cameras = KittiTexts(Path(folder) / CAMERA_TEXT)
    velodyne = KittiTexts(Path(folder) / LIDAR_TEXT)
    projection = cameras.array("P_rect_02", 3, 4)
    width, height = cameras.array("S_rect_02", 2)
    with _naming(cameras.path):
        rectify = RigidTransform(cameras.array("R_rect_00", 3, 3), np.zeros(3))
        camera, offset = camera_of(projection, (height, width), "P_rect_02")
    with _naming(velodyne.path):
        to_camera = mounted(RigidTransform(velodyne.array("R", 3, 3), velodyne.array("T", 3)))
    return _rig(camera, offset @ rectify @ to_camera)


def velodyne_in_base(height_m: float = VELODYNE_HEIGHT_M) -> RigidTransform:
    """From the Velodyne to the base that we give KITTI's car: on the road below the Velodyne, its axes along
    the Velodyne's (x forward, y left, z up), which stands level enough for it."""
    return RigidTransform(np.eye(3), np.array([0.0, 0.0, height_m]))


def on_the_road(rig: Rig, height_m: float = VELODYNE_HEIGHT_M) -> Rig:
    """A rig of KITTI's car with places in its base, see `velodyne_in_base`.

    Args:
        rig: with the Velodyne's extrinsics to camera 2, the reference, as above.
        height_m: of the LiDAR above the road.
    """
    camera, lidar = rig.sensors["rgb"], rig.sensors["lidar"]
    assert lidar.extrinsics is not None
    base = velodyne_in_base(height_m)
    placed = {
        "rgb": SensorCalibration(
            camera.camera, None, camera.frame_id, pose=Pose(base @ lidar.extrinsics.inverse())
        ),
        "lidar": SensorCalibration(lidar.camera, None, lidar.frame_id, pose=Pose(base)),
    }
    return Rig(placed, BASE, "rgb", rig.date, rig.source)


def imu_to_velodyne(folder: Path) -> RigidTransform | None:
    """From the GPS and inertial unit of a raw drive to its Velodyne; None of a drive that does not say it.

    Raises:
        CalibrationError: an entry is missing, garbled or impossible.
    """
    path = Path(folder) / IMU_TEXT
    if not path.is_file():
        return None
    texts = KittiTexts(path)
    with _naming(path):
        return mounted(RigidTransform(texts.array("R", 3, 3), texts.array("T", 3)))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about that does not."""
    try:
        yield
    except CalibrationError as error:
        if error.where.startswith(str(path)):
            raise
        raise CalibrationError(str(error), where=str(path)) from error

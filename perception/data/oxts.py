"""Where KITTI's car was: `oxts`, the readings of its GPS and inertial unit.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013; the raw-data development kit for the
projection.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.kitti import imu_to_velodyne, velodyne_in_base
from perception.data.stamps import read_stamps
from perception.errors import DataError
from perception.files.listing import list_files
from perception.files.text import read_text
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

EARTH_RADIUS_M = 6378137.0
_FIRST = ("latitude", "longitude", "altitude", "roll", "pitch", "yaw")
_STEEPEST_DEG = 85.0  # where Mercator's map ends


def read_trajectory(root: Path) -> Trajectory | None:
    """Poses of the car's base (see `calibration.kitti.velodyne_in_base`); None of a drive without.

    The fixed frame's x points east, y north and z up; its origin is where the unit was first.  Places are on
    a Mercator map, scaled to be right at the first latitude.

    Args:
        root: the drive, with `oxts/data`, `oxts/timestamps.txt` and `calib_imu_to_velo.txt`.

    Raises:
        DataError, CalibrationError: one of them is wrong; it is named.
    """
    folder, stamps_file = root / "oxts/data", root / "oxts/timestamps.txt"
    imu = imu_to_velodyne(root)
    if imu is None or not folder.is_dir() or not stamps_file.is_file():
        return None
    known = read_stamps(stamps_file)
    stamps: list[int] = []
    rows: list[NDArray[np.float64]] = []
    for name, path in list_files(folder, (".txt",)).items():
        if not (name.isascii() and name.isdigit()):
            raise DataError(f"'{name[:40]}' is no frame number", where=str(folder))
        stamp = known[int(name)] if int(name) < len(known) else None
        # Some drives have a stamp that lies before the last one: nothing is known of then.
        if stamp is not None and (not stamps or stamp > stamps[-1]):
            stamps.append(stamp)
            rows.append(read_row(path))
    to_imu = (velodyne_in_base() @ imu).inverse()
    return Trajectory(np.array(stamps, np.int64), tuple(p @ to_imu for p in poses_of(rows)))


def read_row(path: Path) -> NDArray[np.float64]:
    """Latitude and longitude in degrees, altitude in metres, roll, pitch and yaw in radians, (6,).

    Raises:
        DataError: it is none.
    """
    words = read_text(path).split()[: len(_FIRST)]
    if len(words) < len(_FIRST):
        raise DataError(f"has {len(words)} numbers, expected {', '.join(_FIRST)}", where=str(path))
    try:
        values = np.array([float(word) for word in words], np.float64)
    except ValueError as error:
        raise DataError("not numbers", where=str(path)) from error
    if not np.isfinite(values).all() or abs(values[0]) > _STEEPEST_DEG or abs(values[1]) > 360:
        raise DataError(f"latitude {words[0]}, longitude {words[1]} is no place", where=str(path))
    if np.abs(values[3:]).max() > 2 * np.pi:
        raise DataError("roll, pitch and yaw are no angles in radians", where=str(path))
    return values


def poses_of(rows: list[NDArray[np.float64]]) -> list[RigidTransform]:
    """From the unit (x forward, y left, z up) to the fixed frame, by rows of `read_row`."""
    if not rows:
        return []
    scale = np.cos(np.radians(rows[0][0]))
    places = [_place(row, scale) for row in rows]
    return [
        RigidTransform(_turn(*row[3:]), place - places[0])
        for row, place in zip(rows, places, strict=True)
    ]


def _place(row: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    latitude, longitude = np.radians(row[:2])
    east = scale * EARTH_RADIUS_M * longitude
    north = scale * EARTH_RADIUS_M * np.log(np.tan(np.pi / 4 + latitude / 2))
    return np.array([east, north, row[2]])


def _turn(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """About x, then y, then z."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, np.float64)

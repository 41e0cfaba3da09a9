"""Clouds from arrays, messages and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import CLOUD_SUFFIXES, naming
from perception.adapters.headerless import columns_of, parse_bin
from perception.adapters.messages import CLOUD, cloud_of
from perception.adapters.pcd import parse_pcd
from perception.adapters.pointcloud import points_from_array, timed_points_from_array
from perception.errors import EncodingError, names_hint
from perception.files.arrays import parse_npy, parse_npz
from perception.files.text import read_bytes
from perception.frame import LEAST_RANGE_M, Sample
from perception.sensors.kind import Hints

ROS_TYPES = (CLOUD,)


def from_array(array: NDArray[Any], hints: Hints) -> Sample:
    """(N, 3) or (N, 4); see `points_from_array`."""
    if hints.encoding not in ("", "xyzi"):
        raise EncodingError(
            f"unknown encoding '{hints.encoding}'", hint=names_hint(hints.encoding, ("xyzi",))
        )
    return Sample("lidar", points_from_array(array), encoding="xyzi")


def from_message(message: Any, hints: Hints) -> Sample:
    """A `PointCloud2`."""
    points, times = cloud_of(message, hints.least_range_m)
    return Sample("lidar", points, encoding="xyzi", times=times)


def from_file(path: Path, hints: Hints) -> Sample:
    """See `load_lidar`."""
    return load_lidar(path, hints.columns, least_range_m=hints.least_range_m)


def load_lidar(
    path: Path, columns: int | None = None, *, least_range_m: float = LEAST_RANGE_M
) -> Sample:
    """A cloud: .npy (N, 3..5), .npz (`points`, or `xyz_5mm` and `intensity`; `time`), .pcd, .bin or .pcd.bin.

    Args:
        path: the file.
        columns: float32 a point of .bin, which has no header; without it 5 of `.pcd.bin` (nuScenes) and
            4 of other `.bin` (KITTI).  The other formats say it themselves.
        least_range_m: the sensor's least range; what is nearer, (0, 0, 0) too, is no return.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: another format, damaged, or contents that contradict `columns`.
    """
    with naming(path):
        array, times = _cloud(Path(path), columns)
        if array.dtype.kind in "ui":
            raise EncodingError(
                f"coordinates are {array.dtype}, their scale is not known",
                hint="x, y, z in metres as floats",
            )
        if times is None:
            points = points_from_array(array, least_range_m=least_range_m)
        else:
            points, times = timed_points_from_array(array, times, least_range_m=least_range_m)
        return Sample("lidar", points, encoding="xyzi", times=times)


def _cloud(path: Path, columns: int | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Rows of points, and when each was measured where the file says it."""
    told = columns_of(path)
    if told is not None:
        return parse_bin(read_bytes(path), told if columns is None else columns), None
    reader = _CLOUD_READERS.get(path.suffix.lower())
    if reader is None:
        raise EncodingError("unknown cloud format", hint=names_hint(path.suffix, CLOUD_SUFFIXES))
    return reader(read_bytes(path))


def _npy(content: bytes) -> tuple[NDArray[Any], None]:
    return parse_npy(content, error=EncodingError), None


def _pcd(content: bytes) -> tuple[NDArray[Any], None]:
    return parse_pcd(content), None


def _npz(content: bytes) -> tuple[NDArray[Any], NDArray[Any] | None]:
    names = ("points", "xyz_5mm", "intensity", "time")
    arrays = parse_npz(content, names, error=EncodingError)
    times = arrays.get("time")
    if (
        times is not None and times.ndim != 1
    ):  # something else of that name, such as the cloud's stamp
        times = None
    if "points" in arrays:
        return arrays["points"], times
    if not {"xyz_5mm", "intensity"} <= set(arrays):
        raise EncodingError("holds no array 'points'")
    steps, intensity = arrays["xyz_5mm"], arrays["intensity"]
    if steps.ndim != 2 or intensity.shape != steps.shape[:1]:
        raise EncodingError(f"xyz_5mm {steps.shape} and intensity {intensity.shape} do not fit")
    rows = np.column_stack([steps * np.float32(0.005), intensity.astype(np.float32) / 255])
    return rows, times


_CLOUD_READERS = {".npy": _npy, ".npz": _npz, ".pcd": _pcd}

"""Single sensor files as samples: pictures, depth maps, clouds."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.depth import depth_from_array
from perception.adapters.pcd import read_pcd
from perception.adapters.pointcloud import points_from_array
from perception.adapters.thermal import thermal_from_array
from perception.errors import DataError, EncodingError
from perception.frame import Sample

CLOUD_SUFFIXES = (".npy", ".npz", ".bin", ".pcd")


def _image(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise EncodingError("cannot be read as an image", where=str(path))
    return image


def _array(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise EncodingError("cannot be read as a numpy array", where=str(path)) from error


def load_rgb(path: Path) -> Sample:
    """A color or gray picture (8 or 16 bit) as an rgb sample.

    Raises:
        DataError: no such file.
        EncodingError: no picture.
    """
    image = _image(Path(path))
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # type: ignore[operator]
    if image.dtype != np.uint8:
        raise EncodingError(f"{image.dtype} picture, expected 8 or 16 bit", where=str(path))
    if image.ndim == 2:
        rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    else:
        rgb = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2RGB)
    return Sample("rgb", rgb, encoding="rgb8")


def load_depth(path: Path, scale: float | None = None) -> Sample:
    """A depth map: 16 bit PNG in millimetres, float TIFF/EXR or .npy in metres, or any with `scale`."""
    path = Path(path)
    array = _array(path) if path.suffix == ".npy" else _image(path)
    if array.ndim == 3:
        raise EncodingError("depth map has several channels", where=str(path))
    return Sample("depth", depth_from_array(array, scale), encoding=str(array.dtype))


def load_thermal(path: Path, unit: str = "auto") -> Sample:
    """A thermal picture: 8 or 16 bit PNG/JPEG, float TIFF, or .npy; see `decode_thermal` for `unit`."""
    path = Path(path)
    array = _array(path) if path.suffix == ".npy" else _image(path)
    if array.ndim == 3:  # a gray picture that was saved with three channels
        array = np.ascontiguousarray(array[..., 1])
    values, found = thermal_from_array(array, unit=unit)
    return Sample("thermal", values, encoding=str(array.dtype), unit=found)


def load_lidar(path: Path) -> Sample:
    """A cloud: .npy (N, 3..5), .npz (`points`, or `xyz_5mm` and `intensity`), KITTI .bin, or .pcd.

    Raises:
        DataError: no such file.
        EncodingError: another format, or damaged.
    """
    path = Path(path)
    if path.suffix not in CLOUD_SUFFIXES:
        raise EncodingError("unknown cloud format", where=str(path), hint=", ".join(CLOUD_SUFFIXES))
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    if path.suffix == ".npz":
        points = _from_npz(path)
    elif path.suffix == ".bin":
        flat = np.fromfile(path, np.float32)
        if flat.size % 4:
            raise EncodingError("size is no multiple of four float32", where=str(path))
        points = flat.reshape(-1, 4)
    elif path.suffix == ".pcd":
        points = read_pcd(path)
    else:
        points = _array(path)
    return Sample("lidar", points_from_array(points), encoding="xyzi")


def _from_npz(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "points" in archive:
                return archive["points"]
            if "xyz_5mm" in archive and "intensity" in archive:
                intensity = archive["intensity"].astype(np.float32) / 255.0
                return np.column_stack([archive["xyz_5mm"] * np.float32(0.005), intensity])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise EncodingError("cannot be read as an .npz archive", where=str(path)) from error
    raise EncodingError("holds no array 'points'", where=str(path))

"""Single sensor files as samples: pictures, depth maps, clouds, and label masks.

The one reader of such files: the folder format, the data sets and `anysense run` all come here.  What a
file is, is told by its first bytes (JPEG, PNG, TIFF, .npy) and only where there are none to tell, as in
.bin, by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.depth import depth_from_array
from perception.adapters.headerless import COLUMNS_BY_SUFFIX, columns_of, parse_bin
from perception.adapters.pcd import parse_pcd
from perception.adapters.pictures import (
    Picture,
    decode_labels,
    decode_picture,
    dim_remark,
    radiometric_remark,
    remarks,
    single_channel,
)
from perception.adapters.pointcloud import points_from_array
from perception.adapters.thermal import thermal_from_array
from perception.errors import EncodingError, InputError
from perception.files.arrays import NPY_MAGIC, parse_npy, parse_npz
from perception.files.limits import MAX_ARCHIVE_FILES
from perception.files.text import read_bytes
from perception.frame import LEAST_RANGE_M, Kind, Sample

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
CLOUD_SUFFIXES = (".npy", ".npz", *COLUMNS_BY_SUFFIX, ".pcd")

_DAMAGED: dict[Path, str] = {}  # of the files that were read last

_ENCODINGS = {"uint8": "8UC1", "uint16": "16UC1", "float32": "32FC1", "float64": "64FC1"}


def load_rgb(path: Path) -> Sample:
    """A color or gray picture (JPEG, PNG or TIFF, 8 or 16 bit) as an rgb sample.

    It is turned upright as its EXIF or TIFF orientation says.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no picture, or cut off.
    """
    with _naming(path):
        return Sample("rgb", _picture(read_bytes(path), path).rgb(), encoding="rgb8")


def load_depth(path: Path, scale: float | None = None, m_per_count8: float | None = None) -> Sample:
    """A depth map: PNG, TIFF or .npy of integer steps, or TIFF or .npy of floats in metres.

    The raster is never turned.

    Args:
        path: the file.
        scale: metres per step of integers; 0.001 for 16 bit ones when it is not given.
        m_per_count8: metres per step of an 8 bit file when `scale` is not given.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no depth map, cut off, or its scale is not known.
    """
    with _naming(path):
        content = read_bytes(path)
        array = _array(content, path)
        if array is None:
            array = single_channel(_picture(content, path).samples())
        if scale is None and array.dtype == np.uint8:
            scale = m_per_count8
        return Sample("depth", depth_from_array(array, scale), encoding=_encoding(array))


def load_thermal(path: Path, unit: str = "auto") -> Sample:
    """A thermal picture: 8 or 16 bit PNG, JPEG or TIFF, or floats in TIFF or .npy.

    It is turned upright as its EXIF or TIFF orientation says.  Of a radiometric JPEG the preview is read,
    with a warning: its counts are no temperatures.  See `decode_thermal` for `unit`.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no picture, cut off, false colors, or values that cannot be `unit`.
    """
    with _naming(path):
        content = read_bytes(path)
        array = _array(content, path)
        if array is None:
            array = _thermal_picture(_picture(content, path))
        values, found = thermal_from_array(array, unit=unit)
        return Sample("thermal", values, encoding=_encoding(array), unit=found)


def load_lidar(
    path: Path, columns: int | None = None, *, least_range_m: float = LEAST_RANGE_M
) -> Sample:
    """A cloud: .npy (N, 3..5), .npz (`points`, or `xyz_5mm` and `intensity`), .pcd, .bin or .pcd.bin.

    Args:
        path: the file.
        columns: float32 a point of .bin, which has no header; without it 5 of `.pcd.bin` (nuScenes) and
            4 of other `.bin` (KITTI).  The other formats say it themselves.
        least_range_m: the sensor's least range; what is nearer, (0, 0, 0) too, is no return.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: another format, damaged, or contents that contradict `columns`.
    """
    with _naming(path):
        array = _cloud(Path(path), columns)
        if array.dtype.kind in "ui":
            raise EncodingError(
                f"coordinates are {array.dtype}, their scale is not known",
                hint="x, y, z in metres as floats",
            )
        points = points_from_array(array, least_range_m=least_range_m)
        return Sample("lidar", points, encoding="xyzi")


def _cloud(path: Path, columns: int | None) -> NDArray[Any]:
    told = columns_of(path)
    if told is not None:
        return parse_bin(read_bytes(path), told if columns is None else columns)
    reader = _CLOUD_READERS.get(path.suffix.lower())
    if reader is None:
        raise EncodingError("unknown cloud format", hint=", ".join(CLOUD_SUFFIXES))
    return reader(read_bytes(path))


def load_labels(path: Path) -> NDArray[Any]:
    """The class ids of a gray or palette PNG, (H, W) uint8 or uint16: the stored sample is the id.

    See `decode_labels`.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no such PNG, or damaged.
    """
    with _naming(path):
        return decode_labels(read_bytes(path))


def file_remarks(path: Path, kind: Kind) -> list[str]:
    """What a user should know of a sample's file that can be read: turned, only a preview, dim, or damaged.

    Damage is known of a file that was loaded before.

    Raises:
        DataError, EncodingError: as the file's loader.
    """
    with _naming(path):
        if kind == "lidar":
            return []
        content = read_bytes(path)
        if _array(content, path) is not None:
            return []
        damage = _DAMAGED.get(Path(path))
        found = [*remarks(content, turned=kind != "depth"), *([damage] if damage else [])]
        return [*found, *dim_remark(content)] if kind == "rgb" else found


def _picture(content: bytes, path: Path) -> Picture:
    picture = decode_picture(content)
    _DAMAGED.pop(Path(path), None)
    if picture.damage:
        if len(_DAMAGED) < MAX_ARCHIVE_FILES:
            _DAMAGED[Path(path)] = picture.damage
        warnings.warn(f"{path} {picture.damage}", stacklevel=4)
    return picture


def _thermal_picture(picture: Picture) -> NDArray[Any]:
    if not picture.radiometric:
        return single_channel(picture.upright())
    remark = radiometric_remark(picture.radiometric)
    try:
        gray = single_channel(picture.upright())
    except EncodingError as error:
        raise EncodingError(remark) from error
    warnings.warn(f"a thermal file {remark}", stacklevel=4)
    return gray


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about."""
    try:
        yield
    except InputError as error:
        raise EncodingError(error.message, where=str(path), hint=error.hint) from error


def _array(content: bytes, path: Path) -> NDArray[Any] | None:
    """The array of a .npy file; None of a picture."""
    if content.startswith(NPY_MAGIC) or Path(path).suffix.lower() == ".npy":
        return parse_npy(content, error=EncodingError)
    return None


def _encoding(array: NDArray[Any]) -> str:
    return _ENCODINGS.get(str(array.dtype), str(array.dtype))


def _npy(content: bytes) -> NDArray[Any]:
    return parse_npy(content, error=EncodingError)


def _npz(content: bytes) -> NDArray[Any]:
    arrays = parse_npz(content, ("points", "xyz_5mm", "intensity"), error=EncodingError)
    if "points" in arrays:
        return arrays["points"]
    if not {"xyz_5mm", "intensity"} <= set(arrays):
        raise EncodingError("holds no array 'points'")
    steps, intensity = arrays["xyz_5mm"], arrays["intensity"]
    if steps.ndim != 2 or intensity.shape != steps.shape[:1]:
        raise EncodingError(f"xyz_5mm {steps.shape} and intensity {intensity.shape} do not fit")
    return np.column_stack([steps * np.float32(0.005), intensity.astype(np.float32) / 255])


_CLOUD_READERS = {".npy": _npy, ".npz": _npz, ".pcd": parse_pcd}

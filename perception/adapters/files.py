"""Single sensor files as samples: pictures, depth maps, clouds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters.depth import depth_from_array
from perception.adapters.image import bgr_to_rgb, decode_bytes
from perception.adapters.pcd import parse_pcd
from perception.adapters.pointcloud import points_from_array
from perception.adapters.thermal import thermal_from_array
from perception.errors import DataError, EncodingError, InputError
from perception.frame import Sample

CLOUD_SUFFIXES = (".npy", ".npz", ".bin", ".pcd")

_ENCODINGS = {"uint8": "8UC1", "uint16": "16UC1", "float32": "32FC1", "float64": "64FC1"}
_COLOR_TOLERANCE = 16  # JPEG leaves a gray picture's channels a few counts apart


def load_rgb(path: Path) -> Sample:
    """A color or gray picture (8 or 16 bit) as an rgb sample.

    Raises:
        DataError: no such file.
        EncodingError: no picture, or cut off.
    """
    with _naming(path):
        image = _image(path)
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        if image.dtype != np.uint8:
            raise EncodingError(f"{image.dtype} picture, expected 8 or 16 bit")
        gray = image.ndim == 2
        rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if gray else bgr_to_rgb(image)
        return Sample("rgb", rgb, encoding="rgb8")


def load_depth(path: Path, scale: float | None = None, m_per_count8: float | None = None) -> Sample:
    """A depth map: 16 bit PNG in millimetres, float TIFF or .npy in metres, or any with `scale`.

    Args:
        path: the file.
        scale: metres per step.
        m_per_count8: metres per step of an 8 bit file when `scale` is not given.

    Raises:
        DataError: no such file.
        EncodingError: no depth map, cut off, or its scale is not known.
    """
    with _naming(path):
        array = _values(path)
        if array.ndim == 3:
            raise EncodingError("depth map has several channels")
        if scale is None and array.dtype == np.uint8:
            scale = m_per_count8
        return Sample("depth", depth_from_array(array, scale), encoding=_encoding(array))


def load_thermal(path: Path, unit: str = "auto") -> Sample:
    """A thermal picture: 8 or 16 bit PNG/JPEG, float TIFF, or .npy; see `decode_thermal` for `unit`.

    Raises:
        DataError: no such file.
        EncodingError: no picture, cut off, false colors, or values that cannot be `unit`.
    """
    with _naming(path):
        array = _values(path)
        if array.ndim == 3:
            array = _single_channel(array)
        values, found = thermal_from_array(array, unit=unit)
        return Sample("thermal", values, encoding=_encoding(array), unit=found)


def load_lidar(path: Path) -> Sample:
    """A cloud: .npy (N, 3..5), .npz (`points`, or `xyz_5mm` and `intensity`), KITTI .bin, or .pcd.

    Raises:
        DataError: no such file.
        EncodingError: another format, or damaged.
    """
    with _naming(path):
        reader = _CLOUD_READERS.get(Path(path).suffix.lower())
        if reader is None:
            raise EncodingError("unknown cloud format", hint=", ".join(CLOUD_SUFFIXES))
        return Sample("lidar", points_from_array(reader(Path(path))), encoding="xyzi")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about."""
    try:
        yield
    except InputError as error:
        raise EncodingError(error.message, where=str(path), hint=error.hint) from error


def _content(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DataError(f"cannot be read: {error}", where=str(path)) from error


def _image(path: Path) -> NDArray[Any]:
    return decode_bytes(np.frombuffer(_content(path), np.uint8))


def _values(path: Path) -> NDArray[Any]:
    return _array(path) if Path(path).suffix.lower() == ".npy" else _image(path)


def _encoding(array: NDArray[Any]) -> str:
    return _ENCODINGS.get(str(array.dtype), str(array.dtype))


def _single_channel(array: NDArray[Any]) -> NDArray[Any]:
    """The values of a gray picture that was saved with three or four channels."""
    colors = array[..., :3]
    if colors.shape[2] == 3 and array.dtype.kind == "u":
        spread = cv2.absdiff(colors[..., 0], colors[..., 2]).max(initial=0)
        if spread > _COLOR_TOLERANCE:
            raise EncodingError(
                "colors, expected gray values", hint="false colors cannot be turned back"
            )
    return np.ascontiguousarray(colors[..., colors.shape[2] // 2])


def _array(path: Path) -> NDArray[Any]:
    return _load(path, "numpy array", ())


def _npz(path: Path) -> NDArray[Any]:
    return _load(path, ".npz archive", ("points", "xyz_5mm"))


def _load(path: Path, what: str, keys: tuple[str, ...]) -> NDArray[Any]:
    """An array file, or of an archive the first of `keys`."""
    if not Path(path).is_file():
        raise DataError("no such file", where=str(path))
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (not keys):
            raise EncodingError(f"is no {what}")
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            key = next((k for k in keys if k in loaded), "")
            if key == "xyz_5mm":
                intensity = loaded["intensity"].astype(np.float32) / 255
                return np.column_stack([loaded[key] * np.float32(0.005), intensity])
            if key:
                return loaded[key]
    except EncodingError:
        raise
    except Exception as error:  # zip, zlib and the header's parser raise a dozen kinds
        raise EncodingError(f"cannot be read as a {what}") from error
    raise EncodingError(f"holds no array '{keys[0]}'")


def _bin(path: Path) -> NDArray[Any]:
    content = _content(path)
    if len(content) % 16:
        raise EncodingError("size is no multiple of four float32")
    return np.frombuffer(content, "<f4").reshape(-1, 4)


def _pcd(path: Path) -> NDArray[Any]:
    return parse_pcd(_content(path))


_CLOUD_READERS = dict(zip(CLOUD_SUFFIXES, (_array, _npz, _bin, _pcd), strict=True))

"""Thermal values: 8 bit pictures, raw counts, or temperatures, from arrays, messages and files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.arrays import check_encoding
from perception.adapters.compressed import decode_compressed_image, gray_of
from perception.adapters.files import array_of, encoding_of, naming, picture_of, picture_remarks
from perception.adapters.image import RawImage
from perception.adapters.messages import COMPRESSED, IMAGE, raw_of, type_of
from perception.adapters.pictures import Picture, radiometric_remark, single_channel
from perception.errors import EncodingError, InputError, names_hint
from perception.files.text import read_bytes
from perception.frame import Sample, shape_hint
from perception.sensors.kind import Hints

ROS_TYPES = (IMAGE, COMPRESSED)

UNITS = ("auto", "counts8", "counts16", "centikelvin", "kelvin")

DTYPES = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2", "32FC1": "f4"}
_COLORS = {
    **dict.fromkeys(("rgb8", "bgr8", "8UC3"), ("u1", 3)),
    **dict.fromkeys(("rgba8", "bgra8", "8UC4"), ("u1", 4)),
    **dict.fromkeys(("rgb16", "bgr16", "16UC3"), ("u2", 3)),
    **dict.fromkeys(("rgba16", "bgra16", "16UC4"), ("u2", 4)),
}
_COLDEST_K = 100.0
_SAY_UNIT = "say counts16 or centikelvin"


def decode_thermal(raw: RawImage, *, unit: str = "auto") -> tuple[NDArray[np.float32], str]:
    """Decode a thermal image.

    Args:
        raw: `mono8`, `mono16` / `16UC1` or `32FC1`; or a color encoding that holds gray.
        unit: what the values mean; `auto` takes 8 bit as `counts8`, 16 bit as `counts16` and float
            as `kelvin`.  Cameras in radiometric mode (FLIR TLinear at 0.01 K) send `centikelvin`;
            nothing in the message tells, so it must be said.

    Returns:
        (H, W) float32 values, NaN where invalid (0 K and less too), and their unit: `counts8`,
        `counts16`, `kelvin`.

    Raises:
        EncodingError: unknown encoding, a color-mapped picture, or a unit that the encoding cannot hold.
        InputError: size and bytes contradict each other.
    """
    if raw.encoding in _COLORS:
        return thermal_from_array(single_channel(raw.rows(*_COLORS[raw.encoding])), unit=unit)
    if raw.encoding not in DTYPES:
        raise EncodingError(
            f"unknown thermal encoding '{raw.encoding}'",
            where="thermal",
            hint=names_hint(raw.encoding, DTYPES),
        )
    return thermal_from_array(raw.rows(DTYPES[raw.encoding], 1), unit=unit)


def thermal_from_array(
    array: NDArray[Any], *, unit: str = "auto"
) -> tuple[NDArray[np.float32], str]:
    """The same from an (H, W) array of uint8, uint16 or floating values, in either byte order.

    int16 are taken as uint16 when their unit is said and none is negative.
    """
    if array.ndim != 2 or array.size == 0:
        hint = shape_hint(array.shape)
        raise InputError(f"shape {array.shape}, expected (H, W)", where="thermal", hint=hint)
    if unit not in UNITS:
        raise EncodingError(f"unknown unit '{unit}'", where="thermal", hint=names_hint(unit, UNITS))
    array = _unsigned(array, unit)
    natural = _natural_unit(array.dtype)
    if unit == "auto":
        unit = natural
    if natural != ("counts16" if unit == "centikelvin" else unit):
        hint = "16 bit temperatures are centikelvin" if unit == "kelvin" else f"auto or {natural}"
        raise EncodingError(f"{array.dtype} values cannot be {unit}", where="thermal", hint=hint)
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(np.float32)
    if natural == "kelvin":
        values[~np.isfinite(values)] = np.nan
        if (values > _COLDEST_K).any():  # else they may be degrees Celsius, which is told later
            values[values <= 0] = np.nan  # 0, -9999, -273.15: no value
    if unit == "centikelvin":
        values *= np.float32(0.01)
        values[array == 0] = np.nan
    return values, "kelvin" if unit == "centikelvin" else unit


def _unsigned(array: NDArray[Any], unit: str) -> NDArray[Any]:
    if array.dtype.kind != "i" or array.dtype.itemsize != 2:
        return array
    if unit == "auto":
        raise InputError("dtype int16, whose unit is not known", where="thermal", hint=_SAY_UNIT)
    if (array < 0).any():
        raise InputError(
            f"negative values cannot be {unit}", where="thermal", hint="are they degrees Celsius?"
        )
    return array.astype(np.uint16)


def _natural_unit(dtype: np.dtype[Any]) -> str:
    if np.issubdtype(dtype, np.floating):
        return "kelvin"
    found = {1: "counts8", 2: "counts16"}.get(dtype.itemsize) if dtype.kind == "u" else None
    if found is None:
        raise InputError(f"dtype {dtype}, expected uint8, uint16 or float", where="thermal")
    return found


def from_array(array: NDArray[Any], hints: Hints) -> Sample:
    """(H, W); see `thermal_from_array`."""
    check_encoding(array, hints.encoding, DTYPES)
    values, unit = thermal_from_array(array, unit=hints.unit or "auto")
    return Sample("thermal", values, encoding=hints.encoding, unit=unit)


def from_message(message: Any, hints: Hints) -> Sample:
    """An `Image`, or a `CompressedImage` of any transport."""
    if type_of(message) == IMAGE:
        values, unit = decode_thermal(raw_of(message), unit=hints.unit or "auto")
        return Sample("thermal", values, encoding=message.encoding, unit=unit)
    image = gray_of(decode_compressed_image(message.data, message.format))
    values, unit = thermal_from_array(image, unit=hints.unit or "auto")
    return Sample("thermal", values, encoding=message.format, unit=unit)


def from_file(path: Path, hints: Hints) -> Sample:
    """See `load_thermal`."""
    return load_thermal(path, hints.unit or "auto")


def remarks(path: Path) -> list[str]:
    """Turned, only a preview, or damaged."""
    return picture_remarks(path)


def load_thermal(path: Path, unit: str = "auto") -> Sample:
    """A thermal picture: 8 or 16 bit PNG, JPEG or TIFF, or floats in TIFF or .npy.

    It is turned upright as its EXIF or TIFF orientation says.  Of a radiometric JPEG the preview is read,
    with a warning: its counts are no temperatures.  See `decode_thermal` for `unit`.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: no picture, cut off, false colors, or values that cannot be `unit`.
    """
    with naming(path):
        content = read_bytes(path)
        array = array_of(content, path)
        if array is None:
            array = _thermal_picture(picture_of(content, path))
        values, found = thermal_from_array(array, unit=unit)
        return Sample("thermal", values, encoding=encoding_of(array), unit=found)


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

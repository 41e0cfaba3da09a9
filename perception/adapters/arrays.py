"""Samples of bare arrays, as camera and LiDAR drivers hand them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters import depth, thermal
from perception.adapters.depth import depth_from_array
from perception.adapters.image import RGB_DECODERS, RawImage, decode_rgb
from perception.adapters.pointcloud import points_from_array
from perception.adapters.thermal import thermal_from_array
from perception.errors import EncodingError, InputError
from perception.frame import Kind, Sample, as_kind, check_array, shape_hint

if TYPE_CHECKING:
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform

_DEFAULTS: dict[Kind, str] = {"rgb": "rgb8", "depth": "", "thermal": "", "lidar": "xyzi"}


def sample_of(
    kind: str,
    array: NDArray[Any],
    encoding: str = "",
    *,
    unit: str = "",
    stamp_ns: int | None = None,
    sensor: str = "",
    frame_id: str = "",
    camera: CameraModel | None = None,
    extrinsics: RigidTransform | None = None,
) -> Sample:
    """A sample of an array.

    Args:
        kind: `rgb`, `depth`, `thermal` or `lidar`.
        array: what `encoding` says:
            rgb: (H, W, 3) or (H, W, 4) uint8; (H, W) for `mono8` and the Bayer patterns; two bytes
            for a pixel (H, W, 2) for `yuv422` and the like.
            depth: (H, W) uint16 in millimetres (`16UC1`) or float32 in metres (`32FC1`).
            thermal: (H, W) uint8 (`mono8`), uint16 (`mono16`) or float32 (`32FC1`).
            lidar: (N, 3) or (N, 4) floats: x, y, z in metres, intensity.
        encoding: as in `sensor_msgs/image_encodings`.  Empty: `rgb8` for rgb (OpenCV's pictures are
            `bgr8`), what the dtype says for depth and thermal.
        unit: of thermal values: `counts8`, `counts16`, `centikelvin`, `kelvin`, or empty for what the
            dtype says.
        stamp_ns, sensor, frame_id, camera, extrinsics: see `Sample`.

    Raises:
        InputError: an unknown kind, encoding or unit, or an array that is not of them.
    """
    kind = as_kind(kind)
    name = sensor or kind
    check_array(array, name, points=kind == "lidar")
    encoding = encoding or _DEFAULTS[kind]
    try:
        data, found = _decoded(kind, array, encoding, unit)
    except InputError as error:
        if error.where == name:
            raise
        raise type(error)(error.message, where=name, hint=error.hint) from error
    return Sample(kind, data, stamp_ns, frame_id, encoding, found, camera, extrinsics, name)


def _decoded(kind: Kind, array: NDArray[Any], encoding: str, unit: str) -> tuple[NDArray[Any], str]:
    if kind != "thermal" and unit:
        raise InputError(f"{kind} has no unit, got '{unit}'")
    if kind == "rgb":
        return _colors(array, encoding), ""
    if kind == "depth":
        _check(array, encoding, depth.DTYPES)
        return depth_from_array(array), ""
    if kind == "thermal":
        _check(array, encoding, thermal.DTYPES)
        return thermal_from_array(array, unit=unit or "auto")
    if encoding != _DEFAULTS[kind]:
        raise EncodingError(f"unknown encoding '{encoding}'", hint=_DEFAULTS[kind])
    return points_from_array(array), ""


def _channels(encoding: str) -> int:
    """Values of one pixel."""
    if encoding.startswith(("rgba", "bgra")) or encoding.endswith("C4"):
        return 4
    if encoding.startswith(("rgb", "bgr")) or encoding.endswith("C3"):
        return 3
    return 2 if encoding.startswith(("yuv", "uyvy", "yuyv")) else 1


def _colors(array: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"shape {array.shape} is no picture", hint=shape_hint(array.shape, 3) or "(H, W, 3)"
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    dtype, wanted = np.dtype(np.uint16 if "16" in encoding else np.uint8), _channels(encoding)
    fits = channels == wanted or encoding not in RGB_DECODERS
    if not fits or array.dtype.newbyteorder("=") != dtype:
        shape = f"(H, W, {wanted})" if wanted > 1 else "(H, W)"
        raise InputError(f"{array.dtype} {array.shape} is not {encoding}", hint=f"{shape} {dtype}")
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array, dtype.newbyteorder("<")).reshape(height, -1)
    raw = RawImage(height, width, encoding, rows.view(np.uint8).reshape(-1), rows.strides[0])
    return decode_rgb(raw)


def _check(array: NDArray[Any], encoding: str, known: dict[str, str]) -> None:
    if array.ndim != 2:
        raise InputError(f"shape {array.shape}, expected (H, W)", hint=shape_hint(array.shape))
    if not encoding:
        return
    if encoding not in known:
        raise EncodingError(f"unknown encoding '{encoding}'", hint=f"one of {', '.join(known)}")
    if array.dtype.newbyteorder("=") != known[encoding]:
        wanted = np.dtype(known[encoding]).name
        raise InputError(f"{encoding} is {wanted}, the array is {array.dtype}")

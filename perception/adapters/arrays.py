"""Samples of bare arrays, as camera and LiDAR drivers hand them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.depth import depth_from_array
from perception.adapters.image import RawImage, decode_rgb
from perception.adapters.pointcloud import points_from_array
from perception.adapters.thermal import thermal_from_array
from perception.errors import EncodingError, InputError
from perception.frame import Kind, Sample, as_kind, shape_hint

if TYPE_CHECKING:
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform

_DEFAULTS: dict[Kind, str] = {"rgb": "rgb8", "depth": "", "thermal": "", "lidar": "xyzi"}
_DEPTH = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
_THERMAL = {
    "mono8": np.uint8,
    "8UC1": np.uint8,
    "mono16": np.uint16,
    "16UC1": np.uint16,
    "32FC1": np.float32,
}


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
    if not isinstance(array, np.ndarray):
        raise InputError(f"a {type(array).__name__}, expected a numpy array", where=name)
    encoding = encoding or _DEFAULTS[kind]
    try:
        data, found = _decoded(kind, array, encoding, unit)
    except InputError as error:
        if error.where == name or str(error).startswith(name):
            raise
        raise type(error)(error.message, where=name, hint=error.hint) from error
    return Sample(kind, data, stamp_ns, frame_id, encoding, found, camera, extrinsics, name)


def _decoded(kind: Kind, array: NDArray[Any], encoding: str, unit: str) -> tuple[NDArray[Any], str]:
    if kind != "thermal" and unit:
        raise InputError(f"{kind} has no unit, got '{unit}'")
    if kind == "rgb":
        return _colors(array, encoding), ""
    if kind == "depth":
        _check(array, encoding, _DEPTH)
        return depth_from_array(array), ""
    if kind == "thermal":
        _check(array, encoding, _THERMAL)
        return thermal_from_array(array, unit=unit or "auto")
    return points_from_array(array), ""


def _colors(array: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"shape {array.shape} is no picture", hint=shape_hint(array.shape, 3) or "(H, W, 3)"
        )
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(f"dtype {array.dtype} is no picture's", hint="uint8, 0 to 255")
    height, width = array.shape[:2]
    rows = np.ascontiguousarray(array).reshape(height, -1)
    channels = 1 if array.ndim == 2 else array.shape[2]
    wanted = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}.get(encoding)
    if wanted is not None and (channels != wanted or array.dtype != np.uint8):
        raise InputError(
            f"{array.dtype} {array.shape} is not {encoding}",
            hint=f"(H, W, {wanted}) uint8" if wanted > 1 else "(H, W) uint8",
        )
    big = array.dtype.itemsize > 1 and not array.dtype.newbyteorder("<").isnative
    raw = RawImage(height, width, encoding, rows.view(np.uint8).reshape(-1), rows.strides[0], big)
    return decode_rgb(raw)


def _check(array: NDArray[Any], encoding: str, known: dict[str, Any]) -> None:
    if array.ndim != 2:
        raise InputError(f"shape {array.shape}, expected (H, W)", hint=shape_hint(array.shape))
    if not encoding:
        return
    if encoding not in known:
        raise EncodingError(f"unknown encoding '{encoding}'", hint=f"one of {', '.join(known)}")
    if array.dtype.newbyteorder("=") != known[encoding]:
        wanted = np.dtype(known[encoding]).name
        raise InputError(f"{encoding} is {wanted}, the array is {array.dtype}")

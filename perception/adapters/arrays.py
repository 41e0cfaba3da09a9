"""Samples of bare arrays, as camera and LiDAR drivers hand them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EncodingError, InputError
from perception.frame import Sample, as_kind, check_array, shape_hint
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of

if TYPE_CHECKING:
    from perception.geometry.camera import CameraModel
    from perception.geometry.transforms import RigidTransform


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
        kind: `rgb`, `depth`, `thermal`, `lidar`, or a plug-in's.
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
    own, name = kind_of(kind), sensor or kind
    check_array(array, name, points=not own.has_picture)
    try:
        if unit and not own.units:
            raise InputError(f"{kind} has no unit, got '{unit}'")
        if own.from_array is None:
            raise InputError(f"no {kind} is read from a bare array")
        sample = own.from_array(array, Hints(encoding=encoding, unit=unit))
    except InputError as error:
        if error.where == name:
            raise
        raise type(error)(error.message, where=name, hint=error.hint) from error
    return replace(
        sample,
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        camera=camera,
        extrinsics=extrinsics,
        sensor=name,
    )


def check_encoding(array: NDArray[Any], encoding: str, known: Mapping[str, str]) -> None:
    """Refuse what is not (H, W), or not of the dtype of its encoding, if that is given.

    Args:
        array: any.
        encoding: as in `sensor_msgs/image_encodings`.
        known: by encoding, its dtype.

    Raises:
        EncodingError: the encoding is not known.
        InputError: the array is not of it.
    """
    if array.ndim != 2:
        raise InputError(f"shape {array.shape}, expected (H, W)", hint=shape_hint(array.shape))
    if not encoding:
        return
    if encoding not in known:
        raise EncodingError(f"unknown encoding '{encoding}'", hint=f"one of {', '.join(known)}")
    if array.dtype.newbyteorder("=") != known[encoding]:
        wanted = np.dtype(known[encoding]).name
        raise InputError(f"{encoding} is {wanted}, the array is {array.dtype}")

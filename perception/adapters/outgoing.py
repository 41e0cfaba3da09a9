"""From the library's types to ROS messages, of any package that makes them; `messages` goes the other way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.adapters.messages import CLOUD, IMAGE
from perception.errors import DataError
from perception.frame import Sample

_FLOAT32 = 7
_SECONDS = range(-(2**31), 2**31)


class Types(Protocol):
    """Makes messages."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message of a type such as `sensor_msgs/msg/Image`; arrays come as numpy arrays."""


def check_stamp(stamp_ns: int, *, where: str = "") -> None:
    """Refuse a stamp that no ROS message can have.

    Raises:
        DataError: its seconds do not fit 32 bits.
    """
    if stamp_ns // 1_000_000_000 not in _SECONDS:
        raise DataError(
            f"stamp {stamp_ns} ns is no time of a ROS message",
            where=where,
            hint="their seconds have 32 bits: 1901 to 2038",
        )


def header(types: Types, stamp_ns: int, frame_id: str) -> Any:
    """A `std_msgs/Header`.

    Raises:
        DataError: a stamp that it cannot have.
    """
    check_stamp(stamp_ns, where=frame_id)
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = types.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return types.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def header_of(types: Types, sample: Sample) -> Any:
    """The header of a sample's message: its stamp and frame.

    Raises:
        InputError: it has no stamp.
        DataError: no message can have it.
    """
    return header(types, sample.time_ns, sample.frame_id)


def image_message(types: Types, sample: Sample, encoding: str, dtype: str) -> Any:
    """A picture (H, W) or (H, W, C) as `Image`; integers are rounded and cut to what `dtype` holds."""
    pixels = sample.data
    if np.dtype(dtype).kind in "ui" and pixels.dtype != np.dtype(dtype):
        pixels = np.nan_to_num(pixels).round().clip(0, np.iinfo(dtype).max)
    pixels = np.ascontiguousarray(pixels, dtype)
    height, width = pixels.shape[:2]
    return types.make(
        IMAGE,
        header=header_of(types, sample),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=pixels.reshape(-1).view(np.uint8),
    )


def cloud_message(
    types: Types, sample: Sample, points: NDArray[np.floating], names: Sequence[str]
) -> Any:
    """Columns (N, len(names)) as `PointCloud2` of float32 fields of these names, and `time` where the sample
    says when its points were measured: seconds from the stamp, as drivers of Velodyne sensors have it."""
    if sample.times is not None:
        points, names = np.column_stack([points, sample.times]), [*names, "time"]
    points = np.ascontiguousarray(points, np.float32)
    fields = [
        types.make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=_FLOAT32, count=1)
        for i, n in enumerate(names)
    ]
    return types.make(
        CLOUD,
        header=header_of(types, sample),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=4 * len(names),
        row_step=4 * len(names) * len(points),
        data=points.reshape(-1).view(np.uint8),
        is_dense=True,
    )

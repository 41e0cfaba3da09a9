"""Samples from ROS sensor messages: generated classes, or anything with the same fields."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from perception.adapters.depth import decode_depth
from perception.adapters.image import RawImage, decode_rgb
from perception.adapters.pointcloud import PointField, decode_pointcloud2
from perception.adapters.thermal import decode_thermal
from perception.frame import Modality, Sample


def to_sample(modality: Modality, message: Any, thermal_unit: str = "auto") -> Sample:
    """Decode a parsed `Image` or `PointCloud2`.

    Raises:
        EncodingError, InputError: as the decoders of `perception.adapters`.
    """
    stamp = stamp_of(message)
    frame = message.header.frame_id
    if modality == "lidar":
        fields = [PointField(f.name, f.offset, f.datatype, f.count) for f in message.fields]
        points = decode_pointcloud2(
            fields,
            message.data,
            width=message.width,
            height=message.height,
            point_step=message.point_step,
            row_step=message.row_step,
            is_bigendian=message.is_bigendian,
        )
        return Sample("lidar", points, stamp, frame, "xyzi")
    raw = RawImage(
        message.height,
        message.width,
        message.encoding,
        message.data,
        message.step,
        bool(message.is_bigendian),
    )
    unit = ""
    values: NDArray[Any]
    if modality == "rgb":
        values = decode_rgb(raw)
    elif modality == "depth":
        values = decode_depth(raw)
    else:
        values, unit = decode_thermal(raw, unit=thermal_unit)
    return Sample(modality, values, stamp, frame, message.encoding, unit)


def stamp_of(message: Any) -> int:
    """Nanoseconds of a parsed message's header."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)

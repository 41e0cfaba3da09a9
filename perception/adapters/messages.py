"""From ROS messages to the library's types: generated classes, or anything with the same fields.

The one conversion layer: bags and nodes both read messages through it.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from perception.adapters.compressed import decode_compressed_image
from perception.adapters.depth import decode_depth
from perception.adapters.image import RawImage, decode_rgb
from perception.adapters.pointcloud import PointField, decode_pointcloud2
from perception.adapters.thermal import decode_thermal
from perception.errors import EncodingError, InputError
from perception.frame import LEAST_RANGE_M, Kind, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CLOUD = "sensor_msgs/msg/PointCloud2"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"

SENSOR_TYPES: dict[Kind, tuple[str, ...]] = {
    "rgb": (IMAGE, COMPRESSED),
    "depth": (IMAGE, COMPRESSED),
    "thermal": (IMAGE, COMPRESSED),
    "lidar": (CLOUD,),
}
"""The message types that a sensor may come as."""

_MARKS = {"point_step": CLOUD, "encoding": IMAGE, "format": COMPRESSED}


def to_sample(
    kind: Kind,
    message: Any,
    thermal_unit: str = "auto",
    *,
    least_range_m: float = LEAST_RANGE_M,
    sensor: str = "",
) -> Sample:
    """Decode a parsed `Image`, `CompressedImage`, or for lidar `PointCloud2`.

    Args:
        kind: what the topic is declared as.
        message: the message.
        thermal_unit: see `decode_thermal`.
        least_range_m: the LiDAR's least range; what is nearer, (0, 0, 0) too, is no return.
        sensor: the sensor's name, if not its kind.

    Raises:
        EncodingError: another type of message, or an encoding or layout that is unknown.
        InputError: fields contradict each other.
    """
    try:
        values, encoding, unit = _decode(kind, message, thermal_unit, least_range_m)
    except InputError as error:
        if sensor in ("", kind):
            raise
        raise type(error)(error.message, where=sensor, hint=error.hint) from error
    stamp, frame = stamp_of(message), message.header.frame_id
    return Sample(kind, values, stamp, frame, encoding, unit, sensor=sensor)


def _decode(
    kind: Kind, message: Any, thermal_unit: str, least_range_m: float
) -> tuple[NDArray[Any], str, str]:
    """A message's data, encoding and unit."""
    found = next((name for mark, name in _MARKS.items() if hasattr(message, mark)), "")
    if found not in SENSOR_TYPES[kind]:
        name = found or getattr(message, "__msgtype__", type(message).__name__)
        wanted = " or ".join(SENSOR_TYPES[kind])
        raise EncodingError(f"a {name} is no {kind}", where=kind, hint=f"needs {wanted}")
    if found == CLOUD:
        return _points(message, least_range_m), "xyzi", ""
    if found == COMPRESSED:
        values, unit = decode_compressed_image(
            kind, message.data, message.format, thermal_unit=thermal_unit
        )
        return values, message.format, unit
    values, unit = _pixels(kind, message, thermal_unit)
    return values, message.encoding, unit


def _points(message: Any, least_range_m: float) -> NDArray[Any]:
    fields = [PointField(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    return decode_pointcloud2(
        fields,
        message.data,
        width=message.width,
        height=message.height,
        point_step=message.point_step,
        row_step=message.row_step,
        is_bigendian=message.is_bigendian,
        least_range_m=least_range_m,
    )


def _pixels(kind: Kind, message: Any, thermal_unit: str) -> tuple[NDArray[Any], str]:
    raw = RawImage(
        message.height,
        message.width,
        message.encoding,
        message.data,
        message.step,
        bool(message.is_bigendian),
    )
    if kind == "rgb":
        return decode_rgb(raw), ""
    if kind == "depth":
        return decode_depth(raw), ""
    return decode_thermal(raw, unit=thermal_unit)


def to_ns(stamp: Any) -> int:
    """Nanoseconds of a `builtin_interfaces/Time`."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_of(message: Any) -> int:
    """Nanoseconds of a parsed message's header."""
    return to_ns(message.header.stamp)


def camera_fields(info: Any) -> dict[str, Any]:
    """The fields of a `CameraInfo` message, as `CameraModel.from_camera_info` takes them."""
    names = ("width", "height", "distortion_model", "binning_x", "binning_y")
    roi = ("x_offset", "y_offset", "width", "height")
    return {
        **{name: getattr(info, name) for name in names},
        **{name: list(getattr(info, name)) for name in ("k", "d", "p")},
        "roi": {name: getattr(info.roi, name) for name in roi},
        "frame_id": info.header.frame_id,
    }


def to_camera(info: Any) -> CameraModel:
    """Intrinsics of a `CameraInfo`, for the images that it says it goes with.

    Raises:
        CalibrationError: the camera is not calibrated, its distortion model is unknown, or its
            region of interest cannot be.
    """
    return CameraModel.from_camera_info(camera_fields(info))


def to_transform(message: Any) -> RigidTransform:
    """The transform of a `TransformStamped`, child to parent.

    Raises:
        CalibrationError: a zero quaternion, or values that are not finite.
    """
    t, q = message.transform.translation, message.transform.rotation
    return RigidTransform.from_quaternion_xyzw((q.x, q.y, q.z, q.w), (t.x, t.y, t.z))

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
from perception.errors import EncodingError
from perception.frame import LEAST_RANGE_M, Modality, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CLOUD = "sensor_msgs/msg/PointCloud2"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"

SENSOR_TYPES: dict[Modality, tuple[str, ...]] = {
    "rgb": (IMAGE, COMPRESSED),
    "depth": (IMAGE, COMPRESSED),
    "thermal": (IMAGE, COMPRESSED),
    "lidar": (CLOUD,),
}
"""The message types that a sensor may come as."""

_MARKS = {"point_step": CLOUD, "encoding": IMAGE, "format": COMPRESSED}


def to_sample(
    modality: Modality,
    message: Any,
    thermal_unit: str = "auto",
    *,
    least_range_m: float = LEAST_RANGE_M,
) -> Sample:
    """Decode a parsed `Image`, `CompressedImage`, or for lidar `PointCloud2`.

    Args:
        modality: what the topic is declared as.
        message: the message.
        thermal_unit: see `decode_thermal`.
        least_range_m: the LiDAR's least range; what is nearer, (0, 0, 0) too, is no return.

    Raises:
        EncodingError: another type of message, or an encoding or layout that is unknown.
        InputError: fields contradict each other.
    """
    kind = next((kind for mark, kind in _MARKS.items() if hasattr(message, mark)), "")
    if kind not in SENSOR_TYPES[modality]:
        name = kind or getattr(message, "__msgtype__", type(message).__name__)
        wanted = " or ".join(SENSOR_TYPES[modality])
        raise EncodingError(f"a {name} is no {modality}", where=modality, hint=f"needs {wanted}")
    stamp, frame = stamp_of(message), message.header.frame_id
    if kind == CLOUD:
        return Sample("lidar", _points(message, least_range_m), stamp, frame, "xyzi")
    if kind == COMPRESSED:
        values, unit = decode_compressed_image(
            modality, message.data, message.format, thermal_unit=thermal_unit
        )
        return Sample(modality, values, stamp, frame, message.format, unit)
    values, unit = _pixels(modality, message, thermal_unit)
    return Sample(modality, values, stamp, frame, message.encoding, unit)


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


def _pixels(modality: Modality, message: Any, thermal_unit: str) -> tuple[NDArray[Any], str]:
    raw = RawImage(
        message.height,
        message.width,
        message.encoding,
        message.data,
        message.step,
        bool(message.is_bigendian),
    )
    if modality == "rgb":
        return decode_rgb(raw), ""
    if modality == "depth":
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

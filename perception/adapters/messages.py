"""From ROS messages to the library's types: generated classes, or anything with the same fields.

The one conversion layer: bags and nodes both read messages through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.image import RawImage
from perception.adapters.pointcloud import PointField, columns_of, decode_timed_pointcloud2
from perception.errors import EncodingError
from perception.frame import Kind
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CLOUD = "sensor_msgs/msg/PointCloud2"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"

_MARKS = {"point_step": CLOUD, "encoding": IMAGE, "format": COMPRESSED}


def type_of(message: Any) -> str:
    """The name of a message's type, as `package/msg/Name`; told by its fields where it does not say."""
    found = next((name for mark, name in _MARKS.items() if hasattr(message, mark)), "")
    return found or _declared(message)


def _declared(message: Any) -> str:
    """What its class says: of `rosbags`, of ROS's generators (`sensor_msgs.msg._range.Range`), or another."""
    own = type(message)
    if found := getattr(message, "__msgtype__", ""):
        return str(found)
    package, _, rest = own.__module__.partition(".")
    return f"{package}/msg/{own.__name__}" if rest.split(".")[0] == "msg" else own.__name__


def check_type(message: Any, wanted: Sequence[str], kind: Kind) -> None:
    """Refuse a message of a type that a kind does not take.

    Raises:
        EncodingError: it is one.
    """
    found = type_of(message)
    if found not in wanted and _declared(message) not in wanted:
        raise EncodingError(f"a {found} is no {kind}", hint=f"needs {' or '.join(wanted)}")


def cloud_of(
    message: Any, least_range_m: float
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The points of a `PointCloud2` and when they were measured, see `decode_timed_pointcloud2`."""
    stamp = stamp_of(message) if hasattr(message, "header") else None
    return decode_timed_pointcloud2(**_layout(message), least_range_m=least_range_m, stamp_ns=stamp)


def fields_of(message: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Fields of a `PointCloud2` by name, (N, len(names)) float32, whatever type they have.

    Raises:
        EncodingError, InputError: see `columns_of`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.column_stack(
            [c.astype(np.float32) for c in columns_of(**_layout(message), names=names)]
        )


def _layout(message: Any) -> dict[str, Any]:
    return {
        "fields": [PointField(f.name, f.offset, f.datatype, f.count) for f in message.fields],
        "data": message.data,
        "width": message.width,
        "height": message.height,
        "point_step": message.point_step,
        "row_step": message.row_step,
        "is_bigendian": message.is_bigendian,
    }


def raw_of(message: Any) -> RawImage:
    """The pixels of an `Image`, not yet decoded."""
    return RawImage(
        message.height,
        message.width,
        message.encoding,
        message.data,
        message.step,
        bool(message.is_bigendian),
    )


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

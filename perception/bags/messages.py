"""Samples as serialized ROS 2 messages, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from perception.adapters.messages import CAMERA_INFO, CLOUD, IMAGE, TF
from perception.errors import EncodingError, MissingDependencyError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

_FLOAT32 = 7
_ENCODINGS = {"counts8": ("mono8", "u1"), "counts16": ("mono16", "u2")}


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: its topic.
        type: its message type, such as `sensor_msgs/msg/Image`.
        stamp_ns: when it was recorded.
        data: the message in CDR.
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The definitions of the standard messages.

    Raises:
        MissingDependencyError: `rosbags` is not installed.
    """
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingDependencyError(
            "rosbags is not installed", where="bags", hint="pip install 'anysense[bags]'"
        ) from error
    # The messages used here are the same in Humble, Jazzy and Kilted.
    return get_typestore(Stores.ROS2_HUMBLE)


def _make(type_name: str, **fields: Any) -> Any:
    return typestore().types[type_name](**fields)


def _header(stamp_ns: int, frame_id: str) -> Any:
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = _make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return _make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def _serialized(topic: str, type_name: str, stamp_ns: int, message: Any) -> BagMessage:
    data = bytes(typestore().serialize_cdr(message, type_name))
    return BagMessage(topic, type_name, stamp_ns, data)


def sample_message(topic: str, sample: Sample, frame_id: str) -> BagMessage:
    """A sample as `Image` or `PointCloud2`: rgb8, 32FC1 metres, mono8 / mono16 / 32FC1 kelvin, xyzi."""
    if sample.modality == "lidar":
        return _cloud(topic, sample, frame_id)
    encoding, kind = "32FC1", "f4"
    if sample.modality == "rgb":
        encoding, kind = "rgb8", "u1"
    elif sample.modality == "thermal":
        encoding, kind = _ENCODINGS.get(sample.unit, (encoding, kind))
    pixels = sample.data
    if kind != "f4" and pixels.dtype != np.dtype(kind):
        pixels = np.nan_to_num(pixels).round().clip(0, np.iinfo(kind).max)
    pixels = np.ascontiguousarray(pixels, kind)
    height, width = pixels.shape[:2]
    message = _make(
        IMAGE,
        header=_header(sample.stamp_ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=pixels.reshape(-1).view(np.uint8),
    )
    return _serialized(topic, IMAGE, sample.stamp_ns, message)


def _cloud(topic: str, sample: Sample, frame_id: str) -> BagMessage:
    points = np.ascontiguousarray(sample.data[:, :4], np.float32)
    names = ("x", "y", "z", "intensity")[: points.shape[1]]
    fields = [
        _make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=_FLOAT32, count=1)
        for i, n in enumerate(names)
    ]
    message = _make(
        CLOUD,
        header=_header(sample.stamp_ns, frame_id),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=4 * len(names),
        row_step=4 * len(names) * len(points),
        data=points.reshape(-1).view(np.uint8),
        is_dense=True,
    )
    return _serialized(topic, CLOUD, sample.stamp_ns, message)


def camera_message(topic: str, camera: CameraModel, stamp_ns: int, frame_id: str) -> BagMessage:
    """Intrinsics as `CameraInfo`."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    none = camera.distortion_model == "none"
    roi = _make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    message = _make(
        CAMERA_INFO,
        header=_header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if none else camera.distortion_model,
        d=np.array([0.0] * 5 if none else camera.distortion),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
    return _serialized(topic, CAMERA_INFO, stamp_ns, message)


def transforms_message(
    topic: str, mounts: list[tuple[str, str, RigidTransform]], stamp_ns: int
) -> BagMessage:
    """Transforms (parent, child, child to parent) as one `TFMessage`."""
    found = []
    for parent, child, transform in mounts:
        x, y, z = transform.translation.tolist()
        qx, qy, qz, qw = transform.quaternion_xyzw
        found.append(
            _make(
                "geometry_msgs/msg/TransformStamped",
                header=_header(stamp_ns, parent),
                child_frame_id=child,
                transform=_make(
                    "geometry_msgs/msg/Transform",
                    translation=_make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                    rotation=_make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
                ),
            )
        )
    return _serialized(topic, TF, stamp_ns, _make(TF, transforms=found))


def parse(message: BagMessage) -> Any:
    """The message as an object with the fields of its type.

    Raises:
        EncodingError: the bytes are no message of that type.
    """
    try:
        return typestore().deserialize_cdr(message.data, message.type)
    except Exception as error:  # whatever cut-off bytes lead the parser to
        raise EncodingError(f"no {message.type}", where=message.topic) from error

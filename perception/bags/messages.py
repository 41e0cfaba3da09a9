"""Samples as serialized ROS 2 messages, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from perception.adapters.messages import CAMERA_INFO, CLOUD, IMAGE, TF
from perception.errors import DataError, EncodingError
from perception.extras import require
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

_FLOAT32 = 7
_SECONDS = range(-(2**31), 2**31)
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
    require("a bag", "rosbags")
    from rosbags.typesys import Stores, get_typestore

    # The messages used here are the same in Humble, Jazzy and Kilted.
    return get_typestore(Stores.ROS2_HUMBLE)


class Codec(Protocol):
    """Makes and serializes messages: `Rosbags`, or a ROS installation's own classes."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message of a type such as `sensor_msgs/msg/Image`; arrays come as numpy arrays."""

    def serialize(self, message: Any, type_name: str) -> bytes:
        """The message in CDR."""


class Rosbags:
    """Messages of the `rosbags` package, which needs no ROS."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message with these fields."""
        return typestore().types[type_name](**fields)

    def serialize(self, message: Any, type_name: str) -> bytes:
        """The message in CDR."""
        return bytes(typestore().serialize_cdr(message, type_name))


ROSBAGS = Rosbags()


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


def _header(codec: Codec, stamp_ns: int, frame_id: str) -> Any:
    check_stamp(stamp_ns, where=frame_id)
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = codec.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return codec.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def sample_message(topic: str, sample: Sample, frame_id: str, codec: Codec = ROSBAGS) -> BagMessage:
    """A sample as `Image` or `PointCloud2`: rgb8, 32FC1 metres, mono8 / mono16 / 32FC1 kelvin, xyzi."""
    if sample.kind == "lidar":
        return _cloud(topic, sample, frame_id, codec)
    encoding, kind = "32FC1", "f4"
    if sample.kind == "rgb":
        encoding, kind = "rgb8", "u1"
    elif sample.kind == "thermal":
        encoding, kind = _ENCODINGS.get(sample.unit, (encoding, kind))
    pixels = sample.data
    if kind != "f4" and pixels.dtype != np.dtype(kind):
        pixels = np.nan_to_num(pixels).round().clip(0, np.iinfo(kind).max)
    pixels = np.ascontiguousarray(pixels, kind)
    height, width = pixels.shape[:2]
    message = codec.make(
        IMAGE,
        header=_header(codec, sample.time_ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // height,
        data=pixels.reshape(-1).view(np.uint8),
    )
    return BagMessage(topic, IMAGE, sample.time_ns, codec.serialize(message, IMAGE))


def _cloud(topic: str, sample: Sample, frame_id: str, codec: Codec) -> BagMessage:
    points = np.ascontiguousarray(sample.data[:, :4], np.float32)
    names = ("x", "y", "z", "intensity")[: points.shape[1]]
    fields = [
        codec.make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=_FLOAT32, count=1)
        for i, n in enumerate(names)
    ]
    message = codec.make(
        CLOUD,
        header=_header(codec, sample.time_ns, frame_id),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=4 * len(names),
        row_step=4 * len(names) * len(points),
        data=points.reshape(-1).view(np.uint8),
        is_dense=True,
    )
    return BagMessage(topic, CLOUD, sample.time_ns, codec.serialize(message, CLOUD))


def camera_message(
    topic: str, camera: CameraModel, stamp_ns: int, frame_id: str, codec: Codec = ROSBAGS
) -> BagMessage:
    """Intrinsics as `CameraInfo`."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    none = camera.distortion_model == "none"
    roi = codec.make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    message = codec.make(
        CAMERA_INFO,
        header=_header(codec, stamp_ns, frame_id),
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
    return BagMessage(topic, CAMERA_INFO, stamp_ns, codec.serialize(message, CAMERA_INFO))


def transforms_message(
    topic: str,
    mounts: list[tuple[str, str, RigidTransform]],
    stamp_ns: int,
    codec: Codec = ROSBAGS,
) -> BagMessage:
    """Transforms (parent, child, child to parent) as one `TFMessage`."""
    found = []
    for parent, child, transform in mounts:
        x, y, z = transform.translation.tolist()
        qx, qy, qz, qw = transform.quaternion_xyzw
        found.append(
            codec.make(
                "geometry_msgs/msg/TransformStamped",
                header=_header(codec, stamp_ns, parent),
                child_frame_id=child,
                transform=codec.make(
                    "geometry_msgs/msg/Transform",
                    translation=codec.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                    rotation=codec.make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
                ),
            )
        )
    return BagMessage(topic, TF, stamp_ns, codec.serialize(codec.make(TF, transforms=found), TF))


def parse(message: BagMessage) -> Any:
    """The message as an object with the fields of its type.

    Raises:
        EncodingError: the bytes are no message of that type.
    """
    try:
        return typestore().deserialize_cdr(message.data, message.type)
    except Exception as error:  # whatever cut-off bytes lead the parser to
        raise EncodingError(f"no {message.type}", where=message.topic) from error

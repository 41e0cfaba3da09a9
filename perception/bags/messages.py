"""Samples as serialized ROS 2 messages, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from perception.adapters.messages import CAMERA_INFO, TF
from perception.adapters.outgoing import Types, header
from perception.errors import DataError, EncodingError
from perception.extras import require
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.sensors.registry import kind_of, usable_kinds


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


def _store_of(type_name: str) -> Any:
    """The definitions, with those of the kind that this type is of, if no standard message is.

    Raises:
        DataError: nobody defines it.
    """
    store = typestore()
    if type_name not in store.types:
        from rosbags.typesys import get_types_from_msg

        for kind in usable_kinds():
            for name, text in kind.ros_definitions.items() if type_name in kind.ros_types else ():
                store.register(get_types_from_msg(text, name))
    if type_name not in store.types:
        hint = "a kind of sensor gives those of its own in ros_definitions"
        raise DataError(f"message type {type_name} is not known", hint=hint)
    return store


class Codec(Types, Protocol):
    """Makes and serializes messages: `Rosbags`, or a ROS installation's own classes."""

    def serialize(self, message: Any, type_name: str) -> bytes:
        """The message in CDR."""


class Rosbags:
    """Messages of the `rosbags` package, which needs no ROS."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message with these fields."""
        return _store_of(type_name).types[type_name](**fields)

    def serialize(self, message: Any, type_name: str) -> bytes:
        """The message in CDR."""
        return bytes(_store_of(type_name).serialize_cdr(message, type_name))


ROSBAGS = Rosbags()


def sample_message(topic: str, sample: Sample, frame_id: str, codec: Codec = ROSBAGS) -> BagMessage:
    """A sample as its kind writes it, see `SensorKind.to_message`.

    Raises:
        DataError: its kind writes no messages, or its stamp is no time of one.
    """
    own = kind_of(sample.kind)
    if own.to_message is None or not own.ros_types:
        raise DataError(f"no {own.name} is written to messages", where=topic)
    message = own.to_message(replace(sample, frame_id=frame_id), codec)
    name = own.ros_types[0]
    return BagMessage(topic, name, sample.time_ns, codec.serialize(message, name))


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
        header=header(codec, stamp_ns, frame_id),
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
                header=header(codec, stamp_ns, parent),
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
        return _store_of(message.type).deserialize_cdr(message.data, message.type)
    except Exception as error:  # whatever cut-off bytes lead the parser to
        raise EncodingError(f"no {message.type}", where=message.topic) from error

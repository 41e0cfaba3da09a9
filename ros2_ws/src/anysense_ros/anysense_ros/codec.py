"""Messages of this ROS installation for the library's recordings, where `rosbags` is not needed."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from anysense_ros.conversions import byte_array


class RosCodec:
    """Makes and serializes messages with the generated classes, see `perception.bags.messages.Codec`."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message with these fields."""
        return message_class(type_name)(**{name: _field(value) for name, value in fields.items()})

    def serialize(self, message: Any, type_name: str) -> bytes:
        """The message in CDR."""
        return bytes(serialize_message(message))


@lru_cache
def message_class(type_name: str) -> Any:
    """The generated class of a type such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError, AttributeError: this installation has none.
    """
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    return getattr(import_module(f"{package}.msg"), name)


def _field(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return byte_array(value) if value.dtype == np.uint8 else value.tolist()

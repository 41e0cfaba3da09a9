"""Messages of this ROS installation for the library's recordings, where `rosbags` is not needed."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from anysense_ros.conversions import byte_array
from perception.adapters.messages import COMPRESSED
from perception.errors import ConfigError
from perception.sensors.registry import kind_of


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
        ConfigError: this installation has none.
    """
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        hint = f"install {package} and source its workspace"
        raise ConfigError(f"this ROS has no type {type_name}", hint=hint) from error


def input_form(sensor: str, kind: str, transport: str = "raw") -> tuple[Any, str]:
    """The class of a sensor's messages, and what their topic ends with.

    Raises:
        ConfigError: its kind is not read from messages, or this ROS lacks their type.
    """
    types = kind_of(kind).ros_types
    if not types:
        raise ConfigError(f"no {kind} is read from messages", where=sensor)
    compressed = transport == "compressed" and COMPRESSED in types
    try:
        return message_class(COMPRESSED if compressed else types[0]), "/compressed" * compressed
    except ConfigError as error:
        raise ConfigError(error.message, where=sensor, hint=error.hint) from error


def _field(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return byte_array(value) if value.dtype == np.uint8 else value.tolist()

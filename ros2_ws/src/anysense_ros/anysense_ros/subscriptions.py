"""The subscriptions of a node, told of peers whose QoS does not fit and of messages that never came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from anysense_ros.missed import Missed
from anysense_ros.qos_events import QosEvents

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


class Subscriptions:
    """Makes them, and destroys them.

    Args:
        node: whose they are.
        events: that looks after their event handlers.
        on_incompatible: called with the part that a subscription is for, and the event.

    Attributes:
        missed: by part, what never came to those that are counted.
    """

    def __init__(
        self, node: Node, events: QosEvents, on_incompatible: Callable[[str, Any], None]
    ) -> None:
        self._node, self._events, self._on_incompatible = node, events, on_incompatible
        self._made: list[Any] = []
        self.missed: dict[str, Missed] = {}

    def count(
        self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile, part: str
    ) -> None:
        """As `make`, and what never comes is counted."""
        missed = self.missed[part] = Missed(lambda: int(made.get_publisher_count()))

        def heard(message: Any, info: Mapping[str, Any]) -> None:
            missed.note(info, time.monotonic_ns())
            callback(message)

        made = self.make(kind, topic, heard, qos, part)

    def make(
        self, kind: Any, topic: str, callback: Callable[..., None], qos: QoSProfile, part: str
    ) -> Any:
        """A subscription to messages of a kind, for a part of the node that messages name."""
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(self._on_incompatible, part), use_default_callbacks=False
        )
        made = self._node.create_subscription(kind, topic, callback, qos, event_callbacks=events)
        self._events.watch(made)
        self._made.append(made)
        return made

    def drop(self, *subscriptions: Any) -> None:
        """Destroy these; None is none."""
        for subscription in filter(None, subscriptions):
            self._made.remove(subscription)
            self._events.release(subscription)
            self._node.destroy_subscription(subscription)

    def drop_all(self) -> None:
        """Destroy all."""
        self.drop(*self._made)
        self.missed.clear()

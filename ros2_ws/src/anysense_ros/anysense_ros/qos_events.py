"""What middleware tells of peers whose QoS does not fit, asked for now and then.

rclpy's executors put every event handler into the set that they wait on, and take it out again, at each
message: of a dozen publishers that holds up the threads that work by a third of a millisecond, for what
happens when peers come.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node


class QosEvents:
    """The event handlers of a node's publishers and subscriptions, away from its executor.

    From one thread at a time, that of the executor.

    Args:
        node: whose they are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watched: list[Any] = []

    def watch(self, entity: Any) -> None:
        """Take over the handlers of a publisher or subscription that was made."""
        for handler in entity.event_handlers:
            self._node.remove_waitable(handler)
        self._watched.append(entity)

    def release(self, entity: Any) -> None:
        """Give them back, before it is destroyed."""
        if entity in self._watched:
            self._watched.remove(entity)
            for handler in entity.event_handlers:
                self._node.add_waitable(handler)

    def look(self) -> None:
        """Call the callbacks of what has happened."""
        handlers = [handler for entity in self._watched for handler in entity.event_handlers]
        if not handlers:
            return
        with ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            context = self._node.context.handle
            wait_set = rclpy_implementation.WaitSet(0, 0, 0, 0, 0, len(handlers), context)
            wait_set.clear_entities()
            for handler in handlers:
                handler.add_to_wait_set(wait_set)
            wait_set.wait(0)
            told = [(h.callback, h.take_data()) for h in handlers if h.is_ready(wait_set)]
        for callback, data in told:
            if data is not None:
                callback(data)

"""Plays a bag or a data set folder as live topics, with CameraInfo, TF and /clock."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from anysense_ros import processes
from anysense_ros.codec import RosCodec, message_class
from anysense_ros.conversions import to_stamp
from perception.adapters.messages import TF
from perception.bags.files import messages_of, read_bag
from perception.bags.messages import BagMessage
from perception.data.registry import READERS, kind_name, open_recording, parse_data_argument
from perception.errors import AnySenseError, ConfigError

_AHEAD = 32
_CLOCK_STEP_NS = 10_000_000
_POLL_S = 0.05


class SensorReplay(Node):  # type: ignore[misc]
    """Publishes recorded messages byte for byte, at the pace of their stamps.

    Raises:
        ConfigError, DataError: the source is missing or cannot be read.
    """

    def __init__(self) -> None:
        super().__init__("sensor_replay")
        text = ParameterDescriptor(
            description="bag folder, .mcap file, or KIND:DIR such as folder:out/drive",
            read_only=True,
        )
        self._source = str(self.declare_parameter("source", "", text).value)
        limits = FloatingPointRange(from_value=0.01, to_value=100.0)
        pace = ParameterDescriptor(
            description="speed, 1 = as recorded", floating_point_range=[limits]
        )
        self.declare_parameter("rate", 1.0, pace)
        self.declare_parameter("loop", False, ParameterDescriptor(description="start over"))
        self.declare_parameter("clock", True, ParameterDescriptor(description="publish /clock"))
        self.declare_parameter(
            "wait_for",
            1,
            ParameterDescriptor(description="subscribers to wait for before the first message"),
        )
        if not self._source:
            raise ConfigError("is empty", where="parameter source", hint=text.description)
        self._publishers_by_topic: dict[str, Any] = {}
        self._unknown: set[str] = set()
        self._clock = self.create_publisher(Clock, "/clock", 10)
        self._ended = threading.Event()
        # One thread for all rounds: memory that a new one takes is not the next one's to use again.
        self._reader = ThreadPoolExecutor(1, "reader")
        first = next(self._messages(), None)
        if first is None:
            raise ConfigError("holds no message", where=self._source)
        self._prepare()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def close(self) -> None:
        """Stop playing."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.shutdown()

    def _messages(self) -> Iterator[BagMessage]:
        kind, colon, _ = self._source.partition(":")
        if colon and kind_name(kind) in READERS:
            return messages_of(open_recording(*parse_data_argument(self._source)), RosCodec())
        return read_bag(Path(self._source))

    def _prepare(self) -> None:
        """Put all topics up before the first message, so that subscribers are found."""
        seen_ns: int | None = None
        for message in self._messages():
            seen_ns = message.stamp_ns if seen_ns is None else seen_ns
            self._publisher(message)
            if message.stamp_ns - seen_ns > 2_000_000_000:
                break

    def _publisher(self, message: BagMessage) -> Any:
        topic = message.topic
        if topic in self._unknown:
            return None
        if topic not in self._publishers_by_topic:
            try:
                kind = message_class(message.type)
            except ConfigError:
                self._unknown.add(topic)
                self.get_logger().warning(f"{topic}: no type {message.type} here, left out")
                return None
            latched = DurabilityPolicy.TRANSIENT_LOCAL
            qos = QoSProfile(depth=100, durability=latched) if message.type == TF else 10
            self._publishers_by_topic[topic] = self.create_publisher(kind, topic, qos)
        return self._publishers_by_topic[topic]

    def _run(self) -> None:
        try:
            while self._wait_for_listeners() and self._play_once():
                if not self.get_parameter("loop").value:
                    break
                self.get_logger().info("starting over")
            self.get_logger().info("end of the recording")
        except AnySenseError as error:
            self.get_logger().error(str(error))
        except RCLError:
            if self.context.ok():  # otherwise a signal has taken the topics from under us
                raise

    def _wait_for_listeners(self) -> bool:
        needed = self.get_parameter("wait_for").value
        while not self._ended.is_set():
            listeners = [
                p.get_subscription_count()
                for t, p in self._publishers_by_topic.items()
                if not t.startswith("/tf")
            ]
            if max(listeners, default=0) >= needed:
                return True
            self._ended.wait(_POLL_S)
        return False

    def _play_once(self) -> bool:
        """Play to the end; False when stopped before."""
        ahead: queue.Queue[BagMessage | AnySenseError | None] = queue.Queue(_AHEAD)
        self._reader.submit(self._read, ahead)
        clock_on = bool(self.get_parameter("clock").value)
        previous: int | None = None
        due = time.monotonic()
        while not self._ended.is_set():
            try:
                message = ahead.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if message is None:
                return True
            if isinstance(message, AnySenseError):
                raise message
            if previous is not None:
                rate = self.get_parameter("rate").value
                due += max(0, message.stamp_ns - previous) / 1e9 / rate
                # Behind by more than a blink: go on from here rather than in a burst.
                due = max(due, time.monotonic() - _POLL_S)
                self._pause(due, previous, message.stamp_ns, clock_on)
            previous = message.stamp_ns
            if clock_on:
                self._clock.publish(Clock(clock=to_stamp(message.stamp_ns)))
            publisher = self._publisher(message)
            if publisher is not None and not self._ended.is_set():
                publisher.publish(message.data)
        return False

    def _pause(self, due: float, from_ns: int, to_ns: int, clock_on: bool) -> None:
        """Wait until `due`, letting /clock run from one stamp to the other."""
        start = time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            if now >= due:
                return
            if clock_on and due > start:
                stamp = from_ns + round((now - start) / (due - start) * (to_ns - from_ns))
                self._clock.publish(Clock(clock=to_stamp(stamp)))
            self._ended.wait(min(due - now, _CLOCK_STEP_NS / 1e9))

    def _read(self, ahead: queue.Queue[BagMessage | AnySenseError | None]) -> None:
        """Read, decode and serialize ahead of time on a thread of its own."""

        def put(item: BagMessage | AnySenseError | None) -> bool:
            while not self._ended.is_set():
                try:
                    ahead.put(item, timeout=_POLL_S)
                    return True
                except queue.Full:
                    continue
            return False

        try:
            for message in self._messages():
                if not put(message):
                    return
            put(None)
        except AnySenseError as error:
            put(error)


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros sensor_replay`."""
    return processes.run(SensorReplay, lambda n: n.close(), lambda n: n.start(), args)


if __name__ == "__main__":
    sys.exit(main())

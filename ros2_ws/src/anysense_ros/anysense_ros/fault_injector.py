"""Stands between the sensors and the perception node, and makes sensors fail on purpose."""

from __future__ import annotations

import heapq
import itertools
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from anysense_msgs.srv import SetFault
from rcl_interfaces.msg import ParameterDescriptor
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2

from anysense_ros import processes
from anysense_ros.diagnostics import OK, Diagnostics
from anysense_ros.faults import (
    ONE_OF_A_KIND,
    Fault,
    FaultySensor,
    active,
    load_schedule,
    named_sensors,
)
from perception.errors import AnySenseError, ConfigError
from perception.frame import KINDS


class FaultInjector(Node):  # type: ignore[misc]
    """Passes `~/input/<sensor>` on to `~/output/<sensor>`, by a schedule or by service.

    A fault set by service goes before the schedule's.  The schedule's time starts with the first
    message.  /diagnostics tells how many messages each sensor has sent, and how many went out.

    Raises:
        ConfigError: the schedule is wrong.
    """

    def __init__(self) -> None:
        super().__init__("fault_injector")
        text = ParameterDescriptor(description="YAML file of faults, see docs/ros.md")
        text.read_only = True
        schedule = str(self.declare_parameter("schedule", "", text).value)
        text = ParameterDescriptor(description="to pass on: rgb, or front=rgb", read_only=True)
        kinds = named_sensors(self.declare_parameter("sensors", list(KINDS), text).value)
        text = ParameterDescriptor(description="seed of random faults", read_only=True)
        seed = int(self.declare_parameter("seed", 0, text).value)
        self._kinds = {**ONE_OF_A_KIND, **kinds}  # a schedule may serve robots with more sensors
        self._events, self._loop_s = [], 0.0
        if schedule:
            self._events, self._loop_s = load_schedule(Path(schedule), self._kinds)
        self._faulty = {m: FaultySensor(seed + i) for i, m in enumerate(kinds)}
        self._set: dict[str, tuple[Fault, float]] = {}
        self._known: dict[str, Fault | None] = {}
        self._start: float | None = None
        self._late: list[tuple[float, int, Any, Any]] = []
        self._order = itertools.count()
        self._counts: dict[str, Counter[str]] = {m: Counter() for m in kinds}
        self._diagnostics = Diagnostics(self)
        self.create_timer(1.0, self._report)
        self._changed = threading.Condition()
        self._ended = False
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        best = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, kind in kinds.items():
            form = PointCloud2 if kind == "lidar" else Image
            publisher = self.create_publisher(form, f"~/output/{name}", qos)
            callback = partial(self._on_message, name, partial(self._send, name, publisher))
            self.create_subscription(form, f"~/input/{name}", callback, best)
        self.create_service(SetFault, "~/set_fault", self._on_set)
        self._thread = threading.Thread(target=self._deliver, name="delays", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let what is delayed go unsent."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _send(self, name: str, publisher: Any, message: Any) -> None:
        publisher.publish(message)
        self._counts[name]["sent"] += 1

    def _report(self) -> None:
        for name, counts in self._counts.items():
            fault = self._known.get(name)
            line = fault.kind if fault else "no fault"
            self._diagnostics.set(name, OK, line, dict(counts))
        self._diagnostics.publish()

    def _on_message(self, name: str, send: Callable[[Any], None], message: Any) -> None:
        self._counts[name]["received"] += 1
        now = time.monotonic()
        if self._start is None:
            self._start = now
        fault = self._fault(name, now)
        if fault != self._known.get(name):
            self._known[name] = fault
            self.get_logger().info(f"{name}: {fault.kind if fault else 'no fault'}")
        changed, delay = self._faulty[name].apply(message, fault)
        if changed is None:
            return
        if delay <= 0:
            send(changed)
            return
        with self._changed:
            heapq.heappush(self._late, (now + delay, next(self._order), send, changed))
            self._changed.notify()

    def _fault(self, name: str, now: float) -> Fault | None:
        fault, until = self._set.get(name, (None, 0.0))
        if fault is not None and now < until:
            return None if fault.kind == "none" else fault
        return active(self._events, self._loop_s, now - (self._start or now), name)

    def _on_set(self, request: Any, response: Any) -> Any:
        names = list(self._faulty) if request.sensor == "all" else [request.sensor]
        span = request.duration if request.duration > 0 else math.inf
        try:
            faults = {
                n: Fault(n, request.fault, request.value, self._kinds.get(n, "")) for n in names
            }
            missing = [n for n in names if n not in self._faulty]
            if missing:
                raise ConfigError("is not passed on here", where=missing[0])
        except AnySenseError as error:
            response.success, response.message = False, str(error)
            return response
        for name, fault in faults.items():
            if fault.kind == "none" and not math.isfinite(span):
                self._set.pop(name, None)  # mended: the schedule holds again
            else:
                self._set[name] = (fault, time.monotonic() + span)
        response.success = True
        response.message = f"{', '.join(names)}: {request.fault}"
        return response

    def _deliver(self) -> None:
        """Publish delayed messages when their time has come."""
        while True:
            with self._changed:
                while not self._ended:
                    wait = self._late[0][0] - time.monotonic() if self._late else None
                    if wait is not None and wait <= 0:
                        break
                    self._changed.wait(wait)
                if self._ended:
                    return
                _, _, send, message = heapq.heappop(self._late)
            try:
                send(message)
            except RCLError:
                if self.context.ok():  # otherwise a signal has taken the topics from under us
                    raise


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros fault_injector`."""
    return processes.run(FaultInjector, lambda n: n.close(), None, args)


if __name__ == "__main__":
    sys.exit(main())

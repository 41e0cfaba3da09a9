"""Stands between the sensors and the perception node, and makes sensors fail on purpose."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from anysense_msgs.srv import SetFault
from rcl_interfaces.msg import ParameterDescriptor
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from anysense_ros import processes
from anysense_ros.codec import input_form
from anysense_ros.diagnostics import OK, Diagnostics
from anysense_ros.faults import (
    ONE_OF_A_KIND,
    Fault,
    FaultySensor,
    active,
    load_schedule,
    named_sensors,
)
from anysense_ros.heap import Heap
from anysense_ros.missed import Missed
from perception.corruptions import FaultSchedule
from perception.errors import AnySenseError, ConfigError
from perception.frame import KINDS

_GIVES_BACK_EVERY = 5
"""Reports, which are a second apart."""


class FaultInjector(Node):  # type: ignore[misc]
    """Passes `~/input/<sensor>` on to `~/output/<sensor>`, by a schedule or by service.

    A fault set by service goes before the schedule's.  The schedule's time starts with the first
    message.  /diagnostics tells how many messages of each sensor came, never came, and went out.

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
        self._schedule = FaultSchedule()
        if schedule:
            self._schedule = load_schedule(Path(schedule), self._kinds)
        self._faulty = {m: FaultySensor(seed + i) for i, m in enumerate(kinds)}
        self._set: dict[str, tuple[Fault, int, float]] = {}  # since when, until when
        self._known: dict[str, Fault | None] = {}
        self._start: int | None = None
        self._sends: dict[str, Callable[[Any], None]] = {}
        self._counts: dict[str, Counter[str]] = {m: Counter() for m in kinds}
        self._missed: dict[str, Missed] = {}
        self._diagnostics = Diagnostics(self)
        self._heap = Heap()
        self._spoilt, self._reports = False, 0
        self.create_timer(1.0, self._report)
        self._changed = threading.Condition()
        self._ended = False
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        best = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, kind in kinds.items():
            form, _ = input_form(name, kind)
            publisher = self.create_publisher(form, f"~/output/{name}", qos)
            self._sends[name] = partial(self._send, name, publisher)
            callback = partial(self._on_message, name, self._sends[name])
            made = self.create_subscription(form, f"~/input/{name}", callback, best)
            self._missed[name] = Missed(made.get_publisher_count)
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
        with self._changed:  # two threads send
            self._counts[name]["sent"] += 1

    def _report(self) -> None:
        for name, counts in self._counts.items():
            fault = self._known.get(name)
            line = fault.kind if fault else "no fault"
            missed = self._missed[name].count
            values = {**counts, **({} if missed is None else {"missed": missed})}
            self._diagnostics.set(name, OK, line, values)
        self._diagnostics.publish()
        # It held messages for a fault, or made others of them: the next may be long in coming.
        self._reports += 1
        if self._spoilt and self._reports % _GIVES_BACK_EVERY == 0:
            self._spoilt = False
            self._heap.give_back()

    def _on_message(
        self, name: str, send: Callable[[Any], None], message: Any, info: Mapping[str, Any]
    ) -> None:
        self._counts[name]["received"] += 1
        now = time.monotonic_ns()
        self._missed[name].note(info, now)
        if self._start is None:
            self._start = now
        fault, since = self._fault(name, now)
        self._spoilt |= fault is not None
        if fault != self._known.get(name):
            self._known[name] = fault
            self.get_logger().info(f"{name}: {fault.kind if fault else 'no fault'}")
        with self._changed:
            self._faulty[name].push(message, now, fault, since)
            due = self._faulty[name].poll(now)
            self._changed.notify()
        for changed, _ in due:
            send(changed)

    def _fault(self, name: str, now: int) -> tuple[Fault | None, int]:
        """What is wrong with a sensor, and since when."""
        found = self._set.get(name)
        if found is not None and now < found[2]:
            fault, since, _ = found
            return (None, 0) if fault.kind == "none" else (fault, since)
        start = self._start or now
        scheduled, began_s = active(self._schedule, (now - start) / 1e9, name, self._kinds)
        return scheduled, start + round(began_s * 1e9)

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
                now = time.monotonic_ns()
                self._set[name] = (fault, now, now + span * 1e9)
        response.success = True
        response.message = f"{', '.join(names)}: {request.fault}"
        return response

    def _deliver(self) -> None:
        """Publish delayed messages when their time has come."""
        while True:
            with self._changed:
                while not self._ended:
                    due = [f.next_ns() for f in self._faulty.values()]
                    next_ns = min((ns for ns in due if ns is not None), default=None)
                    now = time.monotonic_ns()
                    if next_ns is not None and next_ns <= now:
                        break
                    self._changed.wait(None if next_ns is None else (next_ns - now) / 1e9)
                if self._ended:
                    return
                late = [(n, m) for n, f in self._faulty.items() for m, _ in f.poll(now)]
            try:
                for name, message in late:
                    self._sends[name](message)
            except RCLError:
                if self.context.ok():  # otherwise a signal has taken the topics from under us
                    raise


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros fault_injector`."""
    return processes.run(FaultInjector, lambda n: n.close(), None, args)


if __name__ == "__main__":
    sys.exit(main())

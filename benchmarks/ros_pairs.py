"""Nodes that run at once, each given pairs of color and depth in its turn: see `ros_latency.py --paired`."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import header, image, to_ns
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_nodes import SpinningNode
from sensor_msgs.msg import Image

SIZE, SENSORS = (480, 640), ("rgb", "depth")
QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_FIRST, _ANSWERS_WITHIN_S, _STARTS_WITHIN_S, _ENDS_WITHIN_S = 10, 1.0, 120.0, 30.0
_PAUSE_S = 0.015


class PairedDriver(SpinningNode):
    """Sends a pair to one node, and waits for its mask.

    Args:
        names: of the nodes; their topics are `<root>/<name>/rgb`, `depth` and `mask`.
        root: see above.
    """

    def __init__(self, names: Sequence[str], root: str) -> None:
        super().__init__("bench_pairs")
        self._came, self._arrived = threading.Event(), dict[tuple[str, int], float]()
        self.statuses: list[PerceptionStatus] = []
        node = self.node
        self._publishers = {
            (name, sensor): node.create_publisher(Image, f"{root}/{name}/{sensor}", QOS)
            for name in names
            for sensor in SENSORS
        }
        for name in names:
            node.create_subscription(Image, f"{root}/{name}/mask", partial(self._on, name), QOS)
        node.create_subscription(
            PerceptionStatus, "/perception_node/status", self.statuses.append, 50
        )
        rng = np.random.default_rng(0)
        self._color = rng.integers(20, 230, (*SIZE, 3), np.uint8)
        self._meters = rng.uniform(1, 8, SIZE).astype(np.float32)
        self.start()

    def _on(self, name: str, message: Image) -> None:
        self._arrived[name, to_ns(message.header.stamp)] = time.monotonic()
        self._came.set()

    def ask(self, name: str) -> float:
        """Milliseconds from sending the last of a pair to a node to receiving its mask; NaN for none."""
        self._color = np.roll(self._color, 3, axis=1)
        self._meters = np.roll(self._meters, 3, axis=1)
        stamp = time.time_ns()
        head = header(stamp, "camera_optical")
        messages = {"rgb": image(self._color, head, "rgb8"), "depth": image(self._meters, head)}
        for sensor in SENSORS:
            sent = time.monotonic()
            self._publishers[name, sensor].publish(messages[sensor])
        while (name, stamp) not in self._arrived and time.monotonic() < sent + _ANSWERS_WITHIN_S:
            self._came.wait(0.05)
            self._came.clear()
        time.sleep(_PAUSE_S)
        return (self._arrived.pop((name, stamp), np.nan) - sent) * 1e3


def measure_pairs(
    commands: Mapping[str, Sequence[str]], pairs: int, root: str
) -> dict[str, dict[str, Any]]:
    """Run nodes at once and give each every other pair.

    Args:
        commands: by node, what starts it.
        pairs: how many each gets.
        root: of the topics, see `PairedDriver`.

    Returns:
        By node: how many masks came, median and percentiles of their latency, the median of its ratio to
        the first node's for the pair before or after, and of ours what its statuses say.
    """
    driver = PairedDriver(tuple(commands), root)
    processes = {name: subprocess.Popen(command) for name, command in commands.items()}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    try:
        for name in commands:
            end = time.monotonic() + _STARTS_WITHIN_S
            while not np.isfinite(driver.ask(name)):
                if time.monotonic() > end or processes[name].poll() is not None:
                    raise SystemExit(f"{name} gave no output")
        for number in range(_FIRST + pairs):
            if number == _FIRST:
                driver.statuses.clear()
            for name in commands if number % 2 else reversed(tuple(commands)):
                latency = driver.ask(name)
                if number >= _FIRST:
                    taken[name].append(latency)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        driver.close()
    first = np.array(next(iter(taken.values())))
    found = {name: _summary(np.array(latencies), first) for name, latencies in taken.items()}
    own = [s.latency_ms - s.engine_ms for s in driver.statuses if s.used]
    if own and "perception_node" in found:
        found["perception_node"]["node_less_engine_p50_ms"] = round(float(np.median(own)), 2)
    return found


def _summary(latencies: Any, first: Any) -> dict[str, Any]:
    p10, p50, p99 = np.nanpercentile(latencies, (10, 50, 99))
    return {
        "masks": int(np.isfinite(latencies).sum()),
        "p10_ms": round(float(p10), 2),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "ratio": round(float(np.nanmedian(latencies / first)), 3),
    }

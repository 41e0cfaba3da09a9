"""The node for a long time with drivers as they are: out of step, jittering, clocks wrong or missing.

rgb at 30 Hz, depth at 10 Hz without stamps, thermal at 10 Hz with a clock that is 0.4 s ahead, LiDAR at
5 Hz.  Checked all the time: stamps rise from output to output on every topic, no stamp of ~/status comes
twice, every message is accounted for, /diagnostics says of the last output what ~/status did and of each
sensor what is wrong with it, and the log stays short.  Status 1 and the reason when something is wrong.

    source ros2_ws/env.sh
    python benchmarks/ros_patterns.py --bundle sim-rgbdtl --seconds 600
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import to_ns
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_drivers import Drivers, Pattern
from ros_nodes import PATIENCE_S, STATES, Monitor, errors_in_log, report, start_node, wait
from sensor_msgs.msg import Image, PointCloud2
from vision_msgs.msg import Detection2DArray

from perception.frame import KINDS

MOST_LINES = 5
"""Lines of the log in any minute of the steady state."""

PATTERNS = {
    "rgb": Pattern(30, jitter_s=0.008),
    "depth": Pattern(10, phase_s=0.037, jitter_s=0.010, stamped=False),
    "thermal": Pattern(10, phase_s=0.061, jitter_s=0.010, ahead_s=0.4),
    "lidar": Pattern(5, phase_s=0.083, jitter_s=0.015, latency_s=0.060),
}
OUTPUTS = {
    "segmentation/mask": Image,
    "points": PointCloud2,
    "detections": Detection2DArray,
}
TOLD = {"thermal": "ahead of this computer's clock", "depth": "no stamps"}


class Patterns(Monitor):
    """Checks what the node says."""

    def __init__(self) -> None:
        super().__init__("patterns_monitor", OUTPUTS, 20)
        self.used: Counter[str] = Counter()
        self.levels: dict[str, Counter[int]] = {}
        self.lines: list[tuple[float, str]] = []
        self.steady = False
        self._statuses: dict[int, PerceptionStatus] = {}  # the last ones, by number
        self._reports: list[tuple[float, dict[str, DiagnosticStatus]]] = []
        self._stamps: dict[str, int] = {}
        self._told: set[int] = set()
        self._at: float | None = None
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Log, "/rosout", self._on_log, latched)

    def on_output(self, topic: str, message: Any) -> None:
        super().on_output(topic, message)
        self._rises(topic, to_ns(message.header.stamp))

    def _rises(self, name: str, stamp_ns: int) -> None:
        before = self._stamps.get(name)
        if before is not None and stamp_ns <= before:
            self.wrong.append(f"{name}: stamp {stamp_ns} after {before}")
        self._stamps[name] = stamp_ns

    def on_status(self, message: PerceptionStatus) -> None:
        now = time.monotonic()
        super().on_status(message)
        self._statuses[message.sequence] = message
        self._statuses.pop(message.sequence - 2000, None)
        stamp = to_ns(message.header.stamp)
        if stamp in self._told:
            self.wrong.append(f"~/status: stamp {stamp} twice")
        self._told.add(stamp)
        if message.used:
            self._rises("~/status", stamp)
            if self.steady and self._at is not None:
                self.longest_gap_s = max(self.longest_gap_s, now - self._at)
            self._at = now
        if self.steady:
            self.states[STATES[message.state]] += 1
            self.used.update(message.used or ["nothing"])

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        parts = {
            s.name.rpartition(": ")[2]: s
            for s in message.status
            if s.name.startswith("perception_node: ")
        }
        if parts and self.steady:
            self._reports.append((time.monotonic(), parts))

    def _on_log(self, message: Log) -> None:
        if message.name == "perception_node":
            self.lines.append((time.monotonic(), message.msg))

    def check_reports(self) -> None:
        """Compare what diagnostics said a while ago with the statuses, which have come by now."""
        due = [r for r in self._reports if time.monotonic() - r[0] > 2.0]
        del self._reports[: len(due)]
        for _, parts in due:
            self._check_output(parts["output"])
            for sensor in KINDS:
                part = parts[sensor]
                level = int.from_bytes(part.level, "big")
                self.levels.setdefault(sensor, Counter())[level] += 1
                if sensor in TOLD and (level == 0 or TOLD[sensor] not in part.message):
                    self.wrong.append(f"/diagnostics of {sensor}: {level} {part.message}")

    def _check_output(self, part: DiagnosticStatus) -> None:
        values = {v.key: v.value for v in part.values}
        status = self._statuses.get(int(values.get("sequence", -1)))
        if status is None:
            self.wrong.append(f"/diagnostics of the output: no status {values.get('sequence')}")
            return
        told = (values["state"], values["sensors"])
        if told != (STATES[status.state], ", ".join(status.used)):
            self.wrong.append(f"/diagnostics of output {status.sequence}: {told}")

    def lines_in_a_minute(self, since: float) -> int:
        """The most lines that the log got within any minute from a time on."""
        times = [t for t, _ in self.lines if t >= since]
        return max((sum(t <= u < t + 60 for u in times) for t in times), default=0)


def run(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The whole run: what was found, and what is wrong."""
    monitor = Patterns()
    drivers = Drivers(monitor.node, PATTERNS)
    # The defaults, but for what a slow and shared machine needs.
    parameters = {
        "bundle": args.bundle,
        "device": args.device,
        "threads": 1,
        "autostart": True,
        "inputs": list(KINDS),
        **{f"{m}.timeout_ms": args.timeout_ms for m in KINDS},
    }
    node = start_node(folder, "perception_node", parameters)
    try:
        monitor.start()
        drivers.start()
        wait(lambda: monitor.last is not None and monitor.last.used, "an output")
        time.sleep(args.warm_up)
        monitor.steady, began = True, time.monotonic()
        process = psutil.Process(node.pid)
        memory = [process.memory_info().rss]
        while time.monotonic() - began < args.seconds:
            if node.poll() is not None:
                raise SystemExit(f"the node ended with status {node.returncode}")
            monitor.check_reports()
            memory.append(process.memory_info().rss)
            time.sleep(1.0)
        lines = monitor.lines_in_a_minute(began)
        said = [line for t, line in monitor.lines if t >= began]
    finally:
        drivers.close()
        node.send_signal(signal.SIGINT)
        status = node.wait(PATIENCE_S)
        monitor.close()
    wrong = list(dict.fromkeys(monitor.wrong))[:10] + errors_in_log(folder, "perception_node")
    if status:
        wrong.append(f"the node ended with status {status}")
    if lines >= MOST_LINES:
        wrong.append(f"{lines} lines of the log in a minute")
    if monitor.used["thermal"]:
        wrong.append(f"thermal was used {monitor.used['thermal']} times")
    wrong += [f"{m} was not used" for m in ("rgb", "depth", "lidar") if not monitor.used[m]]
    wrong += [f"no message on {name}" for name in OUTPUTS if not monitor.heard[name]]
    found = {
        "seconds": args.seconds,
        "states": dict(monitor.states),
        "used": dict(monitor.used),
        "heard": dict(monitor.heard),
        "diagnostics_by_level": {m: dict(c) for m, c in monitor.levels.items()},
        "longest_gap_s": round(monitor.longest_gap_s, 2),
        "most_log_lines_in_a_minute": lines,
        "log": said[:20],
        "memory_mb": [round(memory[1] / 2**20), round(memory[-1] / 2**20)],
    }
    return found, wrong


def main() -> int:
    """Parse the arguments, run, print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="a bundle with all four sensors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before it is steady")
    parser.add_argument("--timeout-ms", type=float, default=1500.0, help="of each sensor")
    parser.add_argument("--out", type=Path, help="folder for the log; temporary when not given")
    return report(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

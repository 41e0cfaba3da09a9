"""What the ROS benchmarks share: a node that spins beside them, and nodes as processes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
import yaml
from anysense_msgs.msg import PerceptionStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

PATIENCE_S = 120.0
STATES = ("full", "degraded", "hold", "stop")


class SpinningNode:
    """A node whose callbacks come from a thread of its own until `close`.

    Attributes:
        node: to subscribe, publish and call services with.
    """

    def __init__(self, name: str) -> None:
        rclpy.init()
        self.node = rclpy.create_node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self) -> None:
        """Begin to spin."""
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Stop spinning and leave ROS."""
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown()


class Monitor(SpinningNode):
    """Hears what the perception node says, and checks that it accounts for every message.

    Args:
        name: of the node.
        outputs: types of the outputs to hear, by topic.
        depth: of their queues.
    """

    def __init__(self, name: str, outputs: Mapping[str, Any], depth: int) -> None:
        super().__init__(name)
        self.last: PerceptionStatus | None = None
        self.wrong: list[str] = []
        self.states = Counter(dict.fromkeys(STATES, 0))
        self.heard = Counter(dict.fromkeys(outputs, 0))
        self.longest_gap_s = 0.0
        root, subscribe = "/perception_node", self.node.create_subscription
        subscribe(PerceptionStatus, f"{root}/status", self.on_status, 500)
        subscribe(DiagnosticArray, "/diagnostics", self.on_diagnostics, 100)
        for topic, kind in outputs.items():
            subscribe(kind, f"{root}/{topic}", partial(self.on_output, topic), depth)

    def on_status(self, message: PerceptionStatus) -> None:
        """A message of ~/status came."""
        self.last = message
        for s in message.sensors:
            if s.received != s.taken + s.superseded + s.rejected + s.waiting:
                self.wrong.append(f"status {message.sequence}: {s}")

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """A message of /diagnostics came, from whatever node."""

    def on_output(self, topic: str, message: Any) -> None:
        """An output came."""
        self.heard[topic] += 1


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition, and return what it gave."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.01)
    return value


def start_node(
    folder: Path, name: str, parameters: Mapping[str, Any], remaps: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A node of `anysense_ros` as a process, its parameters and `<name>.log` in the folder."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
    command = [str(node_program(name)), "--ros-args", "--params-file", str(file)]
    for old, new in (remaps or {}).items():
        command += ["-r", f"{old}:={new}"]
    log = (folder / f"{name}.log").open("w")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def errors_in_log(folder: Path, name: str) -> list[str]:
    """The first lines of a node's log that tell of what must not happen."""
    log = (folder / f"{name}.log").read_text(errors="replace")
    return [x for x in log.splitlines() if "Traceback" in x or "unexpected" in x][:3]


def report(
    run: Callable[[argparse.Namespace, Path], tuple[dict[str, Any], list[str]]],
    args: argparse.Namespace,
) -> int:
    """Run in the folder `args.out`, or a temporary one, and print what was found; 1 if any is wrong."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found, wrong = run(args, folder)
    print(json.dumps({**found, "wrong": wrong}, indent=2))
    return 1 if wrong else 0


def node_program(name: str) -> Path:
    """The executable of a node of `anysense_ros`, in the workspace that the environment names."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    found = [p for p in (Path(x) / "lib/anysense_ros" / name for x in prefixes) if p.is_file()]
    if not found:
        raise SystemExit("the workspace is not built: make ros, then source ros2_ws/env.sh")
    return found[0]

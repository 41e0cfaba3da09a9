"""perception_node beside a plain node, on the same RGB-D stream, in one run.

The plain node is built the usual way: exact pairs from an approximate-time queue, a copy of every
image, one monolithic graph with zeros for what is missing.  Each gets 640x480 color and depth at
10 Hz; then color dies.  Times are from sending the last of a pair to receiving the mask, so they
include the transport both ways.

    source ros2_ws/env.sh
    python benchmarks/ros_latency.py --bundle ros2_ws/.colcon/tiny/bundle --seconds 20
    python benchmarks/ros_latency.py --bundle ros2_ws/.colcon/tiny/bundle --paired 200

`--paired` runs both at once, and each gets every other pair: a slow moment of the machine so hits both, and
what is told is the median of their ratio.  The bundle needs a graph of everything in one, which
`anysense export BUNDLE --subset single --out OUT` adds.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import header, image, to_ns
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_nodes import SpinningNode, node_program
from sensor_msgs.msg import Image

from perception.frame import Sample

HEIGHT, WIDTH, RATE = 480, 640, 10.0
_STARTS_WITHIN_S, _ENDS_WITHIN_S = 120.0, 30.0
SLOP_NS = 25_000_000
SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class PlainNode(Node):  # type: ignore[misc]
    """Waits for pairs, copies, runs one graph, publishes a mask."""

    def __init__(self, bundle: str, threads: int, root: str) -> None:
        import onnxruntime as ort

        from perception.runtime.bundle import Bundle, find_bundle

        super().__init__("plain_node")
        opened = Bundle.open(find_bundle(bundle))
        self._contract, self._wiring = opened.manifest.inputs, opened.manifest.wiring
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        if opened.manifest.graphs.single is None:
            raise SystemExit(f"{bundle} has no graph of everything in one, see --help")
        path = str(opened.file(opened.manifest.graphs.single.file))
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._queues: dict[str, list[Image]] = {"rgb": [], "depth": []}
        self._publisher = self.create_publisher(Image, f"{root}/mask", SENSOR_QOS)
        for name in self._queues:
            self.create_subscription(
                Image, f"{root}/{name}", lambda m, n=name: self._on(n, m), SENSOR_QOS
            )

    def _on(self, name: str, message: Image) -> None:
        self._queues[name] = [*self._queues[name], message][-10:]
        for rgb in self._queues["rgb"]:
            for depth in self._queues["depth"]:
                if abs(to_ns(rgb.header.stamp) - to_ns(depth.header.stamp)) <= SLOP_NS:
                    self._queues = {"rgb": [], "depth": []}
                    self._run(rgb, depth)
                    return

    def _run(self, rgb: Image, depth: Image) -> None:
        from perception.geometry.grid import GridMap
        from perception.preprocess.sample import preprocess_sample
        from perception.tasks.class_logits import label_confidence, label_pixels

        color = np.frombuffer(rgb.data, np.uint8).reshape(rgb.height, rgb.width, 3).copy()
        meters = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width).copy()
        feeds: dict[str, Any] = {
            name: np.zeros((1, *spec.tensors["image"].shape), np.float32)
            for name, spec in self._contract.items()
        }
        feeds["rgb"] = preprocess_sample(Sample("rgb", color), self._contract["rgb"])["image"]
        feeds["depth"] = preprocess_sample(Sample("depth", meters), self._contract["depth"])[
            "image"
        ]
        feeds["presence"] = self._wiring.present(("rgb", "depth"))
        names = [i.name for i in self._session.get_inputs()]
        outputs = dict(
            zip(
                [o.name for o in self._session.get_outputs()],
                self._session.run(None, {n: feeds[n] for n in names}),
                strict=True,
            )
        )
        grid = GridMap.fit((rgb.height, rgb.width), self._contract.grid)
        logits = grid.crop(outputs["seg_logits"][0])
        labels = label_pixels(logits, grid.source)
        label_confidence(logits, grid.source)
        self._publisher.publish(image(labels, rgb.header))


class Driver(SpinningNode):
    """Publishes the pairs and takes the time of every mask."""

    def __init__(self) -> None:
        super().__init__("bench_driver")
        self._publishers = {
            n: self.node.create_publisher(Image, f"/bench/{n}", SENSOR_QOS)
            for n in ("rgb", "depth")
        }
        self.sent: dict[int, float] = {}
        self.masks: list[tuple[float, float]] = []  # when, and latency in ms
        self.statuses: list[PerceptionStatus] = []
        self.node.create_subscription(Image, "/bench/mask", self._on_mask, SENSOR_QOS)
        self.node.create_subscription(
            PerceptionStatus, "/perception_node/status", self.statuses.append, 50
        )
        self.start()

    def _on_mask(self, message: Image) -> None:
        now = time.monotonic()
        start = self.sent.get(to_ns(message.header.stamp))
        if start is not None:
            self.masks.append((now, (now - start) * 1e3))

    def play(self, seconds: float, sensors: tuple[str, ...]) -> None:
        """Publish the sensors for a while."""
        random = np.random.default_rng(0)
        color = random.integers(20, 230, (HEIGHT, WIDTH, 3), np.uint8)
        meters = random.uniform(1, 8, (HEIGHT, WIDTH)).astype(np.float32)
        end, due = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < end:
            stamp = time.time_ns()
            head = header(stamp, "camera_optical")
            color, meters = np.roll(color, 3, axis=1), np.roll(meters, 3, axis=1)
            messages = {"rgb": image(color, head, "rgb8"), "depth": image(meters, head)}
            for name in sensors:
                self.sent[stamp] = time.monotonic()
                self._publishers[name].publish(messages[name])
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))


def measure(driver: Driver, command: list[str], seconds: float) -> dict[str, Any]:
    """Run a node through both parts: what it took with both sensors, and what came from one."""
    process = subprocess.Popen(command, env=os.environ)
    try:
        driver.masks.clear()
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while len(driver.masks) < 5:
            driver.play(1.0, ("rgb", "depth"))
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{Path(command[0]).name} gave no output")
        driver.masks.clear()
        driver.statuses.clear()
        driver.play(seconds, ("rgb", "depth"))
        whole = [latency for _, latency in driver.masks]
        own = [s.latency_ms - s.engine_ms for s in driver.statuses if s.used]
        driver.masks.clear()
        died = time.monotonic()
        driver.play(seconds / 2, ("depth",))
        times = [died, *(when for when, _ in driver.masks), died + seconds / 2]
        gap = float(np.diff(times).max())
        return {"whole": whole, "own": own, "after": len(driver.masks), "gap": gap}
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a node; one that ignores the signal is killed, and said."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"{process.args} did not end on SIGTERM and was killed", file=sys.stderr)


def summarize(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of all turns of a node."""
    whole = [v for t in turns for v in t["whole"]]
    own = [v for t in turns for v in t["own"]]
    found = {
        "outputs": len(whole),
        "p50_ms": round(float(np.percentile(whole, 50)), 2),
        "p50_ms_by_turn": [round(float(np.percentile(t["whole"], 50)), 2) for t in turns],
        "p99_ms": round(float(np.percentile(whole, 99)), 2),
        "outputs_after_rgb_died": sum(t["after"] for t in turns),
        "longest_gap_s": round(max(t["gap"] for t in turns), 2),
    }
    if own:
        found["node_less_engine_p50_ms"] = round(float(np.percentile(own, 50)), 2)
        found["node_less_engine_p99_ms"] = round(float(np.percentile(own, 99)), 2)
    return found


def plain_command(args: argparse.Namespace, root: str) -> list[str]:
    """What starts the plain node, with its topics below a name."""
    command = [sys.executable, __file__, "--bundle", args.bundle, "--plain", root]
    return [*command, "--threads", str(args.threads)]


def node_command(args: argparse.Namespace, root: str) -> list[str]:
    """What starts ours, with its topics below a name."""
    command = [str(node_program("perception_node")), "--ros-args"]
    for setting in (
        f"bundle:={args.bundle}",
        "device:=onnxruntime-cpu",
        f"threads:={args.threads}",
        "autostart:=true",
        "inputs:=[rgb, depth]",
    ):
        command += ["-p", setting]
    for name in ("input/rgb", "input/depth", "segmentation/mask"):
        command += ["-r", f"~/{name}:={root}/{name.rpartition('/')[2]}"]
    return command


def main() -> int:
    """Parse the arguments, measure, print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--seconds", type=float, default=20.0, help="of both sensors, per turn")
    parser.add_argument("--turns", type=int, default=3, help="how often each node runs")
    parser.add_argument("--threads", type=int, default=1, help="within an operator, of both nodes")
    parser.add_argument("--paired", type=int, metavar="N", help="both at once, N pairs for each")
    parser.add_argument("--plain", metavar="TOPICS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        rclpy.init()
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            rclpy.spin(PlainNode(args.bundle, args.threads, args.plain))
        return 0
    if args.paired is not None:
        if args.paired < 1:
            parser.error("--paired: at least 1")
        from ros_pairs import measure_pairs

        commands = {
            "plain_node": plain_command(args, "/bench/plain_node"),
            "perception_node": node_command(args, "/bench/perception_node"),
        }
        faulthandler.dump_traceback_later(2 * _STARTS_WITHIN_S + args.paired, exit=True)
        print(json.dumps(measure_pairs(commands, args.paired, "/bench"), indent=2))
        return 0
    ours, plain = node_command(args, "/bench"), plain_command(args, "/bench")
    # A middleware that blocks for good ends the run, and shows where.
    limit = 2 * args.turns * (_STARTS_WITHIN_S + 2 * args.seconds + _ENDS_WITHIN_S)
    faulthandler.dump_traceback_later(limit, exit=True)
    driver = Driver()
    turns: dict[str, list[dict[str, Any]]] = {"perception_node": [], "plain_node": []}
    for _ in range(args.turns):
        turns["perception_node"].append(measure(driver, ours, args.seconds))
        turns["plain_node"].append(measure(driver, plain, args.seconds))
    results = {name: summarize(found) for name, found in turns.items()}
    ratio = results["plain_node"]["p50_ms"] / results["perception_node"]["p50_ms"]
    driver.close()
    print(json.dumps({**results, "plain_over_ours_p50": round(ratio, 2)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

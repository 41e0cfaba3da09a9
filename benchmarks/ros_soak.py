"""The ROS nodes under random faults for a long time: no exception, no growth, every message accounted for.

sensor_replay -> fault_injector -> perception_node run as processes.  Faults of every kind hit every
sensor at random, one or all at once, by a seed; the recording loops, so that the clock jumps back too.
What the injector sent is received by the node, or never came to it by the node's own count (`missed` in
/diagnostics); any other message is unaccounted for.  Resident memory is drawn over time (memory_NODE.png in
--out), and its growth is that of a straight line after the warm-up; beside it is told how much is the
process's alone, and how much others have mapped, too.  Status 1 and the reason when something is wrong.

    source ros2_ws/env.sh
    python benchmarks/ros_soak.py --bundle sim-rgbdtl --seconds 1800 --warm-up 300 --growth 1 --out OUT
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from anysense_msgs.msg import PerceptionStatus
from anysense_msgs.srv import SetFault
from anysense_ros.faults import FAULTS, Fault
from diagnostic_msgs.msg import DiagnosticArray
from process_memory import EVERY_S, Reading, memory_of, memory_parts, over_time
from ros_nodes import PATIENCE_S, STATES, Monitor, errors_in_log, report, start_node, wait
from sensor_msgs.msg import Image, PointCloud2
from soak import draw, growth
from vision_msgs.msg import Detection2DArray, Detection3DArray

from perception.errors import ConfigError
from perception.frame import KINDS
from perception.sensors.faults import SEVERITIES
from perception.sensors.registry import kind_of

ROOT = Path(__file__).parents[1]
VALUES = {
    "delay": (0.02, 0.8),
    "jitter": (0.02, 0.3),
    "nan": (0.1, 1.0),
    "beam_loss": (0.1, 1.0),
    "stamp_jump": (-40.0, 40.0),
    "burst": (0.2, 4.0),
    "reorder": (0.05, 0.5),
    "duplicate": (0.05, 0.5),
    "stamp_offset": (-0.3, 0.3),
    "stamp_noise": (0.002, 0.05),
    "clock_drift": (-0.02, 0.02),
}
"""Of faults that have an amount; those that are within a message have a severity."""
OUTPUTS = {
    "segmentation/mask": Image,
    "overlay": Image,
    "points": PointCloud2,
    "detections": Detection2DArray,
    "detections_3d": Detection3DArray,
}


def faults_for(kind: str) -> list[str]:
    """All that the injector can do to a sensor of a kind: on the way, and within the message."""
    own = kind_of(kind)
    return list(
        dict.fromkeys((*FAULTS[1:], *VALUES, *(own.faults if own.apply is not None else ())))
    )


def random_schedule(seed: int, seconds: float) -> list[dict[str, Any]]:
    """Events for the fault injector: of one sensor, of several, or of all at once."""
    dice = random.Random(seed)
    events: list[dict[str, Any]] = []
    at = 1.0
    while at < seconds:
        count = dice.choice((1, 1, 1, 2, 2, 3, 4))
        alike = dice.random() < 0.5  # all by the same fault, or each by its own
        kind = dice.choice(faults_for(dice.choice(KINDS)))
        lasting = dice.uniform(0.2, 5.0)
        for sensor in dice.sample(KINDS, count):
            own = kind if alike else dice.choice(faults_for(sensor))
            value = dice.uniform(*VALUES[own]) if own in VALUES else 0.0
            if own not in (*VALUES, *FAULTS):
                value = float(dice.choice(SEVERITIES))
            try:
                Fault(sensor, own, value)
            except ConfigError:
                own, value = "drop", 0.0  # the fault makes no sense for this sensor
            event = {"at": at, "for": lasting, "sensor": sensor, "fault": own, "value": value}
            events.append(event)
        at += dice.uniform(0.3, 4.0)
    return events


class Soak(Monitor):
    """Hears what the nodes count."""

    def __init__(self) -> None:
        super().__init__("soak_monitor", OUTPUTS, 1)
        self.values: dict[str, dict[str, str]] = {}
        self._heard_at: float | None = None
        self.start()

    def on_status(self, message: PerceptionStatus) -> None:
        now = time.monotonic()
        super().on_status(message)
        if self._heard_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._heard_at)
        self._heard_at = now
        self.states[STATES[message.state]] += 1

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.values[status.name] = {v.key: v.value for v in status.values}

    def number(self, node: str, part: str, key: str) -> int:
        """A counter out of /diagnostics; 0 when it was not there."""
        return int(self.values.get(f"{node}: {part}", {}).get(key, 0))

    def mend_all(self) -> None:
        """End all faults."""
        client = self.node.create_client(SetFault, "/fault_injector/set_fault")
        client.wait_for_service(PATIENCE_S)
        future = client.call_async(SetFault.Request(sensor="all", fault="none", duration=1e6))
        wait(future.done, "the fault injector's answer")


def start_all(folder: Path, args: argparse.Namespace) -> dict[str, subprocess.Popen[bytes]]:
    """The nodes but for the replay, which `start_sensors` adds, and the schedule of faults."""
    events = random_schedule(args.seed, args.seconds)
    schedule = folder / "schedule.yaml"
    schedule.write_text(yaml.safe_dump({"events": events}))
    recorded = {m: f"/sensors/{m}/{'points' if m == 'lidar' else 'image_raw'}" for m in KINDS}
    inputs = {f"~/input/{m}": f"/faulty/{m}" for m in KINDS}
    inputs |= {f"~/input/{m}/camera_info": f"/sensors/{m}/camera_info" for m in KINDS[:3]}
    passed = {f"~/input/{m}": topic for m, topic in recorded.items()}
    passed |= {f"~/output/{m}": f"/faulty/{m}" for m in KINDS}
    perception = {
        "bundle": args.bundle,
        "device": "cpu",
        "threads": 1,
        "autostart": True,
        "inputs": list(KINDS),
        "sync.deadline_ms": 100.0,
        "policy.hold_ms": 1500.0,
        # With these the middleware loses nothing while there is CPU to fetch it; the node itself keeps
        # the latest of each sensor and counts the others.
        "qos.reliability": "reliable",
        "qos.depth": 20,
    }
    faults = {"schedule": str(schedule), "seed": args.seed}
    return {
        "perception_node": start_node(folder, "perception_node", perception, inputs),
        "fault_injector": start_node(folder, "fault_injector", faults, passed),
    }


def start_sensors(folder: Path, args: argparse.Namespace, monitor: Soak) -> subprocess.Popen[bytes]:
    """The replay, once those who are to hear it do."""
    topics = [f"/faulty/{m}" for m in KINDS]
    ends = (monitor.node.count_publishers, monitor.node.count_subscribers)
    wait(lambda: all(end(t) for end in ends for t in topics), "the nodes to come up")
    wait(lambda: monitor.last is not None, "a status")
    replay = {"source": args.source, "loop": True, "rate": args.rate}
    return start_node(folder, "sensor_replay", replay)


def watch(
    processes: dict[str, subprocess.Popen[bytes]], seconds: float
) -> tuple[dict[str, list[tuple[float, int]]], dict[str, list[Reading]]]:
    """Resident memory of each process, once a second, and its parts, from time to time."""
    start, parted = time.monotonic(), -EVERY_S
    memory: dict[str, list[tuple[float, int]]] = {n: [] for n in processes}
    parts: dict[str, list[Reading]] = {n: [] for n in processes}
    handles = {n: psutil.Process(p.pid) for n, p in processes.items()}
    while (now := time.monotonic() - start) < seconds:
        for name, process in processes.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended after {now:.0f} s")
            memory[name].append((now, handles[name].memory_info().rss))
        if now >= parted + EVERY_S:
            parted = now
            for name, handle in handles.items():
                parts[name].append(memory_of(handle, now))
        time.sleep(1.0)
    return memory, parts


def settle(monitor: Soak, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Stop the sensors and wait until nothing is under way."""
    monitor.mend_all()
    processes["sensor_replay"].send_signal(signal.SIGINT)
    processes["sensor_replay"].wait(PATIENCE_S)

    def quiet() -> bool:
        status = monitor.last
        if status is None or status.reason != "heartbeat":
            return False
        arrived = [monitor.number("perception_node", s.name, "arrived") for s in status.sensors]
        return all(
            s.waiting == 0 and s.received == n for s, n in zip(status.sensors, arrived, strict=True)
        )

    wait(quiet, f"the last message to be accounted for; {monitor.last}")


def summarize(monitor: Soak) -> dict[str, dict[str, int]]:
    """The fate of every sensor's messages."""
    assert monitor.last is not None
    table = {}
    for s in monitor.last.sensors:
        sent = monitor.number("fault_injector", s.name, "sent")
        missed = monitor.number("perception_node", s.name, "missed")
        table[s.name] = {
            "recorded": monitor.number("fault_injector", s.name, "received"),
            "missed_by_injector": monitor.number("fault_injector", s.name, "missed"),
            "sent": sent,
            "received": s.received,
            "missed": missed,
            "unaccounted": sent - s.received - missed,
            "used": s.taken,
            "superseded": s.superseded,
            "rejected": s.rejected,
        }
    return table


def run(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The whole run: what was found, and what is wrong."""
    monitor = Soak()
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        processes = start_all(folder, args)
        processes["sensor_replay"] = start_sensors(folder, args, monitor)
        wait(lambda: monitor.last is not None and monitor.last.used, "an output")
        monitor.longest_gap_s = 0.0
        memory, parts = watch(processes, args.seconds)
        gap = monitor.longest_gap_s
        settle(monitor, processes)
        # The injector reports once a second.
        counted = time.monotonic() + 2.5
        wait(lambda: time.monotonic() > counted, "the last report")
        table = summarize(monitor)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        status = {n: p.wait(PATIENCE_S) for n, p in processes.items()}
        monitor.close()
    grown = {}
    for name, samples in memory.items():
        grown[name], line = growth(samples, args.warm_up)
        path, parted = folder / f"memory_{name}.png", over_time(parts[name])
        draw(samples, args.warm_up, line, path, over="seconds", parts=parted)
    found = {
        "seconds": args.seconds,
        "seed": args.seed,
        "faults": len(schedule := random_schedule(args.seed, args.seconds)),
        "kinds_of_faults": len({(e["sensor"], e["fault"]) for e in schedule}),
        "statuses": monitor.states,
        "heard": monitor.heard,
        "longest_gap_s": round(gap, 2),
        "messages": table,
        "memory_mb": {n: round(s[-1][1] / 2**20) for n, s in memory.items()},
        "memory_parts": {n: memory_parts(r, args.warm_up) for n, r in parts.items()},
        "memory_growth_percent": {n: round(100 * g, 1) for n, g in grown.items()},
    }
    wrong = list(monitor.wrong[:3])
    wrong += [f"{name}: {line}" for name in processes for line in errors_in_log(folder, name)]
    wrong += [f"{n} ended with status {s}" for n, s in status.items() if s]
    for name, share in grown.items():
        if share > args.growth / 100:
            wrong.append(f"{name} grew by {100 * share:.1f} %")
    for name, row in table.items():
        if row["received"] != row["used"] + row["superseded"] + row["rejected"]:
            wrong.append(f"{name}: {row}")
        if row["unaccounted"]:
            wrong.append(f"{name}: {row['unaccounted']} messages are unaccounted for: {row}")
        if not row["used"] or not row["rejected"]:
            wrong.append(f"{name} was never used or never failed: {row}")
    return found, wrong


def main() -> int:
    """Parse the arguments, run, print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="a bundle with all four sensors")
    parser.add_argument("--source", help="bag, or KIND:DIR; else the drive that is shipped")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds before growth counts")
    parser.add_argument("--growth", type=float, default=5.0, help="most growth of memory, percent")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the recording")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for logs; temporary when not given")
    args = parser.parse_args()
    if args.source is None:
        sys.path.insert(0, str(ROOT / "ros2_ws"))
        from demo import shipped_drive

        args.source = shipped_drive()
    return report(run, args)


if __name__ == "__main__":
    sys.exit(main())

"""How soon the node reacts to a sensor that fails: until it says so, and until it goes on without.

The perception node runs as a process, drivers of all four sensors in this one.  Each sensor fails in
each way, several times, at a random moment; times are from the first message that is wrong, or that
does not come: to the first /diagnostics in which the sensor's part is not OK, and to the first output
that the sensor is not in.

    source ros2_ws/env.sh
    python benchmarks/ros_reaction.py --bundle sim-rgbdtl --out reaction.json
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.faults import Fault
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_drivers import Drivers, Pattern
from ros_nodes import PATIENCE_S, Monitor, start_node, wait
from sensor_msgs.msg import Image

from perception.frame import KINDS

FAULTS: dict[str, tuple[str, float]] = {
    "drop": ("drop", 0.0),
    "freeze": ("freeze", 0.0),
    "black": ("black", 0.0),
    "encoding": ("encoding", 0.0),
    "null": ("null", 0.0),
    "delay 0.6 s": ("delay", 0.6),
    "clock 0.4 s ahead": ("stamp_jump", 0.4),
    "clock 1 h ahead": ("stamp_jump", 3600.0),
    "clock 1 h behind": ("stamp_jump", -3600.0),
}


class Ears(Monitor):
    """Hears what the node says, and when."""

    def __init__(self) -> None:
        # Somebody listens to a mask, so that outputs are made.
        super().__init__("reaction", {"segmentation/mask": Image}, 1)
        self.outputs: list[tuple[float, PerceptionStatus]] = []
        self.alarms: list[tuple[float, set[str]]] = []  # the parts that are not OK

    def on_status(self, message: PerceptionStatus) -> None:
        self.outputs.append((time.monotonic(), message))

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        now = time.monotonic()
        wrong = {
            s.name.rpartition(": ")[2] for s in message.status if s.level != DiagnosticStatus.OK
        }
        self.alarms.append((now, wrong))

    def well(self, sensors: tuple[str, ...]) -> bool:
        """Whether all sensors are in the last output, and none is reported."""
        if not self.outputs or not self.alarms:
            return False
        last = self.outputs[-1][1]
        return last.used == list(sensors) and not self.alarms[-1][1] & {*sensors, "output"}


def measure(ears: Ears, drivers: Drivers, fault: Fault) -> tuple[float, float]:
    """Milliseconds from a fault to the first diagnostic, and to the first output without."""
    began: list[float] = []
    first_output, first_alarm = len(ears.outputs), len(ears.alarms)
    drivers.fail(fault, began.append)
    wait(lambda: began, f"{fault.sensor} to fail")

    def alarm() -> float | None:
        heard = ears.alarms[first_alarm:]
        return next((t for t, wrong in heard if t >= began[0] and fault.sensor in wrong), None)

    def without() -> float | None:
        heard = ears.outputs[first_output:]
        return next(
            (t for t, s in heard if t >= began[0] and s.used and fault.sensor not in s.used), None
        )

    said = wait(alarm, f"a diagnostic of {fault.sensor}: {fault.kind}")
    left = wait(without, f"an output without {fault.sensor}: {fault.kind}")
    drivers.mend(fault.sensor)
    return (said - began[0]) * 1e3, (left - began[0]) * 1e3


def run(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All faults of all sensors, several times each, in random order."""
    ears = Ears()
    drivers = Drivers(ears.node, {m: Pattern(args.rate) for m in KINDS})
    ears.start()
    drivers.start()
    parameters = {  # those of `rig_all.yaml`
        "bundle": args.bundle,
        "device": args.device,
        "threads": 1,
        "autostart": True,
        "inputs": list(KINDS),
        "sync.deadline_ms": 100.0,
        "policy.max_age_ms": 150.0,
        **{f"{m}.timeout_ms": 400.0 for m in KINDS},
    }
    node = start_node(folder, "perception_node", parameters)
    dice = random.Random(args.seed)
    cases = [(f, s) for f in args.faults for s in args.sensors for _ in range(args.times)]
    dice.shuffle(cases)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        for name, sensor in cases:
            wait(lambda: ears.well(KINDS), "all sensors to be well")
            # Diagnostics that change often are sent once a second: let that pass.
            time.sleep(dice.uniform(3.0, 4.0))
            kind, value = FAULTS[name]
            times = measure(ears, drivers, Fault(sensor, kind, value))
            found.setdefault((name, sensor), []).append(times)
            del ears.outputs[:-1], ears.alarms[:-1]
    except SystemExit:
        log = (folder / "perception_node.log").read_text(errors="replace").splitlines()
        print("\n".join(log[-10:]), ears.outputs[-1:], sep="\n", file=sys.stderr)
        raise
    finally:
        drivers.close()
        node.send_signal(signal.SIGINT)
        node.wait(PATIENCE_S)
        ears.close()
    return [
        {"fault": name, "sensor": sensor, "times": len(found[name, sensor])}
        | _percentiles("diagnostic_ms", [t[0] for t in found[name, sensor]])
        | _percentiles("output_ms", [t[1] for t in found[name, sensor]])
        for name in args.faults
        for sensor in args.sensors
    ]


def _percentiles(name: str, values: list[float]) -> dict[str, Any]:
    return {
        name: {"p50": round(np.percentile(values, 50)), "p99": round(np.percentile(values, 99))}
    }


def main() -> int:
    """Parse the arguments, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="a bundle with all four sensors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rate", type=float, default=10.0, help="of each sensor, Hz")
    parser.add_argument(
        "--times", type=int, default=10, help="how often each sensor fails each way"
    )
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--sensors", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the numbers as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(args, Path(folder))
    for row in rows:
        said, left = row["diagnostic_ms"], row["output_ms"]
        print(
            f"{row['fault']:18} {row['sensor']:8} diagnostic {said['p50']:5} {said['p99']:5}"
            f"  output {left['p50']:5} {left['p99']:5}  of {row['times']}"
        )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

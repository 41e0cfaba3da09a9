"""Runs sensor_replay -> fault_injector -> perception_node as processes, and draws what happened.

python ros2_ws/demo.py --bundle sim-rgbdtl --out out/ros_demo      (after `source ros2_ws/env.sh`)
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perception.errors import AnySenseError, ConfigError, DataError
from perception.files.shipped import shipped
from perception.frame import KINDS

PACKAGE = Path(__file__).parent / "src" / "anysense_ros"
SECONDS = 31.0
PATIENCE_S = 120.0
PICTURES = 5
_LETTER = 0.0072  # of the small font, as a share of the lanes' width
COLORS = {
    "used": "#2a9d4a",
    "ok": "#bfe3c8",
    "late": "#f4c542",
    "lost": "#c0392b",
    "frozen": "#3f7fbf",
    "dark": "#444444",
    "saturated": "#f08a24",
    "malformed": "#8e44ad",
    "skewed": "#c06f9c",
    "stalled": "#7f5539",
    "misaligned": "#ff6f91",
}
STATES = {"full": "#2a9d4a", "degraded": "#f4c542", "hold": "#f08a24", "stop": "#c0392b"}


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="sim-rgbdtl", help="a bundle with all four sensors")
    parser.add_argument("--source", help="bag, or KIND:DIR; else the drive that is shipped")
    parser.add_argument("--out", type=Path, default=Path("out/ros_demo"))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    try:
        source = args.source or shipped_drive()
        _run(args.bundle, source, args.out, args.seconds)
        rows = _read(args.out / "status.csv")
        draw(rows, sorted(args.out.glob("overlay_*.png")), args.out / "timeline.png")
    except AnySenseError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    used = {row["used"] for row in rows}
    print(f"{len(rows)} statuses, {len(used)} subsets of sensors: {args.out}/status.csv")  # noqa: T201
    print(f"timeline: {args.out}/timeline.png")  # noqa: T201
    return 0


def shipped_drive() -> str:
    """The argument that names the drive that comes with AnySense, nine simulated seconds."""
    return f"folder:{shipped('recordings') / 'simulated_drive'}"


def _run(bundle: str, source: str, out: Path, seconds: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config = PACKAGE / "config"
    sensors = {m: f"/sensors/{m}/{'points' if m == 'lidar' else 'image_raw'}" for m in KINDS}
    remaps = {f"~/input/{m}": f"/faulty/{m}" for m in KINDS}
    remaps |= {f"~/input/{m}/camera_info": f"/sensors/{m}/camera_info" for m in KINDS[:3]}
    passed = {f"~/input/{m}": topic for m, topic in sensors.items()}
    passed |= {f"~/output/{m}": f"/faulty/{m}" for m in KINDS}
    node = "/perception_node"
    heard = {"~/status": f"{node}/status", "~/overlay": f"{node}/overlay"}
    commands = [
        _command(
            "perception_node",
            remaps,
            {"bundle": bundle, "device": "cpu", "autostart": "true"},
            config / "rig_all.yaml",
        ),
        _command("fault_injector", passed, {"schedule": str(config / "demo_schedule.yaml")}),
        _command("status_recorder", heard, {"out": str(out)}),
        _command("sensor_replay", {}, {"source": source, "loop": "true"}),
    ]
    log = (out / "nodes.log").open("w")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        status = out / "status.csv"
        _wait_for_output(status, processes, out)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _check(processes, out)
            time.sleep(0.2)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        log.close()


def _wait_for_output(status: Path, processes: list[subprocess.Popen[bytes]], out: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        _check(processes, out)
        if status.is_file() and any(row["used"] for row in _read(status)):
            return
        time.sleep(0.2)
    raise DataError("no output came", where="perception_node", hint=f"see {out}/nodes.log")


def _check(processes: list[subprocess.Popen[bytes]], out: Path) -> None:
    for process in processes:
        if process.poll() is not None:
            name = Path(str(process.args[0])).name  # type: ignore[index]
            raise DataError(f"{name} ended", hint=f"see {out}/nodes.log")


def _command(
    name: str, remaps: dict[str, str], parameters: dict[str, str], file: Path | None = None
) -> list[str]:
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / "anysense_ros" / name
        if path.is_file():
            break
    else:
        raise ConfigError(f"{name} is not installed", hint="make ros, then source ros2_ws/env.sh")
    command = [str(path), "--ros-args"]
    command += ["--params-file", str(file)] if file else []
    for old, new in remaps.items():
        command += ["-r", f"{old}:={new}"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={value}"]
    return command


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _one_per_subset(overlays: Sequence[Path]) -> list[Path]:
    """The first overlay of each set of sensors, in order of time."""
    first: dict[str, Path] = {}
    for file in overlays:
        first.setdefault(file.stem.split("_")[3], file)
    return list(first.values())[:PICTURES]


def _name_states(
    lanes: Any, rows: Sequence[dict[str, str]], times: Sequence[float], ends: Sequence[float]
) -> None:
    """Write each longer stretch's state onto the lane at the bottom, whose colors have no legend."""
    begin = 0
    letter = _LETTER * (ends[-1] - times[0]) if ends else 0.0
    for index in range(1, len(rows) + 1):
        if index < len(rows) and rows[index]["state"] == rows[begin]["state"]:
            continue
        if ends[index - 1] - times[begin] > letter * (len(rows[begin]["state"]) + 1):
            middle = (times[begin] + ends[index - 1]) / 2
            lanes.text(middle, 0, rows[begin]["state"], ha="center", va="center", fontsize=7)
        begin = index


def draw(rows: list[dict[str, str]], overlays: list[Path], path: Path) -> None:
    """Overlays, a lane for every sensor colored by what it was, the state, and the latency."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    first = next((i for i, r in enumerate(rows) if r["used"]), 0)
    rows = rows[first:]
    start = float(rows[0]["time_s"]) if rows else 0.0
    times = [float(r["time_s"]) - start for r in rows]
    ends = [*times[1:], times[-1] + 0.1] if times else []
    figure = plt.figure(figsize=(10, 6.2), layout="constrained")
    chosen = _one_per_subset(overlays)
    grid = figure.add_gridspec(3, PICTURES, height_ratios=(3, 5, 2))
    for column, file in enumerate(chosen):
        _, _, seconds, used = file.stem.split("_")
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(plt.imread(file))
        axes.set_title(f"{max(0.0, float(seconds[:-1]) - start):.0f} s: {used}", fontsize=7)
        axes.set_axis_off()
    lanes = figure.add_subplot(grid[1, :])
    below = figure.add_subplot(grid[2, :], sharex=lanes)
    names = ["state", *reversed(KINDS)]
    for row, left, right in zip(rows, times, ends, strict=True):
        used = row["used"].split("+")
        for y, name in enumerate(names):
            if name == "state":
                color = STATES[row["state"]]
            else:
                health = row[f"health_{name}"] or "lost"
                color = COLORS["used" if name in used else health]
            lanes.barh(y, right - left, left=left, color=color, height=0.8, linewidth=0)
    lanes.set_yticks(range(len(names)), [n.upper() if n == "rgb" else n for n in names])
    patches = [Patch(color=c, label=n) for n, c in COLORS.items()]
    figure.legend(
        handles=patches,
        loc="outside upper center",
        ncols=len(patches),
        frameon=False,
        fontsize=8,
        handlelength=1.4,
        columnspacing=1.2,
    )
    _name_states(lanes, rows, times, ends)
    points = [
        (t, float(r["latency_ms"])) for t, r in zip(times, rows, strict=True) if r["latency_ms"]
    ]
    below.plot([t for t, _ in points], [v for _, v in points], ".", markersize=3, color="#333333")
    below.set_ylabel("latency, ms")
    below.set_ylim(bottom=0)
    below.set_xlabel("seconds")
    for axes in (lanes, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
